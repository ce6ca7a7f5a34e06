"""Days on the command line: how they are written, and which range a command may have."""

from __future__ import annotations

from datetime import date
from typing import Any

import click

from algobot_assets.errors import SettingsError
from algobot_assets.schema.intervals import FIRST_DAY
from algobot_assets.settings import Settings


class Day(click.ParamType):
    """A UTC day written 2024-01-31."""

    name = "YYYY-MM-DD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """The day, or a sentence about what was written."""
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day; write it as 2024-01-31", param, ctx)


def days_of(first: date | None, last: date | None) -> tuple[date, date]:
    """The days asked for: by default from the first declared market's start to today by the source's clock."""
    from algobot_assets.declared.state_file import StateFile
    from algobot_assets.feed.open import open_source

    state = StateFile().load()
    if last is None:
        with open_source(Settings()) as source:
            last = source.server_time().date()
    first = first or state.first_day
    if first > last:
        raise SettingsError(f"The range ends ({last}) before it begins ({first}).")
    check_first(first)
    return first, last


def check_first(first: date) -> None:
    """SettingsError for a day before the first partition."""
    if first < FIRST_DAY:
        raise SettingsError(f"{first} lies before the first partition, {FIRST_DAY}: Binance has no candles before it.")

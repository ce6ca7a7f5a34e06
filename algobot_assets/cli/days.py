"""Parse the days on the command line, and choose the range for a command."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import click

from algobot_assets.cli.output import say
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.declared.model import Market
    from algobot_assets.pipeline.days import DayRange
    from algobot_assets.store.connection import Store

#: Tables of the declared state. All others are computed per market.
DECLARED = ("configurations", "strategies", "risk_parameters")


class Day(click.ParamType[date]):
    """A UTC day, written YYYY-MM-DD."""

    name = "YYYY-MM-DD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the day."""
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a valid date. Use YYYY-MM-DD, for example 2024-01-31.", param, ctx)


def choose_days(
    settings: Settings, store: Store, first: date | None, last: date | None, tables: Sequence[str] = ()
) -> DayRange:
    """Return the requested days, limited to those that exist, and print the skipped ones.

    By default from the earliest start of a declared market to the newest day of the source. ``tables``: those to
    compute, by default all nine.
    """
    from algobot_assets.audit.staleness import complete_through
    from algobot_assets.declared.state_file import StateFile
    from algobot_assets.feed.open import CandleFeed
    from algobot_assets.pipeline.days import fit_days, newest_day, require_days

    if first is not None and last is not None:
        require_days(first, last)
    through = complete_through(store)
    stored = (through - timedelta(microseconds=1)).date() if through else None
    newest = newest_day(CandleFeed(settings.candles_from), stored)
    markets: tuple[Market, ...] = ()
    if tables and set(tables) <= set(DECLARED):
        start = first or newest.day
    else:
        state = StateFile().load()
        markets, start = state.markets, first or state.first_day
    if first is None and start > newest.day:
        raise SettingsError(
            f"The declared markets start on {start}, but {newest.reason}. Declare an earlier `start` in algobot.yaml."
        )
    days = fit_days(start, last or newest.day, newest, markets)
    if days.remark:
        say(days.remark)
    return days

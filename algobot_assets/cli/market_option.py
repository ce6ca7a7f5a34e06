"""Parse a market's name on the command line."""

from __future__ import annotations

import unicodedata
from typing import Any

import click

from algobot_assets.schema.intervals import INTERVALS
from algobot_assets.schema.symbols import is_symbol, suggest_market


class MarketName(click.ParamType[str]):
    """A market written 'BTCUSDT 1h'."""

    name = "'SYMBOL INTERVAL'"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the market's name, or fail with the likely spelling."""
        text = unicodedata.normalize("NFC", " ".join(str(value).split()))
        symbol, _, interval = text.rpartition(" ")
        if is_symbol(symbol) and interval in INTERVALS:
            return text
        near = suggest_market(text)
        meant = f"did you mean '{near}'? " if near else ""
        self.fail(f"{value!r} is not a market; {meant}Markets are written like 'BTCUSDT 1h'.", param, ctx)

"""Test on stored candles whether a strategy that is not stored looks ahead.

The test itself is that of the checks of every run, in audit/rules/look_ahead.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from algobot_assets.audit.rules.look_ahead import Change, look_ahead
from algobot_assets.audit.rules.sample import MOST_ROWS
from algobot_assets.compute import signals
from algobot_assets.compute.carry import Days
from algobot_assets.compute.strategy.bars import Bars
from algobot_assets.research.request import DAY, Trial
from algobot_assets.schema.intervals import day_of, days_between

_PRICES = ("open", "high", "low", "close")


def sample_look_ahead(trial: Trial, parameters: Mapping[str, Any]) -> Change | None:
    """Return the first signal that changes when later candles are cut off or poisoned; None if none does.

    Runs the strategy on the newest candles, MOST_ROWS at most, starting cold.
    """
    market = trial.market
    rows = market.candles.tail(MOST_ROWS)
    rows = rows.with_columns(pl.col(*_PRICES, "volume").cast(pl.Float64))
    names = trial.strategy.indicators
    if names and market.indicators is not None:
        rows = rows.join(market.indicators, on="timestamp", how="left", maintain_order="left")

    def compute(some: pl.DataFrame) -> pl.DataFrame:
        owned = some.select(day_of(trial.interval, trial.phase).alias("day"))["day"]
        days = Days(days_between(owned[0], owned[-1] + DAY), owned)
        declared = signals.declared_indicators(trial.strategy, some, some, days)
        return pl.DataFrame({"signal": signals.decide(trial.strategy, Bars(some, declared, days), parameters)})

    return look_ahead(compute, rows, (*_PRICES, *names))

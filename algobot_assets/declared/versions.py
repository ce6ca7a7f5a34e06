"""Turn the declared state into rows of the reference tables, and find the versions in force on a day.

Version numbers count per name (risk parameters: per strategy version) in order of effective_from, from 1. A
row belongs to the partition of its effective_from. Day ranges are half-open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any

import polars as pl

from algobot_assets.declared.configurations import CONFIGURATIONS
from algobot_assets.declared.model import DeclaredState
from algobot_assets.declared.parameters import to_json
from algobot_assets.errors import WindowError
from algobot_assets.schema.frames import schema_of

#: The column that names the thing of which a row is a version, per table.
NAMED_BY = {"configurations": "config_name", "strategies": "strategy_name", "risk_parameters": "strategy_id"}


def configurations(state: DeclaredState, first: date, end: date) -> pl.DataFrame:
    """Return the rows of configurations that take effect in [first, end), ascending by name and day."""
    rows = _numbered(
        {
            "config_name": item.name,
            "config_value": item.text,
            "effective_from": item.effective_from,
        }
        for item in state.configurations
    )
    return _within(_frame("configurations", rows), first, end)


def strategies(state: DeclaredState, first: date, end: date) -> pl.DataFrame:
    """Return the rows of strategies that take effect in [first, end), ascending by name and day.

    effective_to is the declared one: a version that is merely replaced keeps null there, so that a new version
    changes no row of an earlier partition. See `lifetimes`.
    """
    rows = _numbered(
        {
            "strategy_name": item.name,
            "strategy_type": item.type,
            "symbol": item.symbol,
            "interval": item.interval,
            "initial_balance": item.initial_balance,
            "risk_per_trade": item.risk_per_trade,
            "parameters": to_json(item.parameters, item.shorting, item.stop_path),
            "effective_from": item.effective_from,
            "effective_to": item.effective_to,
        }
        for item in state.strategies
    )
    return _within(_frame("strategies", rows), first, end)


def risk_parameters(state: DeclaredState, stored_strategies: pl.DataFrame, first: date, end: date) -> pl.DataFrame:
    """Return the rows of risk_parameters that take effect in [first, end), ascending by strategy and day.

    stored_strategies: the stored strategies with id, strategy_name and effective_from, at least those
    declared with risk parameters in the window. WindowError names the first one that is not stored yet.
    """
    ids = {
        (row["strategy_name"], row["effective_from"]): row["id"]
        for row in stored_strategies.select("id", "strategy_name", "effective_from").to_dicts()
    }
    rows = []
    for strategy in state.strategies:
        for version, item in enumerate(strategy.risk, start=1):
            if not first <= item.effective_from < end:
                continue
            if (strategy.name, strategy.effective_from) not in ids:
                raise WindowError(
                    f"strategy {strategy.name} of {strategy.effective_from} is declared but not stored, so its risk "
                    f"parameters cannot be stored. Materialise strategies of {strategy.effective_from} first."
                )
            rows.append(
                {
                    "strategy_id": ids[strategy.name, strategy.effective_from],
                    "max_risk_per_trade": item.max_risk_per_trade,
                    "max_open_trades": item.max_open_trades,
                    "stop_loss_percentage": item.stop_loss_percentage,
                    "take_profit_percentage": item.take_profit_percentage,
                    "version": version,
                    "effective_from": item.effective_from,
                }
            )
    return _frame("risk_parameters", rows).sort("strategy_id", "effective_from")


def _numbered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Assign numbers to the versions in ``rows``, which ascend by their first column and day."""
    numbered: list[dict[str, Any]] = []
    count: dict[str, int] = {}
    for row in rows:
        name = next(iter(row.values()))
        count[name] = count.get(name, 0) + 1
        numbered.append({**row, "version": count[name]})
    return numbered


def _frame(table: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema_of(table), orient="row")


def _within(frame: pl.DataFrame, first: date, end: date) -> pl.DataFrame:
    return frame.filter((pl.col("effective_from") >= first) & (pl.col("effective_from") < end))


def _named_by(frame: pl.DataFrame) -> str:
    """Return the column that names the things whose versions ``frame`` holds."""
    return next(column for column in NAMED_BY.values() if column in frame.columns)


def lifetimes(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the column "until" (Date): the first day on which a version no longer applies, or null.

    It is the name's next effective_from or the version's effective_to, whichever is earlier. The frame must
    hold every version of its names from the earliest day of interest on.
    """
    key = _named_by(frame)
    ordered = frame.sort(key, "effective_from")
    until = pl.col("effective_from").shift(-1).over(key)
    if "effective_to" in frame.columns:
        until = pl.min_horizontal(until, "effective_to")
    return ordered.with_columns(until.alias("until"))


def effective(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return the version in force on ``day`` of each thing in ``frame``, ascending by name, without retired ones."""
    holds = (pl.col("effective_from") <= day) & (pl.col("until").is_null() | (pl.col("until") > day))
    return lifetimes(frame).filter(holds).drop("until")


@dataclass(frozen=True, slots=True)
class Period:
    """Days [first, end) on which the same versions are in force: ``rows``, as `effective` returns them."""

    first: date
    end: date
    rows: pl.DataFrame


def periods(frame: pl.DataFrame, first: date, end: date) -> list[Period]:
    """Split [first, end) at the days on which the versions in force change; ascending, without gaps.

    Periods in which nothing is in force have no rows. To split by one strategy, filter the frame before.
    """
    changes = {day for column in ("effective_from", "until") for day in lifetimes(frame)[column].drop_nulls()}
    days = [first, *sorted(day for day in changes if first < day < end), end]
    return [Period(begin, stop, effective(frame, begin)) for begin, stop in pairwise(days) if begin < stop]


def settings(frame: pl.DataFrame, day: date) -> dict[str, int | Decimal | str]:
    """Return the value of every known configuration on ``day``, by name; its default if ``frame`` has none.

    frame: configurations. Stored names that are no longer known are skipped.
    """
    stored = dict(effective(frame, day).select("config_name", "config_value").iter_rows())
    return {
        name: setting.parse(stored[name]) if name in stored else setting.default
        for name, setting in CONFIGURATIONS.items()
    }

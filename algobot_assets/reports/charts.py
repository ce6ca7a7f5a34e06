"""Prepare the data of a page's charts for report.js: plain lists, rounded to what a chart can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from algobot_assets.compute.metrics.curves import monthly_returns, rolling_sharpe
from algobot_assets.reports.facts import Facts
from algobot_assets.schema.intervals import LENGTH_MS


def strategy_data(facts: Facts) -> dict[str, Any]:
    """Return the data of one version: candles by level, equity, months, trades."""
    curve, trades = facts.curve, facts.trades
    rounded = {"equity": 2, "hold": 2, "drawdown": 6}
    equity = {name: curve[name].round(digits).fill_nan(None).to_list() for name, digits in rounded.items()}
    months = monthly_returns(curve)
    cells = {(year, month): value for year, month, value in months.iter_rows()}
    years = sorted({year for year, _ in cells})
    grid = []
    for year in years:
        row = [cells.get((year, month)) for month in range(1, 13)]
        whole = pl.Series([1 + value for value in row if value is not None]).product() - 1
        grid.append([None if value is None else round(value, 6) for value in [*row, whole]])
    millis = {name: trades[f"{name}_time"].dt.epoch("ms").to_list() for name in ("entry", "exit")}
    floats = {"entry_price": "entry_price", "exit_price": "exit_price", "pct": "profit_pct", "hours": "duration"}
    return {
        "kind": "strategy",
        "name": facts.item.name,
        "quote": "equity",
        "interval": facts.item.interval,
        "candle_ms": LENGTH_MS[facts.item.interval] or 30 * 86_400_000,
        "levels": facts.market.levels,
        "equity": {
            "day": [str(day) for day in curve["day"]],
            **equity,
            "sharpe": rolling_sharpe(curve["daily_return"]).round(4).fill_nan(None).to_list(),
        },
        "months": {"years": [str(year) for year in years], "grid": grid},
        "trades": {
            "id": trades["id"].to_list(),
            "side": trades["position_type"].to_list(),
            "reason": trades["exit_reason"].to_list(),
            **millis,
            **{name: trades[column].cast(pl.Float64).to_list() for name, column in floats.items()},
        },
    }


def equity_lines(every: Sequence[Facts]) -> list[dict[str, Any]]:
    """Return the equity of several versions from 100, then buy and hold of their markets from the earliest start."""
    lines: list[dict[str, Any]] = []
    held: dict[str, dict[str, Any]] = {}
    for facts in every:
        curve = facts.curve
        if curve.is_empty() or facts.last is None:
            continue
        scale = 100 / float(facts.last["initial_capital"])
        days = [str(day) for day in curve["day"]]
        lines.append({"name": facts.item.name, "day": days, "value": (curve["equity"] * scale).round(3).to_list()})
        market = f"hold {facts.item.symbol}"
        if market not in held or days[0] < held[market]["day"][0]:
            scale = 100 / float(facts.row["initial_balance"])
            worth = (curve["hold"] * scale).round(3).to_list()
            held[market] = {"name": market, "day": days, "value": worth, "hold": True, "beside": len(lines) - 1}
    return [*lines, *held.values()]

"""Checks of signals: one row per candle and strategy version, valid values, and no look-ahead."""

from __future__ import annotations

from typing import Any

import polars as pl

from algobot_assets.audit.rules.check_run import CheckRun
from algobot_assets.audit.rules.messages import failed
from algobot_assets.audit.rules.rows import unlike_candles
from algobot_assets.audit.rules.sample import AGAIN, AHEAD, BOUND, choose, examine, report, sampled
from algobot_assets.compute.carry import Days
from algobot_assets.compute.code_version import strategy_code_version
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import get_strategy
from algobot_assets.declared.parameters import from_json
from algobot_assets.defs.checks.factory import define_checks
from algobot_assets.errors import AlgobotError
from algobot_assets.schema.windows import Window

ROWS, VALUES = "one_row_per_candle", "values_are_known"


@define_checks(
    "signals",
    {
        ROWS: "Every candle of a recorded day has exactly one row per strategy version that refers to it.",
        VALUES: "A signal is 1, -1 or 0.",
        AHEAD: "Removing later candles, or scaling their prices and indicators by 10 and 0.1, does not change earlier "
        f"signals. {BOUND}",
        AGAIN: f"Recomputing from the carried state gives the stored signals. {BOUND}",
    },
    blocking=(VALUES,),
)
def checks(run: CheckRun) -> None:
    """Count each day on the server, and recompute samples."""
    versions = {row["id"]: row for row in run.handle("strategies").versions(history=True).iter_rows(named=True)}
    stored_by_window = run.per_day(run.recorded, unknown="count(*) FILTER (WHERE signal NOT IN (1, -1, 0))")
    candles = run.per_day(run.candles(window) for window in run.recorded)
    for window, days in run.recorded.items():
        stored = stored_by_window[window]
        for name in (ROWS, VALUES):
            run.findings[name].seen += int(stored["rows"].sum())
        run.findings[ROWS].add(unlike_candles(window, stored, candles[run.candles(window)], days))
        for day, number in stored.filter(pl.col("unknown") > 0).select("day", "unknown").iter_rows():
            run.findings[VALUES].add(
                f"{window}: {number} signals of {day} are not 1, -1 or 0. Materialise signals of {day} again."
            )
    kinds = {window: versions[window.strategy_id]["strategy_type"] for window in run.recorded}
    for window in sampled(kinds, run.end):
        rows = int(stored_by_window[window]["rows"].sum())
        _sample(run, window, run.candles(window), versions[window.strategy_id], rows)


def _sample(run: CheckRun, window: Window, candles: Window, version: dict[str, Any], rows: int) -> None:
    kind = version["strategy_type"]
    who = f"signals of {version['strategy_name']} ({kind}) on {window.symbol} {window.interval}"
    try:
        names = get_strategy(kind).indicators
        parameters = from_json(version["parameters"]).parameters
        code = strategy_code_version(kind)
    except AlgobotError as error:  # the strategy no longer exists
        run.findings[AGAIN].add(failed(who, window, str(error)))
        return
    handle = run.handle()
    values = run.handle("indicators").window(symbol=window.symbol, interval=window.interval) if names else None
    sample = choose(handle, window, [candles, values] if values else [candles], code, rows)
    if sample is None:
        return

    def again(some: pl.DataFrame, days: Days) -> pl.DataFrame:
        return compute_signals(kind, some, some, parameters, days, sample.state)[0]

    answers = examine(handle, sample, candles, values, names, ("signal",), again)
    report(run, who, sample.window, answers)

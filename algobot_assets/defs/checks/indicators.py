"""Checks of indicators: one row per candle, values in bounds, NULL only during warm-up, and no look-ahead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cache

import polars as pl

from algobot_assets.audit.rules import indicators as rules
from algobot_assets.audit.rules.check_run import CheckRun, day_sql
from algobot_assets.audit.rules.rows import unlike_candles
from algobot_assets.audit.rules.sample import AGAIN, AHEAD, BOUND, choose, examine, report
from algobot_assets.compute.carry import Days
from algobot_assets.compute.code_version import indicators_code_version
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.declared.versions import effective
from algobot_assets.defs.checks.factory import define_checks
from algobot_assets.schema.windows import Window

ROWS, BOUNDS, WARM = "one_row_per_candle", "values_are_possible", "null_only_while_warming"
VALUES = ("ema", "rsi", "atr", "vwap")


@define_checks(
    "indicators",
    {
        ROWS: "Every candle of a recorded day has exactly one row that refers to it.",
        BOUNDS: "0 <= rsi <= 100, atr >= 0, ema > 0, vwap > 0, and all are finite.",
        WARM: "ema is NULL only for a market's first n - 1 candles, rsi and atr for its first n, and vwap only without "
        "volume.",
        AHEAD: f"Removing later candles, or scaling their prices by 10 and 0.1, changes no earlier value. {BOUND}",
        AGAIN: f"Recomputing from the carried state gives the stored values bit by bit. {BOUND}",
    },
    blocking=(BOUNDS, AHEAD),
)
def checks(run: CheckRun) -> None:
    """Count each day on the server, and recompute a sample."""
    settings = run.handle("configurations").versions(history=True)

    @cache
    def windows_on(day: date) -> IndicatorWindows:
        rows = effective(settings, day) if settings.height else settings
        return IndicatorWindows.from_configurations(dict(rows.select("config_name", "config_value").iter_rows()))

    for window, days in run.recorded():
        candles = run.handle("market_data").window(symbol=window.symbol, interval=window.interval)
        stored = run.per_day(window, **rules.per_day())
        rows = int(stored["rows"].sum())
        for name in (ROWS, BOUNDS, WARM):
            run.findings[name].seen += rows
        run.findings[ROWS].add(unlike_candles(window, stored, run.per_day(candles), days))
        run.findings[BOUNDS].add(rules.out_of_bounds(window, stored))
        before = _candles_before(run, window, stored)
        lost = _nulls_with_volume(run, window, stored)
        run.findings[WARM].add(rules.warmth(window, stored, before, windows_on, lost))
        _sample(run, window, candles, windows_on, rows)


def _sample(
    run: CheckRun, window: Window, candles: Window, windows_on: Callable[[date], IndicatorWindows], rows: int
) -> None:
    handle = run.handle()
    sample = choose(handle, window, [candles], indicators_code_version(), rows)
    if sample is None:
        return
    windows = windows_on(sample.window.first)

    def again(some: pl.DataFrame, days: Days) -> pl.DataFrame:
        return compute_indicators(some, windows, window.interval, days, sample.state)[0]

    answers = examine(handle, sample, candles, None, (), VALUES, again)
    who = f"indicators of {window.symbol} {window.interval}"
    report(run, who, sample.window, answers)


def _candles_before(run: CheckRun, window: Window, stored: pl.DataFrame) -> dict[date, int]:
    """Count the market's candles before each stored day."""
    earlier = run.rows(
        """SELECT coalesce(sum(rows), 0)::bigint AS rows FROM lineage
            WHERE table_name = 'indicators' AND symbol = %s AND "interval" = %s AND day < %s""",
        (window.symbol, window.interval, window.first),
        {"rows": pl.Int64()},
    ).item()
    counts = stored["rows"].cum_sum() - stored["rows"] + earlier
    return dict(zip(stored["day"], counts, strict=True))


def _nulls_with_volume(run: CheckRun, window: Window, stored: pl.DataFrame) -> dict[date, int]:
    """Count candles with volume but without vwap, per day with NULLs in vwap."""
    found: dict[date, int] = {}
    days = stored.filter(pl.col("null_vwap") > 0)["day"]
    if days.is_empty():
        return found
    day = day_sql(window.interval, window.phase).replace('"timestamp"', 'i."timestamp"')
    for part in window.pieces():
        lo, hi = part.bounds
        rows = run.rows(
            f"""SELECT {day} AS day, count(*) FROM indicators AS i JOIN market_data AS m
                    ON m.id = i.market_data_id AND m."timestamp" = i."timestamp"
                 WHERE i.symbol = %s AND i."interval" = %s AND i."timestamp" >= %s AND i."timestamp" < %s
                   AND m."timestamp" >= %s AND m."timestamp" < %s AND i.vwap IS NULL AND m.volume > 0 GROUP BY 1""",
            (window.symbol, window.interval, lo, hi, lo, hi),
            {"day": pl.Date(), "rows": pl.Int64()},
        )
        found.update(rows.iter_rows())
    return found

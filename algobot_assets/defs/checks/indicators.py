"""Checks of indicators: one row per candle, values in bounds, NULL only during warm-up, and no look-ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from functools import cache

import polars as pl

from algobot_assets.audit.rules import indicators as rules
from algobot_assets.audit.rules.check_run import DAY, CheckRun, day_sql
from algobot_assets.audit.rules.rows import unlike_candles
from algobot_assets.audit.rules.sample import AGAIN, AHEAD, BOUND, choose, examine, report, sampled
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

    stored_by_window = run.per_day(run.recorded, **rules.per_day())
    candles = run.per_day(run.candles(window) for window in run.recorded)
    before = _candles_before(run)
    lost = _nulls_with_volume(run, stored_by_window)
    for window, days in run.recorded.items():
        stored = stored_by_window[window]
        for name in (ROWS, BOUNDS, WARM):
            run.findings[name].seen += int(stored["rows"].sum())
        run.findings[ROWS].add(unlike_candles(window, stored, candles[run.candles(window)], days))
        run.findings[BOUNDS].add(rules.out_of_bounds(window, stored))
        counts = stored["rows"].cum_sum() - stored["rows"] + before.get((window.symbol, window.interval), 0)
        earlier = dict(zip(stored["day"], counts, strict=True))
        run.findings[WARM].add(rules.warmth(window, stored, earlier, windows_on, lost.get(window, {})))
    for window in sampled(dict.fromkeys(run.recorded, "indicators"), run.end):
        _sample(run, window, run.candles(window), windows_on, int(stored_by_window[window]["rows"].sum()))


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


def _candles_before(run: CheckRun) -> dict[tuple[str, str], int]:
    """Count each market's candles before the run's days."""
    rows = run.rows(
        """SELECT symbol, "interval", sum(rows)::bigint FROM lineage
            WHERE table_name = 'indicators' AND day < %s GROUP BY 1, 2""",
        (run.first,),
        {"symbol": pl.String(), "interval": pl.String(), "rows": pl.Int64()},
    )
    return {(symbol, interval): number for symbol, interval, number in rows.iter_rows()}


def _nulls_with_volume(run: CheckRun, stored: Mapping[Window, pl.DataFrame]) -> dict[Window, dict[date, int]]:
    """Count candles with volume but without vwap, per market and day with NULLs in vwap."""
    grids: dict[str, list[tuple[Window, date]]] = {}
    for window, counts in stored.items():
        for day in counts.filter(pl.col("null_vwap") > 0)["day"]:
            grids.setdefault(day_sql(window.interval, window.phase), []).append((window, day))
    found: dict[Window, dict[date, int]] = {}
    for day_of_row, days in grids.items():
        bounds = [window.of(day, day + DAY).bounds for window, day in days]
        day = day_of_row.replace('"timestamp"', 'i."timestamp"')
        rows = run.rows(
            f"""SELECT n, {day} AS day, count(*)
                  FROM unnest(%s::int[], %s::varchar[], %s::varchar[], %s::timestamptz[], %s::timestamptz[])
                       AS w (n, symbol, "interval", lo, hi)
                  JOIN indicators AS i USING (symbol, "interval")
                  JOIN market_data AS m ON m.id = i.market_data_id AND m."timestamp" = i."timestamp"
                 WHERE i."timestamp" >= w.lo AND i."timestamp" < w.hi AND i."timestamp" >= %s AND i."timestamp" < %s
                   AND m."timestamp" >= %s AND m."timestamp" < %s AND i.vwap IS NULL AND m.volume > 0 GROUP BY 1, 2""",
            (
                list(range(len(days))),
                [window.symbol for window, _ in days],
                [window.interval for window, _ in days],
                [lo for lo, _ in bounds],
                [hi for _, hi in bounds],
                *(min(lo for lo, _ in bounds), max(hi for _, hi in bounds)) * 2,
            ),
            {"n": pl.Int64(), "day": pl.Date(), "rows": pl.Int64()},
        )
        for n, found_day, number in rows.iter_rows():
            found.setdefault(days[n][0], {})[found_day] = number
    return found

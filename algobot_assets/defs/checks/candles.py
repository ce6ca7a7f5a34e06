"""Checks of market_data: candles are consistent, closed and unique per grid point, and every gap is recorded."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from algobot_assets.audit.rules import candles as rules
from algobot_assets.audit.rules.check_run import DAY, CheckRun, slot_sql
from algobot_assets.defs.checks.factory import define_checks
from algobot_assets.schema.frames import UTC
from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store.reader import read_window

CONSISTENT, ONE, CLOSED = "candles_are_consistent", "one_candle_per_open", "candles_had_closed"
#: A candle opens at most this many days before its day.
_REACH = timedelta(days=31)
GAPS, RECORDED = "gaps_are_recorded", "rows_are_as_recorded"


@define_checks(
    "market_data",
    {
        CONSISTENT: "low <= open, close <= high; prices > 0; volumes >= 0; taker volumes within volumes.",
        ONE: "Each point of an interval's grid has at most one candle per market.",
        CLOSED: "Every candle ended before the time through which its day is complete: none was still forming.",
        GAPS: "Every missing candle of a recorded day is recorded in `gaps`, by the calendar of its interval.",
        RECORDED: "Each day has the number of candles that its run recorded.",
    },
    blocking=(CONSISTENT, ONE, CLOSED),
)
def checks(run: CheckRun) -> None:
    """Count each day on the server, and read only days whose counts differ from those of a day without gaps."""
    gaps = _gaps(run)
    for window, stored in _counted(run).items():
        days = run.recorded[window]
        who = f"{window.symbol} {window.interval}"
        for found in run.findings.values():
            found.seen += int(stored["rows"].sum())
        run.findings[RECORDED].add(rules.miscounted("market_data", who, stored, days))
        for month in window.pieces():
            _month(run, month, days, stored, gaps.get((window.symbol, window.interval), gaps[""]))


def _counted(run: CheckRun) -> dict[Window, pl.DataFrame]:
    """Return, per market, day, rows, and the numbers of rows that contradict themselves or lie off the grid."""
    wrong = " AND ".join(f"({condition})" for condition in rules.CONSISTENT.values())
    grids: dict[str, list[Window]] = {}
    for window in run.recorded:
        grids.setdefault(slot_sql(window.interval, window.phase), []).append(window)
    counted: dict[Window, pl.DataFrame] = {}
    for slot, windows in grids.items():
        counted |= run.per_day(
            windows,
            wrong=f"count(*) FILTER (WHERE NOT ({wrong}))",
            off_grid=f'count(*) FILTER (WHERE "timestamp" <> {slot})',
        )
    return counted


def _month(run: CheckRun, window: Window, days: pl.DataFrame, stored: pl.DataFrame, gaps: pl.DataFrame) -> None:
    inside = days.filter(pl.col("day").is_between(window.first, window.end, closed="left"))
    wanted = rules.expected(window, inside)
    counts = wanted.group_by("day").agg(pl.len().cast(pl.Int64).alias("wanted"))
    odd = (
        inside.select("day", "complete_through")
        .join(stored, on="day", how="left")
        .join(counts, on="day", how="left")
        .with_columns(pl.col("rows", "wrong", "off_grid", "wanted").fill_null(0))
        .filter(
            (pl.col("rows") != pl.col("wanted"))
            | (pl.col("wrong") + pl.col("off_grid") > 0)
            # the count of an unfinished day does not show which candles exist
            | (pl.col("complete_through").dt.date() <= pl.col("day"))
        )["day"]
    ).sort()
    if odd.is_empty():
        return
    candles = pl.concat(
        [read_window(run.store, window.of(day, day + DAY), ["timestamp", *rules.NUMBERS]) for day in odd]
    )
    run.findings[CONSISTENT].add(rules.inconsistent(window, candles))
    run.findings[ONE].add(rules.crowded(window, candles))
    run.findings[CLOSED].add(rules.unclosed(window, candles, inside))
    run.findings[GAPS].add(rules.unrecorded(window, wanted.filter(pl.col("day").is_in(odd.implode())), candles, gaps))


def _gaps(run: CheckRun) -> dict[tuple[str, str] | str, pl.DataFrame]:
    """Return the recorded gaps around the run's days by market, and none for all other markets under ""."""
    schema = {"symbol": pl.String(), "interval": pl.String(), "first_open": UTC, "end_open": UTC}
    lo, hi = midnight(run.first - _REACH), midnight(run.end)
    rows = run.rows(
        """SELECT symbol, "interval", first_open, end_open FROM gaps
            WHERE first_open < %s AND end_open > %s ORDER BY first_open""",
        (hi, lo),
        schema,
    )
    keys = ("symbol", "interval")
    parts = rows.partition_by(keys, as_dict=True, include_key=False, maintain_order=True)
    return {"": rows.clear().drop(keys), **{(symbol, interval): part for (symbol, interval), part in parts.items()}}

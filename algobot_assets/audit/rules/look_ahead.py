"""Detect look-ahead: whether a value depends on candles that came after it.

A computation is run over the same rows with the future cut off, and with the future's prices made ten times as
large, at several cut points. Nothing before the cut may change, to the bit. Pure functions; the rows are a bounded
sample of a run's window (see ``checks.sample``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

#: How often a sample is cut.
CUTS = 8
#: What prices and indicators after the cut are multiplied by.
POISON = (10.0, 0.1)
_GOLDEN = 0.6180339887498949

#: Rows (timestamp, inputs) to the computed columns, one row per row.
Compute = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Change:
    """A row that is not what it was: its time, the column, the two values, and for look-ahead the cut."""

    timestamp: datetime
    column: str
    stored: float | None
    computed: float | None
    cut: datetime | None = None


def cut_points(rows: int, number: int = CUTS) -> list[int]:
    """Up to ``number`` different positions within 1 .. rows - 1, spread evenly and off any round grid."""
    if rows < 2:
        return []
    return sorted({1 + int((k * _GOLDEN) % 1.0 * (rows - 1)) for k in range(1, number + 1)})


def first_difference(stored: pl.DataFrame, computed: pl.DataFrame, times: pl.Series) -> Change | None:
    """The first row in which two frames of the same columns differ; None where they are bit-equal."""
    found: Change | None = None
    for name in stored.columns:
        a, b = stored[name], computed[name]
        differs = a.ne_missing(b)
        if differs.any():
            i = int(differs.arg_max() or 0)
            if found is None or times[i] < found.timestamp:
                found = Change(times[i], name, a[i], b[i])
    return found


def look_ahead(compute: Compute, rows: pl.DataFrame, poisonable: Sequence[str]) -> Change | None:
    """The first change that cutting or poisoning the future makes to the past; None where it makes none.

    ``rows``: ascending, Float64 inputs. ``poisonable``: the columns that are multiplied after the cut.
    """
    whole = compute(rows)
    times = rows["timestamp"]
    for cut in cut_points(rows.height):
        after = pl.int_range(pl.len()) >= cut
        variants = [rows.head(cut)]
        variants += [
            rows.with_columns(pl.when(after).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in poisonable)
            for factor in POISON
        ]
        for variant in variants:
            change = first_difference(whole.head(cut), compute(variant).head(cut), times)
            if change is not None:
                return Change(change.timestamp, change.column, change.stored, change.computed, times[cut])
    return None

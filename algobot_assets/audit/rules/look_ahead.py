"""Detect look-ahead: values that depend on later candles.

At several cut points, the computation runs again with the rows after the cut removed, and with their prices multiplied
by POISON. Nothing before the cut may change. Pure functions; the rows are a bounded sample of a run's window (see
``audit.rules.sample``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

#: Number of cuts per sample.
CUTS = 8
#: Factors for prices and indicators after the cut.
POISON = (10.0, 0.1)
_GOLDEN = 0.6180339887498949

#: Maps rows (timestamp, inputs) to the computed columns, row by row.
Compute = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Change:
    """A changed row: its time, the column, both values, and the cut in case of look-ahead."""

    timestamp: datetime
    column: str
    stored: float | None
    computed: float | None
    cut: datetime | None = None


def cut_points(rows: int, number: int = CUTS) -> list[int]:
    """Return up to ``number`` positions within 1 .. rows - 1, spread evenly but not periodically."""
    if rows < 2:
        return []
    return sorted({1 + int((k * _GOLDEN) % 1.0 * (rows - 1)) for k in range(1, number + 1)})


def first_difference(stored: pl.DataFrame, computed: pl.DataFrame, times: pl.Series) -> Change | None:
    """Return the first row in which two frames of the same columns differ; None if they are equal."""
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
    """Return the first past value that changes if the future is cut or poisoned; None if there is none.

    ``rows``: ascending, with Float64 inputs. ``poisonable``: the columns multiplied after the cut.
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

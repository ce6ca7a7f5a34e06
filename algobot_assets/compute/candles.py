"""Candles as computations read them: decimals in, float64 out.

Here: the one conversion from stored decimals to float64, shared by indicators, strategies and ledger.
Not here: reading candles, their days and windows (`schema.intervals`), money (the ledger rounds its own).
"""

from __future__ import annotations

import polars as pl


def as_floats(candles: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The named columns of `candles` as Float64, in the order asked for; other columns are left behind.

    Each value is the float64 nearest to the stored decimal (what Python's `float("0.00000123")` gives), so
    the bits do not depend on how many decimals a column's type has. Columns that are Float64 already pass
    as they are. Units stay: prices in the quote asset, quantities in the base asset.
    """
    return candles.select(pl.col(*columns).cast(pl.Float64)).rechunk()  # one array per column

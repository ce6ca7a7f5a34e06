"""Convert stored candles from decimals to float64, in one place for indicators and strategies."""

from __future__ import annotations

import polars as pl


def as_floats(candles: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Return the named columns of `candles` as Float64, in the order asked for.

    Each value is the float64 nearest to the stored decimal (the result of Python's `float("0.00000123")`), so the bits
    do not depend on the number of decimals in the column's type. Float64 columns are returned as they are. Prices stay
    in the quote asset, quantities in the base asset.
    """
    return candles.select(pl.col(*columns).cast(pl.Float64)).rechunk()  # one array per column

"""Convert between decimal columns and the ledger's float64 exactly, by whole units of 1e-8.

Float64 is never cast to Decimal: Polars computes that cast in float64, and digits beyond the fifteenth come out wrong.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import polars as pl

PRICE = pl.Decimal(20, 8)
QUANTITY = pl.Decimal(28, 8)
WHOLE = 2**53
"""Whole numbers below this are exact in float64: 9.007e7 quote units of 1e-8."""

_UNIT = pl.Series([Decimal("0.00000001")], dtype=pl.Decimal(38, 8))
_HUNDRED_MILLION = pl.Series([10**8], dtype=pl.Int128)


def to_units(values: pl.Series) -> np.ndarray:
    """Return decimals with 8 places, without nulls, as float64 counts of 1e-8. OverflowError if that is not exact."""
    if not isinstance(values.dtype, pl.Decimal) or values.dtype.scale != 8:
        raise ValueError(f"{values.name}: expected decimals with 8 places, not {values.dtype}")
    if values.null_count():
        raise ValueError(f"{values.name}: nulls are not prices")
    whole = values.to_physical()
    least, greatest = bounds(whole)
    if max(greatest, -least) >= WHOLE:
        raise OverflowError(values.name)
    return frozen(whole.cast(pl.Int64, wrap_numerical=True))  # in range: checked above


def bounds(values: pl.Series) -> tuple[float, float]:
    """Return the least and the greatest of numbers, 0 and 0 if there are none."""
    least, greatest = values.min(), values.max()
    if not isinstance(least, int | float) or not isinstance(greatest, int | float):
        return 0, 0
    return least, greatest


def frozen(whole: pl.Series) -> np.ndarray:
    """Return integers below 2**53 as a read-only float64 array, so that the kernel is compiled for one type only."""
    out = whole.cast(pl.Float64).to_numpy()
    out.flags.writeable = False
    return out


def units_of(value: Decimal) -> int:
    """Return `value` in units of 1e-8. ValueError if it has more than 8 decimals."""
    units = value.scaleb(8)
    if units != units.to_integral_value():
        raise ValueError(f"{value} has more than 8 decimals")
    return int(units)


def from_units(name: str, units: np.ndarray | pl.Series, dtype: pl.Decimal = PRICE) -> pl.Series:
    """Return whole units (float64 below 2**53, or an integer series) as a decimal column, exactly."""
    if isinstance(units, np.ndarray):
        units = pl.Series(np.rint(units).astype(np.int64))
    whole = pl.Decimal(38 if units.dtype == pl.Int128 else 20, 0)  # the narrower one takes two thirds of the time
    return (units.cast(whole) * _UNIT).cast(dtype).alias(name)


def steps_to_quantity(name: str, steps: np.ndarray, step: np.ndarray) -> pl.Series:
    """Return `steps` whole steps of `step` units each as a quantity column, exactly, even beyond 64 bits."""
    count, size = (pl.Series(x.astype(np.int64)).cast(pl.Int128) for x in (steps, step))
    return from_units(name, count * size, QUANTITY)


def ratio_column(name: str, values: np.ndarray) -> pl.Series:
    """Return figures rounded to 8 decimals (half to even), null if not finite or beyond DECIMAL(20,8)."""
    good = np.isfinite(values) & (np.abs(values) < 1e12)
    safe = np.where(good, values, 0.0)
    whole = np.trunc(safe).astype(np.int64)
    part = np.rint((safe - whole) * 1e8).astype(np.int64)
    if np.abs(whole).max(initial=0) < 9e10:  # all fit 64 bits, as they nearly always do
        units = pl.Series(whole * 10**8 + part)
    else:
        units = pl.Series(whole).cast(pl.Int128) * _HUNDRED_MILLION + pl.Series(part).cast(pl.Int128)
    column = from_units(name, units)
    return column if good.all() else pl.select(pl.when(pl.Series(good)).then(column)).to_series().alias(name)

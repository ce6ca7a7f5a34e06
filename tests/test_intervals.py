"""The calendar of candles: every candle in exactly one day, windows that join without gap or overlap."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algobot_assets.schema import intervals as iv

DAYS = st.dates(date(2017, 7, 1), date(2027, 12, 31))


@pytest.mark.parametrize("interval", iv.INTERVALS)
@given(first=DAYS, lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5), phase=st.integers(0, 2))
def test_opens_of_consecutive_days_join(interval, first, lengths, phase):
    day, last_hi = first, None
    for length in lengths:
        lo, hi = iv.opens_window(interval, day, day + timedelta(days=length), phase)
        assert last_hi is None or lo == last_hi
        last_hi, day = hi, day + timedelta(days=length)
    assert (iv.opens_window(interval, first, day, phase)[1]) == last_hi


@pytest.mark.parametrize("interval", [i for i in iv.INTERVALS if i not in ("1s", "1m", "3m")])
@given(first=DAYS, length=st.integers(1, 70), phase=st.integers(0, 2))
def test_the_candles_of_a_window_belong_to_its_days(interval, first, length, phase):
    end = first + timedelta(days=length)
    lo, hi = iv.opens_window(interval, first, end, phase)
    opens = iv.expected_opens(interval, lo, hi, phase).to_frame()
    days = opens.select(iv.day_of(interval, phase).alias("day"))["day"]
    assert days.is_between(first, end - timedelta(days=1)).all()
    assert opens.select((pl.col("timestamp") == iv.floor_open(interval, phase)).all()).item()
    before = iv.expected_opens(interval, lo - timedelta(days=40), lo, phase).to_frame()
    assert (before.select(iv.day_of(interval, phase).alias("day"))["day"] < first).all()


def test_candles_of_long_intervals_belong_to_known_days():
    def day(interval, *opened, phase=None):
        frame = pl.DataFrame(
            {"timestamp": [datetime(*opened, tzinfo=UTC)]}, schema={"timestamp": pl.Datetime("us", "UTC")}
        )
        return frame.select(iv.day_of(interval, phase)).item()

    assert day("1h", 2023, 3, 24, 23) == date(2023, 3, 24)
    assert day("1d", 2023, 3, 24) == date(2023, 3, 24)
    assert day("1w", 2017, 8, 14) == date(2017, 8, 20)  # Monday to Sunday
    assert day("1M", 2024, 2, 1) == date(2024, 2, 29)
    btc_phase = iv.phase_of(datetime(2017, 8, 17, 4, tzinfo=UTC))
    assert day("3d", 2026, 4, 26, phase=btc_phase) == date(2026, 4, 28)
    # a misaligned open is floored to its grid first
    assert day("1w", 2018, 2, 13, 9, 30) == date(2018, 2, 18)


def test_a_week_window_reaches_back_into_the_month_before():
    lo, hi = iv.opens_window("1w", date(2023, 2, 5), date(2023, 2, 6))
    assert (lo, hi) == (datetime(2023, 1, 30, tzinfo=UTC), datetime(2023, 2, 6, tzinfo=UTC))
    lo, hi = iv.opens_window("1w", date(2023, 2, 6), date(2023, 2, 12))
    assert lo == hi


def test_3d_needs_its_phase():
    with pytest.raises(ValueError, match="phase"):
        iv.opens_window("3d", date(2023, 1, 1), date(2023, 1, 2))


def test_candle_end_is_the_next_open_on_the_grid():
    assert iv.candle_end("1M", datetime(2024, 2, 1, tzinfo=UTC)) == datetime(2024, 3, 1, tzinfo=UTC)
    assert iv.candle_end("1m", datetime(2024, 2, 29, 23, 59, tzinfo=UTC)) == datetime(2024, 3, 1, tzinfo=UTC)

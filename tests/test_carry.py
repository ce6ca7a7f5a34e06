"""Primitives over candles: written forms to the bit, any chunking, states, refusals."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from real_candles import days_of, every_day, interval_of, klines, same_bits

from algobot_assets.compute.candles import as_floats
from algobot_assets.compute.carry import MAX_WINDOW, Chunk, Days
from algobot_assets.errors import SettingsError, WindowError

REAL = [
    "spot/BTCUSDT-2h-2017_2020",  # begins mid-day, 15 gaps, one over a day long
    "spot-ohlcv6/SHIBUSDT-1h-2021-05_2023-12",  # prices around 1e-5, gaps
    "spot-ohlcv6/NBTUSDT-1h",  # a fifth of the candles without volume
    "spot/BTCUSDT-1w-2017_2026-04",
    "spot/BTCUSDT-3d-2017_2026-04",
    "spot/BTCUSDT-1mo-2017_2026-03",
]


def series(*values: float | None) -> pl.Series:
    return pl.Series("x", values, dtype=pl.Float64)


def one_day(*values: float | None) -> tuple[Chunk, pl.Series]:
    """A chunk of one day with as many candles as values."""
    day = date(2024, 1, 1)
    return Chunk(Days([day], pl.Series([day] * len(values), dtype=pl.Date))), series(*values)


# --- the written forms ----------------------------------------------------------------------------


def loop_average(values: list[float], n: int, alpha: float) -> list[float | None]:
    """The definition: a sum in sequence over the first n, divided by n, then y + alpha (x - y)."""
    line: list[float | None] = []
    total, average = 0.0, None
    for i, x in enumerate(values):
        if average is not None:
            average = average + alpha * (x - average)
        else:
            total = total + x
            if i + 1 == n:
                average = total / n
        line.append(average)
    return line


@pytest.mark.parametrize("name", REAL[:3])
@pytest.mark.parametrize("n", [1, 2, 14, 200])
def test_averages_are_their_written_form_to_the_bit(name: str, n: int) -> None:
    candles = klines(name)[:3000]
    close = as_floats(candles, "close").to_series()
    for primitive, alpha in (("ema", 2.0 / (n + 1)), ("wilder", 1.0 / n)):
        line = getattr(Chunk(days_of(candles, interval_of(name))), primitive)(close, n)
        assert same_bits(line, pl.Series(loop_average(close.to_list(), n, alpha), dtype=pl.Float64))


@pytest.mark.parametrize("n", [9, 14, 200])
def test_averages_have_the_bits_of_polars_ewm_mean(n: int) -> None:
    """Polars computes y + alpha (x - y) too; a Polars that changes its form is noticed here."""
    candles = klines(REAL[0])[:5000]
    close = as_floats(candles, "close").to_series()
    seed = sum(close[:n].to_list()) / n
    for primitive, alpha in (("ema", 2.0 / (n + 1)), ("wilder", 1.0 / n)):
        line = getattr(Chunk(days_of(candles, "2h")), primitive)(close, n)
        polars = pl.concat([series(seed), close[n:]]).ewm_mean(alpha=alpha, adjust=False)
        assert same_bits(line[n - 1 :], polars)


GOLDEN_EMA = [
    "0x1.a7ab444444444p+14",
    "0x1.a7a3da740da74p+14",
    "0x1.a7daed3a06d3ap+14",
    "0x1.a81490369d036p+14",
    "0x1.a7c07b4e81b4ep+14",
]
GOLDEN_WILDER = [
    "0x1.a7ab444444444p+14",
    "0x1.a7a6530eca864p+14",
    "0x1.a7ca375f31aedp+14",
    "0x1.a7f635fb32304p+14",
    "0x1.a7c8461eee425p+14",
]


def test_averages_have_golden_bits() -> None:
    """Pinned: another compiler, library or written form that changes one bit fails here."""
    prices = [27_123.45, 27_130.01, 27_090.99, 27_111.11, 27_140.5, 27_155.55, 27_099.1]
    chunk, x = one_day(*prices)
    ema, wilder = chunk.ema(x, 3).to_list(), chunk.wilder(x, 3).to_list()
    assert [value.hex() for value in ema[2:]] == GOLDEN_EMA
    assert [value.hex() for value in wilder[2:]] == GOLDEN_WILDER
    assert ema[:2] == wilder[:2] == [None, None]


# --- single primitives ----------------------------------------------------------------------------


def test_averages_pass_over_nulls_and_start_at_the_nth_value() -> None:
    chunk, x = one_day(None, None, 1.0, None, 3.0, 5.0, None, 7.0)
    assert chunk.ema(x, 3).to_list() == [None, None, None, None, None, 3.0, None, 5.0]
    assert chunk.states()[0, 1:].tolist() == [3.0, 5.0]


def test_values_that_are_not_finite_count_as_missing() -> None:
    chunk, x = one_day(1.0, float("nan"), 3.0, float("inf"), 5.0)
    assert chunk.ema(x, 2).to_list() == [None, None, 2.0, None, 4.0]
    assert chunk.previous(x).to_list() == [None, 1.0, None, 3.0, None]
    assert chunk.session_sum(x).to_list() == [1.0, None, 4.0, None, 9.0]
    assert chunk.rolling_sum(x, 2).to_list() == [None] * 5


def test_large_finite_values_stay_although_their_sum_is_infinite() -> None:
    chunk, x = one_day(1.5e308, 1.5e308, 1.0)
    assert chunk.previous(x).to_list() == [None, 1.5e308, 1.5e308]


def test_rolling_sum_adds_from_the_oldest_on_and_needs_all_n() -> None:
    values = [0.1, 0.2, 0.3, None, 0.7, 1e16, 1.0, -1e16]
    chunk, x = one_day(*values)
    expected = [None, None, (0.1 + 0.2) + 0.3, None, None, None, (0.7 + 1e16) + 1.0, (1e16 + 1.0) + -1e16]
    assert same_bits(chunk.rolling_sum(x, 3), series(*expected))
    assert chunk.rolling_sum(x, 1).to_list() == values
    assert chunk.states()[0, 1:].tolist() == [1.0, -1e16]


def test_session_sum_restarts_with_each_day() -> None:
    days = every_day(date(2024, 1, 1), date(2024, 1, 4))
    chunk = Chunk(Days(days, pl.Series([days[0], days[0], days[2], days[3], days[3]])))
    assert chunk.session_sum(series(1.0, 2.0, 5.0, None, 4.0)).to_list() == [1.0, 3.0, 5.0, None, 4.0]
    assert chunk.states().shape == (4, 1)


@pytest.mark.parametrize(
    ("a", "b", "above", "below"),
    [
        ([1.0, 3.0], [2.0, 2.0], True, False),
        ([3.0, 1.0], [2.0, 2.0], False, True),
        ([2.0, 3.0], [2.0, 2.0], True, False),  # equal before counts
        ([2.0, 1.0], [2.0, 2.0], False, True),
        ([1.0, 2.0], [2.0, 2.0], False, False),  # equal now does not
        ([3.0, 2.0], [2.0, 2.0], False, False),
        ([3.0, 4.0], [2.0, 2.0], False, False),
        ([None, 3.0], [2.0, 2.0], False, False),
        ([1.0, None], [2.0, 2.0], False, False),
        ([1.0, 3.0], [None, 2.0], False, False),
        ([1.0, 3.0], [2.0, None], False, False),
        ([1.0, 3.0], [2.0, float("nan")], False, False),
    ],
)
def test_crossings_are_found_where_two_series_cross(a: list, b: list, above: bool, below: bool) -> None:
    chunk, a_series = one_day(*a)
    b_series = series(*b)
    assert chunk.crosses_above(a_series, b_series).to_list() == [False, above]
    assert chunk.crosses_below(a_series, b_series).to_list() == [False, below]
    assert chunk.states().shape == (1, 3)  # the last a and the last b, once


def test_crossings_of_a_number_are_found() -> None:
    chunk, x = one_day(29.0, 30.0, 31.0, 30.0, 29.0, None, 31.0)
    assert chunk.crosses_above(x, 30.0).arg_true().to_list() == [2]
    assert chunk.crosses_below(x, 30).arg_true().to_list() == [4]


@njit
def _drawdown(carried, ends, states, line, x):
    peak, i = carried[0], 0
    for day in range(len(ends)):
        while i < ends[day]:
            peak = max(peak, x[i])
            line[i] = x[i] / peak - 1.0
            i += 1
        states[day, 0] = peak


def all_primitives(chunk: Chunk, candles: pl.DataFrame) -> dict[str, pl.Series]:
    """Every primitive, nested ones and one with nulls in the middle among them."""
    close, volume = as_floats(candles, "close", "volume")
    macd = chunk.ema(close, 12) - chunk.ema(close, 26)
    traded = close.zip_with(volume > 0.0, pl.repeat(None, len(close), dtype=pl.Float64, eager=True))
    signal = chunk.ema(macd, 9)
    before = chunk.previous(close)
    return {
        "macd": macd,
        "signal": signal,
        "previous": before,
        "wilder": chunk.wilder((close - before).abs(), 14),
        "with nulls": chunk.ema(traded, 5),
        "of a ratio": chunk.wilder(close / volume, 3),
        "rolling": chunk.rolling_sum(close * volume, 20),
        "rolling with nulls": chunk.rolling_sum(traded, 3),
        "session": chunk.session_sum(volume),
        "session with nulls": chunk.session_sum(traded),
        "above": chunk.crosses_above(macd, signal),
        "below": chunk.crosses_below(macd, signal),
        "level": chunk.crosses_above(macd, 0.0),
        "own": chunk.scan("drawdown", _drawdown, (0.0,), [close]),
    }


def in_chunks(days: Days, owned: pl.Series, candles: pl.DataFrame, cuts: list[int]):
    """Outputs and states of all primitives, the chunks ending before the day numbers `cuts`."""
    outputs, states, state = [], [], None
    for first, end in zip([0, *cuts], [*cuts, len(days.days)], strict=True):
        mine = days.days[first:end]
        rows = (owned >= mine[0]) & (owned <= mine[-1])
        chunk = Chunk(Days(mine, owned.filter(rows)), state)
        outputs.append(all_primitives(chunk, candles.filter(rows)))
        states.append(chunk.states())
        state = states[-1][-1]
    joined = {key: pl.concat([output[key] for output in outputs]) for key in outputs[0]}
    return joined, np.concatenate(states)


def assert_same(left, right) -> None:
    for key, line in left[0].items():
        assert same_bits(line, right[0][key]), key
    assert same_bits(left[1], right[1])


@pytest.mark.parametrize("name", REAL)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_bits(name: str, data: st.DataObject) -> None:
    candles = klines(name)
    length = {"1h": 70 * 24, "2h": 190 * 12}.get(interval_of(name), candles.height)
    begin = data.draw(st.integers(0, candles.height - length), label="first candle")
    candles = candles[begin : begin + length]
    days, owned = spread(candles, interval_of(name))
    cuts = data.draw(st.lists(st.integers(1, len(days.days) - 1), unique=True, max_size=12).map(sorted))
    assert_same(in_chunks(days, owned, candles, []), in_chunks(days, owned, candles, cuts))


@pytest.mark.parametrize("name", REAL[:3])
def test_day_by_day_gives_the_same_bits(name: str) -> None:
    candles = klines(name)[: 24 * 60]
    days, owned = spread(candles, interval_of(name))
    day_by_day = list(range(1, len(days.days)))
    assert_same(in_chunks(days, owned, candles, []), in_chunks(days, owned, candles, day_by_day))


def spread(candles: pl.DataFrame, interval: str) -> tuple[Days, pl.Series]:
    """Days with a few empty ones before and after, and the day of each candle."""
    exact = days_of(candles, interval)
    first, last = exact.days[0], exact.days[-1]
    days = every_day(date.fromordinal(first.toordinal() - 3), date.fromordinal(last.toordinal() + 3))
    wide = days_of(candles, interval, days[0], days[-1])
    counts = np.diff(wide.ends, prepend=0)
    return wide, pl.Series(np.repeat(np.array(days, dtype="datetime64[D]"), counts)).cast(pl.Date)


# --- states ---------------------------------------------------------------------------------------


def test_a_day_without_candles_repeats_the_state() -> None:
    days = every_day(date(2024, 1, 1), date(2024, 1, 6))
    chunk = Chunk(Days(days, pl.Series([days[1], days[1], days[4]])))
    chunk.ema(series(2.0, 4.0, 6.0), 2)
    states = chunk.states()
    assert states[:, 1:].tolist() == [[0, 0], [2, 3.0], [2, 3.0], [2, 3.0], [2, 5.0], [2, 5.0]]
    assert len(set(states[:, 0])) == 1


def test_the_state_before_the_first_candle_is_none_at_all() -> None:
    """A state of days without candles and no state start the same computation."""
    days = every_day(date(2024, 1, 1), date(2024, 1, 2))
    empty = Chunk(Days(days[:1], pl.Series([], dtype=pl.Date)))
    nothing = series()
    empty.wilder(nothing, 3), empty.previous(nothing), empty.rolling_sum(nothing, 4)
    x = series(1.0, 2.0, 4.0, 8.0)
    lines = []
    for state in (None, empty.states()[-1]):
        chunk = Chunk(Days(days[1:], pl.Series([days[1]] * 4)), state)
        lines.append([chunk.wilder(x, 3), chunk.previous(x), chunk.rolling_sum(x, 4)])
        chunk.states()
    for fresh, carried in zip(*lines, strict=True):
        assert same_bits(fresh, carried)


def test_a_foreign_state_is_refused() -> None:
    days = every_day(date(2024, 1, 1), date(2024, 1, 2))
    owned, x = pl.Series([days[1]] * 2), series(1.0, 2.0)

    def run(state: np.ndarray | None, n: int, *, with_previous: bool = True) -> np.ndarray:
        chunk = Chunk(Days(days[1:], owned), state)
        chunk.ema(x, n)
        if with_previous:
            chunk.previous(x)
        return chunk.states()[-1]

    state = run(None, 9)
    run(state, 9)
    with pytest.raises(WindowError, match=r"2024-01-02 .* Recompute the market from its first day"):
        run(state, 21)  # as long, but of another window
    with pytest.raises(WindowError):
        run(state, 9, with_previous=False)
    with pytest.raises(WindowError):
        run(state[:-1], 9)
    with pytest.raises(WindowError):
        run(np.empty(0), 9)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, -1, MAX_WINDOW + 1, 9.0, True, "9", None])
def test_a_window_is_a_whole_number_of_candles(n: object) -> None:
    for primitive in ("ema", "wilder", "rolling_sum"):
        chunk, x = one_day(1.0, 2.0)
        with pytest.raises(SettingsError, match=f"from 1 to {MAX_WINDOW}"):
            getattr(chunk, primitive)(x, n)


def test_series_of_another_length_or_type_are_refused() -> None:
    chunk, _ = one_day(1.0, 2.0)
    with pytest.raises(ValueError, match="one Float64 per candle"):
        chunk.previous(series(1.0))
    with pytest.raises(ValueError, match="one Float64 per candle"):
        chunk.previous(pl.Series([1, 2]))


def test_days_must_ascend_and_hold_every_candle() -> None:
    days = every_day(date(2024, 1, 1), date(2024, 1, 3))
    for bad_days, owned in (
        (days[::-1], [days[0]]),
        ([days[0], days[0]], [days[0]]),
        ([], []),
        (days, [days[1], days[0]]),
        (days, [days[0], None]),
        (days[:1], [days[1]]),
        ([days[0], days[2]], [days[1]]),
    ):
        with pytest.raises(ValueError):
            Days(bad_days, pl.Series(owned, dtype=pl.Date))
    with pytest.raises(ValueError):
        Days(days, pl.Series([1, 2, 3]))

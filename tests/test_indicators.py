"""Stored indicators: TA-Lib and plain loops as oracles, any chunking, no look-ahead, settings."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from real_candles import days_of, every_day, interval_of, klines, same_bits

from algobot_assets.compute.candles import as_floats
from algobot_assets.compute.carry import Days
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.errors import SettingsError, WindowError
from algobot_assets.schema.intervals import day_of

FILES = [
    "spot/BTCUSDT-1m-2023",
    "spot/ARBUSDT-1m-2023-03-23_2023-05-31",
    "futures-um/1000PEPEUSDT-5m-2025H1",
    "spot/BTCUSDT-2h-2017_2020",
    "spot/DOGEUSDT-1h-2022_2026-04",
    "spot/BNBUSDT-4h-2017_2026-04",
    "spot/ETHUSDT-1d-all_2026-04",
    "spot/BTCUSDT-3d-2017_2026-04",
    "spot/BTCUSDT-1w-2017_2026-04",
    "spot/BTCUSDT-1mo-2017_2026-03",
    "spot-ohlcv6/SHIBUSDT-1h-2021-05_2023-12",
    "spot-ohlcv6/BTTCUSDT-1h-2022-01_2023-12",
    "spot-ohlcv6/NBTUSDT-1h",
]
LINES = ("ema", "rsi", "atr", "vwap")


def computed(candles: pl.DataFrame, interval: str, windows: IndicatorWindows | None = None) -> pl.DataFrame:
    frame, _ = compute_indicators(candles, windows or IndicatorWindows(), interval, days_of(candles, interval))
    return frame


def synthetic(*bars: tuple[object, ...]) -> pl.DataFrame:
    """Hourly candles from 2024-01-01 on, given as (high, low, close, volume)."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [[Decimal(str(value)) for value in bar] for bar in bars]
    return pl.DataFrame(
        {
            "timestamp": [start + timedelta(hours=i) for i in range(len(rows))],
            **{name: [row[i] for row in rows] for i, name in enumerate(("high", "low", "close", "volume"))},
        },
        schema={
            "timestamp": pl.Datetime("us", "UTC"),
            "high": pl.Decimal(20, 8),
            "low": pl.Decimal(20, 8),
            "close": pl.Decimal(20, 8),
            "volume": pl.Decimal(28, 8),
        },
    )


# --- oracles --------------------------------------------------------------------------------------


def assert_equals_talib(candles: pl.DataFrame, interval: str, n: int) -> None:
    frame = computed(candles, interval, IndicatorWindows(ema=n, rsi=n, atr=n))
    high, low, close = (column.to_numpy() for column in as_floats(candles, "high", "low", "close"))
    # A power of two changes no bit of an RSI, but lifts averages over TA-Lib's 1e-14, below which it says 0.
    lifted = close * 2.0**300
    oracles = {
        "ema": talib.EMA(close, n),
        "rsi": talib.RSI(lifted, n),
        "atr": talib.ATR(high, low, close, n),
    }
    for name, oracle in oracles.items():
        mine = frame[name].to_numpy()
        assert (np.isnan(mine) == np.isnan(oracle)).all(), f"{name} begins elsewhere"
        if name == "rsi":
            unmoved = (mine == 50.0) & (oracle == 0.0)
            oracle = np.where(unmoved, 50.0, oracle)
        np.testing.assert_allclose(mine, oracle, rtol=1e-9, atol=0.0, err_msg=name)


@pytest.mark.parametrize("n", [2, 14, 50, 200])
@pytest.mark.parametrize("name", FILES)
def test_ema_rsi_atr_equal_talib_over_whole_series(name: str, n: int) -> None:
    assert_equals_talib(klines(name), interval_of(name), n)


@pytest.mark.parametrize("n", [2, 14])
@pytest.mark.parametrize("price", ["0.00000003", "0.00000055", "1", "1000000000"])
def test_extreme_prices_equal_talib(price: str, n: int) -> None:
    step = Decimal("0.00000001") if Decimal(price) < 1 else Decimal(price) / 1000
    closes = [Decimal(price) + step * (i * 7 % 5 - 2) for i in range(60)]
    candles = synthetic(*((close + step, close - step, close, i) for i, close in enumerate(closes)))
    assert_equals_talib(candles, "1h", n)


def loop_session_vwap(candles: pl.DataFrame) -> list[float | None]:
    line: list[float | None] = []
    day = None
    columns = as_floats(candles, "high", "low", "close", "volume").iter_rows()
    for opened, (high, low, close, volume) in zip(candles["timestamp"], columns, strict=True):
        if opened.date() != day:
            day, paid, traded = opened.date(), 0.0, 0.0
        paid += (high + low + close) / 3.0 * volume
        traded += volume
        line.append(paid / traded if traded else None)
    return line


def loop_rolling_vwap(candles: pl.DataFrame, n: int) -> list[float | None]:
    line: list[float | None] = []
    last: list[tuple[float, float]] = []
    for high, low, close, volume in as_floats(candles, "high", "low", "close", "volume").iter_rows():
        last = [*last, ((high + low + close) / 3.0 * volume, volume)][-n:]
        paid, traded = last[0]
        for more_paid, more_traded in last[1:]:
            paid, traded = paid + more_paid, traded + more_traded
        line.append(paid / traded if len(last) == n and traded else None)
    return line


@pytest.mark.parametrize("name", FILES)
def test_vwap_equals_a_plain_loop_to_the_bit(name: str) -> None:
    candles, interval = klines(name)[:9000], interval_of(name)
    windows = IndicatorWindows(vwap_window=5)
    vwap = computed(candles, interval, windows)["vwap"]
    session = interval.endswith(("m", "h"))
    expected = loop_session_vwap(candles) if session else loop_rolling_vwap(candles, 5)
    assert same_bits(vwap, pl.Series(expected, dtype=pl.Float64))
    mode = "rolling" if session else "session"
    other = computed(candles, interval, IndicatorWindows(vwap_mode=mode, vwap_window=30))["vwap"]
    expected = loop_rolling_vwap(candles, 30) if session else loop_session_vwap(candles)
    if session or interval == "1d":
        assert same_bits(other, pl.Series(expected, dtype=pl.Float64))


# --- edges ----------------------------------------------------------------------------------------


def test_indicators_of_flat_prices_are_defined() -> None:
    frame = computed(synthetic(*[(3, 3, 3, 1)] * 20), "1h")
    assert frame["ema"].to_list() == [None] * 13 + [3.0] * 7
    assert frame["rsi"].to_list() == [None] * 14 + [50.0] * 6
    assert frame["atr"].to_list() == [None] * 14 + [0.0] * 6
    assert frame["vwap"].to_list() == [3.0] * 20


def test_rsi_of_only_rises_and_only_falls_is_100_and_0() -> None:
    rising = computed(synthetic(*[(i, i, i, 1) for i in range(1, 30)]), "1h")["rsi"]
    falling = computed(synthetic(*[(i, i, i, 1) for i in range(30, 1, -1)]), "1h")["rsi"]
    assert set(rising[14:]) == {100.0}
    assert set(falling[14:]) == {0.0}


def test_rsi_stays_a_ratio_when_both_averages_fade_without_being_zero() -> None:
    """After 600 flat candles both averages are below 1e-15 of their size; that is no 50."""
    rsi = computed(synthetic((2, 2, 2, 1), *[(3, 3, 3, 1)] * 614), "1h")["rsi"]
    assert set(rsi[14:]) == {100.0}


@pytest.mark.parametrize("height", [0, 1, 13, 14, 15])
def test_indicators_are_null_with_fewer_candles_than_their_windows(height: int) -> None:
    candles = synthetic(*[(i + 2, i, i + 1, 1) for i in range(height)])
    day = date(2024, 1, 1)
    days = Days([day], candles["timestamp"].dt.date())
    frame, states = compute_indicators(candles, IndicatorWindows(), "1h", days)
    first = {"ema": 13, "rsi": 14, "atr": 14, "vwap": 0}
    for name, index in first.items():
        assert frame[name].is_not_null().to_list() == [i >= index for i in range(height)]
    assert states.shape == (1, 10)


def test_session_vwap_is_null_until_something_is_traded_that_day() -> None:
    bars = [(9, 9, 9, 5)] * 23 + [(4, 1, 1, 2)] + [(7, 7, 7, 0)] * 2 + [(3, 1, 2, 4)] + [(8, 8, 8, 0)]
    vwap = computed(synthetic(*bars), "1h")["vwap"].to_list()
    assert vwap[22] == 9.0
    assert vwap[24:] == [None, None, 2.0, 2.0]


def test_rolling_vwap_is_null_where_its_window_traded_nothing() -> None:
    bars = [(4, 4, 4, 2), (6, 6, 6, 0), (7, 7, 7, 0), (5, 5, 5, 1)]
    windows = IndicatorWindows(vwap_mode="rolling", vwap_window=2)
    assert computed(synthetic(*bars), "1h", windows)["vwap"].to_list() == [None, 4.0, None, 5.0]


def test_the_frame_has_its_columns_and_types_from_decimals_and_from_floats() -> None:
    candles = klines("spot/BTCUSDT-4h-2017_2026-04")[:200]
    frame = computed(candles, "4h")
    assert dict(frame.schema) == {"timestamp": pl.Datetime("us", "UTC"), **dict.fromkeys(LINES, pl.Float64)}
    assert frame["timestamp"].equals(candles["timestamp"])
    floats = candles.with_columns(pl.col("high", "low", "close", "volume").cast(pl.Float64))
    for name in LINES:
        assert same_bits(frame[name], computed(floats, "4h")[name])
        assert not frame[name].is_nan().any()


def test_as_floats_gives_the_float_nearest_to_the_decimal() -> None:
    texts = ["0.00000001", "0.00000123", "28079.99", "999999999999.99999999", "90071992.54740993", "0"]
    wide = ["32593397574192.00000001", "12345678901234567890.12345678"]
    prices = pl.DataFrame({"x": pl.Series(texts).cast(pl.Decimal(20, 8))})
    volumes = pl.DataFrame({"x": pl.Series(texts + wide).cast(pl.Decimal(28, 8))})
    assert as_floats(prices, "x")["x"].to_list() == [float(text) for text in texts]
    assert as_floats(volumes, "x")["x"].to_list() == [float(text) for text in texts + wide]


def test_candles_out_of_order_are_refused() -> None:
    candles = synthetic((1, 1, 1, 1), (2, 2, 2, 1))
    with pytest.raises(ValueError, match="ascend"):
        compute_indicators(candles.reverse(), IndicatorWindows(), "1h", days_of(candles, "1h"))


# --- chunks ---------------------------------------------------------------------------------------


def in_chunks(candles: pl.DataFrame, interval: str, days: list[date], cuts: list[int], windows: IndicatorWindows):
    """Indicators and states, the chunks ending before the day numbers `cuts`."""
    phase = (candles["timestamp"][0].date() - date(1970, 1, 1)).days % 3
    owned = candles.select(day_of(interval, phase)).to_series()
    frames, states, state = [], [], None
    for first, end in zip([0, *cuts], [*cuts, len(days)], strict=True):
        rows = owned.is_between(days[first], days[end - 1])
        part = Days(days[first:end], owned.filter(rows))
        frame, ends = compute_indicators(candles.filter(rows), windows, interval, part, state)
        state = ends[-1]
        frames.append(frame)
        states.append(ends)
    return pl.concat(frames), np.concatenate(states)


def assert_same(left, right) -> None:
    for name in LINES:
        assert same_bits(left[0][name], right[0][name]), name
    assert left[0]["timestamp"].equals(right[0]["timestamp"])
    assert same_bits(left[1], right[1])


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("spot/ARBUSDT-1m-2023-03-23_2023-05-31", 20_000),
        ("spot/BTCUSDT-2h-2017_2020", 2_000),
        ("spot-ohlcv6/BTTCUSDT-1h-2022-01_2023-12", 2_000),
        ("spot-ohlcv6/NBTUSDT-1h", 2_000),
        ("spot/ETHUSDT-1d-all_2026-04", 300),
        ("spot/BTCUSDT-3d-2017_2026-04", 300),
        ("spot/BTCUSDT-1w-2017_2026-04", 150),
        ("spot/BTCUSDT-1mo-2017_2026-03", 60),
    ],
)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_bits(name: str, length: int, data: st.DataObject) -> None:
    interval = interval_of(name)
    candles = klines(name)
    # The listing's first candles, or a stretch that begins in the middle of a day.
    begin = data.draw(st.one_of(st.just(0), st.integers(0, candles.height - length)), label="first candle")
    candles = candles[begin : begin + length]
    last = candles["timestamp"][-1].date() + timedelta(days=35)  # empty days after the last candle
    days = every_day(candles["timestamp"][0].date() - timedelta(days=2), last)
    cuts = data.draw(st.lists(st.integers(1, len(days) - 1), unique=True, max_size=15).map(sorted), label="cuts")
    mode = data.draw(st.sampled_from(["auto", "session", "rolling"]))
    windows = IndicatorWindows(ema=9, rsi=14, atr=5, vwap_mode=mode, vwap_window=7)
    whole = in_chunks(candles, interval, days, [], windows)
    assert_same(whole, in_chunks(candles, interval, days, cuts, windows))


@pytest.mark.parametrize(
    "name", ["spot/BTCUSDT-2h-2017_2020", "spot-ohlcv6/NBTUSDT-1h", "spot/BTCUSDT-3d-2017_2026-04"]
)
def test_day_by_day_gives_the_same_bits(name: str) -> None:
    candles, interval = klines(name)[:500], interval_of(name)
    days = every_day(candles["timestamp"][0].date(), candles["timestamp"][-1].date() + timedelta(days=3))
    windows = IndicatorWindows()
    whole = in_chunks(candles, interval, days, [], windows)
    assert_same(whole, in_chunks(candles, interval, days, list(range(1, len(days))), windows))


def test_an_unfinished_day_is_recomputed_from_the_day_before() -> None:
    candles = klines("spot/BTCUSDT-1m-2023")[: 1440 * 3]
    windows, days = IndicatorWindows(), every_day(date(2023, 1, 1), date(2023, 1, 3))
    whole = in_chunks(candles, "1m", days, [], windows)
    today = candles[1440 * 2 : 1440 * 2 + 700]
    state = whole[1][1]
    frame, _ = compute_indicators(today, windows, "1m", Days(days[2:], today["timestamp"].dt.date()), state)
    for name in LINES:
        assert same_bits(frame[name], whole[0][name][1440 * 2 : 1440 * 2 + 700])


def test_a_state_of_other_windows_is_refused() -> None:
    candles = klines("spot/BTCUSDT-4h-2017_2026-04")[:120]
    days = days_of(candles, "4h")
    _, states = compute_indicators(candles, IndicatorWindows(), "4h", days)
    for other in (IndicatorWindows(ema=15), IndicatorWindows(rsi=15), IndicatorWindows(vwap_mode="rolling")):
        with pytest.raises(WindowError, match="other code, windows or parameters"):
            compute_indicators(candles, other, "4h", days, states[-1])


# --- no look-ahead --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spot/BTCUSDT-2h-2017_2020", "spot/ETHUSDT-1d-all_2026-04"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_future_changes_nothing_before_it(name: str, data: st.DataObject) -> None:
    candles, interval = klines(name)[:1500], interval_of(name)
    whole = computed(candles, interval)
    cut = data.draw(st.integers(1, candles.height - 1))
    truncated = computed(candles[:cut], interval)
    future = pl.int_range(pl.len()) >= cut
    tenfold = pl.when(future).then(pl.col("high", "low", "close", "volume") * 10)
    poisoned = computed(candles.with_columns(tenfold.otherwise(pl.col("high", "low", "close", "volume"))), interval)
    for line in LINES:
        assert same_bits(truncated[line], whole[line][:cut])
        assert same_bits(poisoned[line][:cut], whole[line][:cut])
    assert not poisoned["ema"][cut:].equals(whole["ema"][cut:])


# --- windows --------------------------------------------------------------------------------------


def test_windows_are_read_from_configurations() -> None:
    rows = {
        "indicators.ema_window": "20",
        "indicators.vwap_mode": "rolling",
        "indicators.vwap_window": "30",
        "ledger.commission_rate": "0.001",
    }
    assert IndicatorWindows.from_configurations(rows) == IndicatorWindows(ema=20, vwap_mode="rolling", vwap_window=30)
    assert IndicatorWindows.from_configurations({}) == IndicatorWindows()
    assert IndicatorWindows.from_configurations({"indicators.vwap_mode": "auto"}) == IndicatorWindows()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("indicators.ema_window", "1"),
        ("indicators.rsi_window", "10001"),
        ("indicators.atr_window", "14.5"),
        ("indicators.vwap_window", "many"),
        ("indicators.vwap_mode", "weekly"),
    ],
)
def test_a_bad_configuration_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is '?{value}'?; it must be"):
        IndicatorWindows.from_configurations({name: value})


def test_an_unknown_configuration_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no configuration indicators\.ema\. .*indicators\.ema_window"):
        IndicatorWindows.from_configurations({"indicators.ema": "9"})


@pytest.mark.parametrize("bad", [{"ema": 9.0}, {"rsi": True}, {"atr": "14"}, {"vwap_mode": None}])
def test_windows_of_a_wrong_type_are_refused(bad: dict) -> None:
    with pytest.raises(SettingsError, match=r"indicators\..* must be"):
        IndicatorWindows(**bad)


def test_vwap_is_of_the_session_below_a_day_and_rolling_from_a_day_on() -> None:
    windows = IndicatorWindows()
    assert {windows.vwap_mode_for(interval) for interval in ("1s", "1m", "1h", "12h")} == {"session"}
    assert {windows.vwap_mode_for(interval) for interval in ("1d", "3d", "1w", "1M")} == {"rolling"}
    assert IndicatorWindows(vwap_mode="session").vwap_mode_for("1d") == "session"


def test_parameters_hold_what_decides_the_values() -> None:
    assert IndicatorWindows().as_parameters("1h") == {"ema": 14, "rsi": 14, "atr": 14, "vwap_mode": "session"}
    assert IndicatorWindows(vwap_window=9).as_parameters("1h") == IndicatorWindows().as_parameters("1h")
    assert IndicatorWindows().as_parameters("1d")["vwap_window"] == 14

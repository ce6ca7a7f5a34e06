"""Strategies: rules against plain loops and hand-made tables, any chunking, the registry, parameters."""

from __future__ import annotations

import doctest
import importlib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_candles import days_of, interval_of, klines, same_bits

from algobot_assets.compute import strategies
from algobot_assets.compute.carry import Days
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import get_strategy, load_strategy_file, strategy_types
from algobot_assets.compute.strategy import Parameter, strategy
from algobot_assets.errors import SettingsError, WindowError

FILES = [
    "spot/BTCUSDT-2h-2017_2020",
    "spot/DOGEUSDT-1h-2022_2026-04",
    "spot-ohlcv6/SHIBUSDT-1h-2021-05_2023-12",
    "spot-ohlcv6/NBTUSDT-1h",
    "spot/ETHUSDT-1d-all_2026-04",
    "spot/BTCUSDT-1w-2017_2026-04",
]


def signals(kind: str, candles: pl.DataFrame, interval: str, parameters: dict | None = None) -> list[int]:
    days = days_of(candles, interval)
    indicators, _ = compute_indicators(candles, IndicatorWindows(), interval, days)
    frame, _ = compute_signals(kind, candles, indicators, parameters, days)
    assert dict(frame.schema) == {"timestamp": pl.Datetime("us", "UTC"), "signal": pl.Int32}
    assert frame["timestamp"].equals(candles["timestamp"])
    return frame["signal"].to_list()


# --- plain loops, written from the definitions ---------------------------------------------------


def loop_ema(values: list[float | None], n: int) -> list[float | None]:
    line, seed, average = [], [], None
    for x in values:
        if x is not None:
            if average is None:
                seed.append(x)
                if len(seed) == n:
                    average = sum(seed[1:], seed[0]) / n
            else:
                average += (x - average) * 2 / (n + 1)
        line.append(average if x is not None else None)
    return line


def loop_cross(a: list[float | None], b: list[float | None]) -> list[int]:
    line, before = [], None
    for now in zip(a, b, strict=True):
        signal = 0
        if before is not None and None not in (*before, *now):
            if before[0] <= before[1] and now[0] > now[1]:
                signal = 1
            elif before[0] >= before[1] and now[0] < now[1]:
                signal = -1
        line.append(signal)
        before = now
    return line


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("fast", "slow"), [(9, 21), (5, 50)])
def test_ema_cross_equals_a_plain_loop(name: str, fast: int, slow: int) -> None:
    candles = klines(name)
    close = candles["close"].cast(pl.Float64).to_list()
    expected = loop_cross(loop_ema(close, fast), loop_ema(close, slow))
    found = signals("ema_cross", candles, interval_of(name), {"fast": fast, "slow": slow})
    assert found == expected
    assert {1, -1} <= set(expected)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("windows", [(12, 26, 9), (3, 10, 16)])
def test_macd_equals_a_plain_loop(name: str, windows: tuple[int, int, int]) -> None:
    fast, slow, smooth = windows
    candles = klines(name)
    close = candles["close"].cast(pl.Float64).to_list()
    pairs = zip(loop_ema(close, fast), loop_ema(close, slow), strict=True)
    line = [None if None in pair else pair[0] - pair[1] for pair in pairs]
    signal = loop_ema(line, smooth)
    assert (line.index(next(x for x in line if x is not None)), signal[: slow + smooth - 2]) == (
        slow - 1,
        [None] * (slow + smooth - 2),
    )
    parameters = {"fast": fast, "slow": slow, "signal": smooth}
    expected = loop_cross(line, signal)
    assert signals("macd", candles, interval_of(name), parameters) == expected
    assert {1, -1} <= set(expected)


def loop_btc(candles: pl.DataFrame, indicators: pl.DataFrame) -> list[int]:
    """The four rules on stored indicators, first match; nothing before all four are there."""
    line = []
    close_before = vwap_before = atr_before = None
    rows = indicators.select("ema", "rsi", "atr", "vwap").iter_rows()
    for close, (ema, rsi, atr, vwap) in zip(candles["close"].cast(pl.Float64), rows, strict=True):
        signal = 0
        if None not in (ema, rsi, atr, vwap):
            crossable = close_before is not None and vwap_before is not None
            up = crossable and close_before <= vwap_before and close > vwap
            down = crossable and close_before >= vwap_before and close < vwap
            jump = atr_before is not None and atr > 1.5 * atr_before
            lull = atr_before is not None and atr < 0.95 * atr_before
            rules = [
                (1, up and rsi > 50),
                (-1, down and rsi < 50),
                (-1, jump and close > ema),
                (1, lull and close < ema and rsi > 30),
            ]
            signal = next((value for value, matches in rules if matches), 0)
        line.append(signal)
        close_before, vwap_before, atr_before = close, vwap, atr
    return line


@pytest.mark.parametrize("name", FILES)
def test_btc_equals_a_plain_loop(name: str) -> None:
    candles, interval = klines(name), interval_of(name)
    indicators, _ = compute_indicators(candles, IndicatorWindows(), interval, days_of(candles, interval))
    assert signals("btc", candles, interval) == loop_btc(candles, indicators)


# --- btc, rule by rule ---------------------------------------------------------------------------


def btc(*rows: tuple[float | None, ...], **parameters: float) -> list[int]:
    """Signals of rows (close, ema, rsi, atr, vwap)."""
    opened = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(len(rows))]
    columns = list(zip(*rows, strict=True))
    times = pl.Series("timestamp", opened, dtype=pl.Datetime("us", "UTC"))
    candles = pl.DataFrame({"timestamp": times, "close": pl.Series(columns[0], dtype=pl.Float64)})
    stored = {
        name: pl.Series(column, dtype=pl.Float64)
        for name, column in zip(("ema", "rsi", "atr", "vwap"), columns[1:], strict=True)
    }
    days = Days([date(2024, 1, 1)], times.dt.date())
    frame, _ = compute_signals("btc", candles, pl.DataFrame({"timestamp": times, **stored}), parameters, days)
    return frame["signal"].to_list()


#          close   ema   rsi    atr  vwap
CALM = (100.0, 100.0, 50.0, 10.0, 100.0)


@pytest.mark.parametrize(
    ("before", "now", "signal"),
    [
        # 1: close crosses above vwap, rsi above the middle
        ((99, 100, 50, 10, 100), (101, 101, 51, 10, 100), 1),
        ((100, 100, 50, 10, 100), (101, 101, 51, 10, 100), 1),  # equal before
        ((99, 100, 50, 10, 100), (100, 100, 51, 10, 100), 0),  # equal now
        ((99, 100, 50, 10, 100), (101, 101, 50, 10, 100), 0),  # rsi not above 50
        ((99, 100, 50, 10, 98), (101, 101, 51, 10, 100), 0),  # was above its own vwap
        ((99, 100, 50, 10, 99), (97, 101, 51, 10, 96), 1),  # the session's vwap fell below
        # 2: close crosses below vwap, rsi below the middle
        ((101, 100, 50, 10, 100), (99, 99, 49, 10, 100), -1),
        ((100, 100, 50, 10, 100), (99, 99, 49, 10, 100), -1),
        ((101, 100, 50, 10, 100), (99, 99, 50, 10, 100), 0),
        # 3: close above ema, atr jumps
        ((110, 100, 50, 10, 100), (110, 109, 50, 15.1, 100), -1),
        ((110, 100, 50, 10, 100), (110, 109, 50, 15.0, 100), 0),
        ((110, 100, 50, 10, 100), (110, 110, 50, 15.1, 100), 0),
        # 4: close below ema, atr calms down, rsi above the low
        ((90, 100, 50, 10, 100), (90, 91, 31, 9.4, 100), 1),
        ((90, 100, 50, 10, 100), (90, 91, 30, 9.4, 100), 0),
        ((90, 100, 50, 10, 100), (90, 91, 31, 9.5, 100), 0),
        ((90, 100, 50, 10, 100), (90, 90, 31, 9.4, 100), 0),
        # the first that matches: 1 before 3, 2 before 4
        ((99, 100, 50, 10, 100), (101, 100, 51, 20, 100), 1),
        ((101, 100, 50, 10, 100), (99, 100, 49, 9, 100), -1),
        # nulls: of the previous candle they stop the rule that reads it, of this one every rule
        ((99, 100, 50, 10, None), (101, 101, 51, 10, 100), 0),
        ((99, None, None, None, 100), (101, 101, 51, 10, 100), 1),
        ((110, 100, 50, None, 100), (110, 109, 50, 15.1, 100), 0),
        ((99, 100, 50, 10, 100), (101, None, 51, 10, 100), 0),
        ((99, 100, 50, 10, 100), (101, 101, None, 10, 100), 0),
        ((99, 100, 50, 10, 100), (101, 101, 51, None, 100), 0),
        ((110, 100, 50, 10, 100), (110, 109, 50, 15.1, None), 0),
    ],
)
def test_btc_gives_the_signals_of_its_rules(before: tuple, now: tuple, signal: int) -> None:
    assert btc(CALM, before, now)[2] == signal


def test_btc_thresholds_are_parameters() -> None:
    up = ((99, 100, 50, 10, 100), (101, 101, 55, 10, 100))
    assert btc(*up) == [0, 1]
    assert btc(*up, rsi_middle=55) == [0, 0]
    jump = ((110, 100, 50, 10, 100), (110, 109, 50, 12, 100))
    assert btc(*jump) == [0, 0]
    assert btc(*jump, atr_rise=1.1) == [0, -1]
    lull = ((90, 100, 50, 10, 100), (90, 91, 31, 9.4, 100))
    assert btc(*lull, atr_fall=0.9) == [0, 0]
    assert btc(*lull, rsi_low=31) == [0, 0]


# --- chunks and the future -----------------------------------------------------------------------


def run_in_chunks(kind: str, candles: pl.DataFrame, interval: str, cuts: list[int]):
    whole = days_of(candles, interval)
    indicators, _ = compute_indicators(candles, IndicatorWindows(), interval, whole)
    rows = np.concatenate([[0], whole.ends])
    owned = np.repeat(np.array(whole.days, dtype="datetime64[D]"), np.diff(rows))
    frames, states, state = [], [], None
    for first, end in zip([0, *cuts], [*cuts, len(whole.days)], strict=True):
        part = slice(rows[first], rows[end])
        days = Days(whole.days[first:end], pl.Series(owned[part]).cast(pl.Date))
        frame, ends = compute_signals(kind, candles[part], indicators[part], None, days, state)
        state = ends[-1]
        frames.append(frame)
        states.append(ends)
    return pl.concat(frames)["signal"], np.concatenate(states)


@pytest.mark.parametrize("kind", ["ema_cross", "macd", "btc"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_signals_and_states(kind: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    candles = klines(name)
    begin = data.draw(st.integers(0, max(0, candles.height - 1500)))
    candles, interval = candles[begin : begin + 1500], interval_of(name)
    count = len(days_of(candles, interval).days)
    cuts = data.draw(
        st.one_of(
            st.lists(st.integers(1, count - 1), unique=True, max_size=12).map(sorted),
            st.just(list(range(1, min(count, 300)))),  # day by day
        )
    )
    whole, states = run_in_chunks(kind, candles, interval, [])
    signal, cut_states = run_in_chunks(kind, candles, interval, cuts)
    assert signal.equals(whole)
    assert same_bits(cut_states, states)


@pytest.mark.parametrize("kind", ["ema_cross", "macd", "btc"])
def test_the_future_changes_no_signal_before_it(kind: str) -> None:
    candles = klines("spot/BTCUSDT-2h-2017_2020")[:1200]
    whole = signals(kind, candles, "2h")
    prices = pl.col("open", "high", "low", "close")
    for cut in range(1, 1200, 61):
        later = pl.int_range(pl.len()) >= cut
        poisoned = candles.with_columns(pl.when(later).then(prices * 10).otherwise(prices))
        assert signals(kind, candles[:cut], "2h") == whole[:cut]
        assert signals(kind, poisoned, "2h")[:cut] == whole[:cut]


# --- the registry --------------------------------------------------------------------------------


def test_the_built_in_strategies_are_listed() -> None:
    assert {"btc", "ema_cross", "macd"} <= set(strategy_types())
    assert list(strategy_types()) == sorted(strategy_types())
    assert get_strategy("btc").indicators == ("ema", "rsi", "atr", "vwap")
    assert get_strategy("macd").resolve() == {"fast": 12, "slow": 26, "signal": 9}
    assert get_strategy("macd").resolve({"fast": 5}) == {"fast": 5, "slow": 26, "signal": 9}
    assert get_strategy("ema_cross").description.startswith("Buy when the fast EMA")


def test_an_unknown_strategy_lists_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no strategy of type 'rsi2'\. There are: .*btc, ema_cross, macd"):
        get_strategy("rsi2")


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("ema_cross", {"fats": 9}, r"no parameter 'fats'\. Its parameters: fast \(a whole number from 1 to"),
        ("ema_cross", {"fast": 9.5}, "fast of strategy ema_cross is 9.5; it must be a whole number"),
        ("ema_cross", {"fast": "9"}, "fast of strategy ema_cross is '9'; it must be a whole number"),
        ("ema_cross", {"fast": True}, "fast of strategy ema_cross is True"),
        ("ema_cross", {"slow": 0}, "slow of strategy ema_cross is 0; it must be a whole number from 1"),
        ("btc", {"rsi_middle": 101}, "rsi_middle of strategy btc is 101; it must be a number from 0 to 100"),
        ("btc", {"atr_rise": float("nan")}, "atr_rise of strategy btc is nan"),
        ("btc", {"atr_rise": None}, "atr_rise of strategy btc is None"),
    ],
)
def test_wrong_parameters_are_named_and_the_valid_ones_listed(kind: str, given: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        get_strategy(kind).resolve(given)
    assert all(name in str(caught.value) for name in get_strategy(kind).parameters)


def test_a_whole_number_is_also_a_number() -> None:
    resolved = get_strategy("btc").resolve({"rsi_middle": 55})
    assert resolved["rsi_middle"] == 55.0
    assert type(resolved["rsi_middle"]) is float


def test_wrong_declarations_are_refused_where_they_stand() -> None:
    with pytest.raises(ValueError, match="not a name"):
        strategy("Two Words")
    with pytest.raises(ValueError, match="out of its bounds"):
        strategy("x", parameters={"n": Parameter(0, 1, 9)})
    with pytest.raises(ValueError, match="stored indicators are"):
        strategy("x", indicators=["sma"])
    with pytest.raises(TypeError, match="an int, a float or a bool"):
        strategy("x", parameters={"n": "9"})


@pytest.fixture
def own_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strategies of one's own are forgotten after the test."""
    monkeypatch.setattr(strategies, "_files", {})


def write(path: Path, body: str) -> Path:
    path.write_text("from algobot_assets.compute.strategy import BUY, HOLD, SELL, strategy\n" + dedent(body))
    return path


OWN = """
    import numpy as np
    from numba import njit
    from algobot_assets.compute.indicators import rsi

    @njit
    def highest(carried, ends, states, line, x):
        top, i = carried[0], 0
        for day in range(len(ends)):
            while i < ends[day]:
                top = max(top, x[i])
                line[i] = top
                i += 1
            states[day, 0] = top

    @strategy("own_breakout", parameters={"window": 7, "level": 50.0, "quiet": False})
    def breakout(bars, p):
        top = bars.scan("highest", highest, (-np.inf,), [bars.high])
        strong = rsi(bars, bars.close, p.window) > p.level
        quiet = bars.volume * 0.0 == 0.0 if p.quiet else bars.volume < 0.0
        fresh = bars.high > bars.previous(top)
        return bars.decide((HOLD, quiet), (BUY, fresh & strong), (SELL, bars.open > bars.close))
"""


@pytest.mark.usefixtures("own_strategies")
def test_a_strategy_is_loaded_from_a_user_file(tmp_path: Path) -> None:
    path = write(tmp_path / "breakout.py", OWN)
    assert load_strategy_file(path) == ("own_breakout",)
    assert "own_breakout" in strategy_types()
    candles = klines("spot/BTCUSDT-2h-2017_2020")[:600]
    found, states = run_in_chunks("own_breakout", candles, "2h", [])
    assert found[:7].to_list() == [0] * 7  # not warm, although SELL does not read the RSI
    assert {1, -1, 0} == set(found)
    cut, cut_states = run_in_chunks("own_breakout", candles, "2h", [1, 2, 17, 33])
    assert cut.equals(found)
    assert same_bits(cut_states, states)
    frame, _ = compute_signals("own_breakout", candles, None, {"quiet": True}, days_of(candles, "2h"))
    assert set(frame["signal"]) == {0}


@pytest.mark.usefixtures("own_strategies")
def test_a_file_loaded_again_replaces_what_it_registered(tmp_path: Path) -> None:
    body = "@strategy('{name}')\ndef rule(bars, p):\n    return bars.decide()\n"
    path = write(tmp_path / "mine.py", body.format(name="mine_old"))
    load_strategy_file(path)
    write(path, body.format(name="mine_new"))
    assert load_strategy_file(str(path)) == ("mine_new",)
    assert {"mine_old", "mine_new"} & set(strategy_types()) == {"mine_new"}


@pytest.mark.usefixtures("own_strategies")
def test_a_file_stands_for_the_kept_strategy_of_its_type_but_not_for_another_file(tmp_path: Path) -> None:
    body = "@strategy('btc')\ndef rule(bars, p):\n    return bars.decide((BUY, bars.close > 0))\n"
    kept = get_strategy("btc")
    assert load_strategy_file(write(tmp_path / "edited.py", body)) == ("btc",)
    assert get_strategy("btc") is not kept
    with pytest.raises(SettingsError, match=r"'btc', which .*edited\.py, line 2, has already"):
        load_strategy_file(write(tmp_path / "another.py", body))


@pytest.mark.usefixtures("own_strategies")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1", "registers no strategy"),
        ("def broken(:", "cannot be loaded: SyntaxError"),
        ("import a_module_that_is_not_there", "cannot be loaded: ModuleNotFoundError"),
        ("strategy('Bad Name')", "cannot be loaded: ValueError"),
        (
            "@strategy('mine')\ndef a(bars, p): ...\n@strategy('mine')\ndef b(bars, p): ...",
            "registers one strategy type twice",
        ),
        ("from algobot_assets.compute.strategies.btc import btc", "registers no strategy"),
    ],
)
def test_a_file_that_is_no_strategy_changes_nothing(tmp_path: Path, body: str, message: str) -> None:
    before = strategy_types()
    with pytest.raises(SettingsError, match=message):
        load_strategy_file(write(tmp_path / "bad.py", body))
    assert strategy_types() == before


def test_a_missing_strategy_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.py cannot be loaded: FileNotFoundError"):
        load_strategy_file(tmp_path / "absent.py")


@pytest.mark.usefixtures("own_strategies")
@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        ("bars.close", SettingsError, r"must return one Int32 per candle \(40\).*40 of Float64"),
        ("bars.decide()[1:]", SettingsError, "it returned 39 of Int32"),
        ("None", SettingsError, "it returned NoneType"),
        ("bars.decide((2, bars.close > 0))", SettingsError, "other than 1, -1 and 0"),
        ("bars.decide((BUY, bars.indicator('rsi') > 0))", KeyError, "without declaring it"),
    ],
)
def test_a_strategy_that_returns_no_signals_is_refused(tmp_path: Path, rule: str, error: type, message: str) -> None:
    load_strategy_file(write(tmp_path / "own.py", f"@strategy('own')\ndef own(bars, p):\n    return {rule}\n"))
    candles = klines("spot/BTCUSDT-4h-2017_2026-04")[:40]
    with pytest.raises(error, match=message):
        compute_signals("own", candles, None, None, days_of(candles, "4h"))


# --- inputs --------------------------------------------------------------------------------------


def test_missing_indicators_are_refused() -> None:
    candles = klines("spot/BTCUSDT-4h-2017_2026-04")[:40]
    days = days_of(candles, "4h")
    indicators, _ = compute_indicators(candles, IndicatorWindows(), "4h", days)
    for short in (None, indicators[:-1], indicators[1:], indicators.reverse()):
        with pytest.raises(WindowError, match="Materialise the indicators of these days first"):
            compute_signals("btc", candles, short, None, days)
    with pytest.raises(ValueError, match="ascend"):
        compute_signals("btc", candles.reverse(), indicators.reverse(), None, days)


def test_a_state_of_other_parameters_is_refused() -> None:
    candles = klines("spot/BTCUSDT-4h-2017_2026-04")[:120]
    days = days_of(candles, "4h")
    _, states = compute_signals("macd", candles, None, None, days)
    with pytest.raises(WindowError, match="Recompute the market from its first day"):
        compute_signals("macd", candles, None, {"fast": 13}, days, states[-1])


@pytest.mark.parametrize("kind", ["ema_cross", "macd", "btc"])
def test_without_candles_there_are_no_signals(kind: str) -> None:
    candles = klines("spot/BTCUSDT-4h-2017_2026-04")[:0]
    days = Days([date(2024, 1, 1)], pl.Series([], dtype=pl.Date))
    indicators, _ = compute_indicators(candles, IndicatorWindows(), "4h", days)
    frame, states = compute_signals(kind, candles, indicators, None, days)
    assert frame.height == 0
    assert dict(frame.schema) == {"timestamp": pl.Datetime("us", "UTC"), "signal": pl.Int32}
    assert states.shape[0] == 1


@pytest.mark.parametrize(
    ("module", "at_least"),
    [
        ("strategy", 1),
        ("strategy.definition", 5),
        ("strategy.bars", 1),
        ("carry", 2),
        ("source_digest", 1),
        ("ledger.unfilled", 1),
    ],
)
def test_examples_of_docstrings_are_right(module: str, at_least: int) -> None:
    found = [
        test
        for test in doctest.DocTestFinder().find(importlib.import_module(f"algobot_assets.compute.{module}"))
        if test.examples
    ]
    assert len(found) >= at_least
    for test in found:
        assert doctest.DocTestRunner().run(test).failed == 0, test.name

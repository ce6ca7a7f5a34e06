"""Parameter sweeps: every row has the bits of the same strategy run alone, on real candles and seeded ones."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_candles import days_of, klines

from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.compute.ledger.run import run_ledger
from algobot_assets.compute.ledger.terms import CostTerms, LedgerError, RuleTerms, StrategyTerms
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import get_strategy, load_strategy_file
from algobot_assets.compute.strategy.shared_bars import Shared
from algobot_assets.compute.sweep.grid import Grid, parse_axis
from algobot_assets.compute.sweep.run import RESULTS, AccountTerms, Market, Part, Span, Sweep, best_row, run_alone
from algobot_assets.errors import AlgobotError, SettingsError
from algobot_assets.schema.intervals import end_of

RISK = {
    "risk_per_trade": Decimal("0.02"),
    "max_risk_per_trade": Decimal("0.05"),
    "max_open_trades": 1,
    "stop_loss_percentage": Decimal(2),
    "take_profit_percentage": Decimal(0),
}
DAY = timedelta(days=1)


def market_of(name: str, rows: int | None = None) -> Market:
    candles = klines(name)
    candles = candles if rows is None else candles.head(rows)
    interval = name.rpartition("/")[2].split("-")[1]
    days = days_of(candles, interval)
    indicators, _ = compute_indicators(candles, IndicatorWindows(), interval, days)
    return Market(candles, candles.select(end_of(interval)).to_series(), days, indicators)


@pytest.fixture(scope="module")
def hours() -> Market:
    return market_of("spot/BTCUSDT-1h-2022_2026-04", 9_000)


def row_alone(market: Market, kind: str, account: AccountTerms, combination, span: Span) -> dict:
    """The last row of backtest_results by the ordinary way: signals in one call, the ledger in one call per part."""
    signals, _ = compute_signals(kind, market.candles, market.indicators, combination.parameters, market.days)
    run = run_alone(market, account, signals["signal"].to_numpy().astype(np.int8), combination.risk, span)
    return {name: run.results.row(-1, named=True)[name] for name in RESULTS}


def everything(work: Sweep) -> pl.DataFrame:
    chunks = list(work.chunks())
    assert sorted(np.concatenate([chunk.numbers for chunk in chunks])) == list(range(len(work.grid)))
    return pl.concat([chunk.frames[0].with_columns(pl.Series("combination", chunk.numbers)) for chunk in chunks]).sort(
        "combination"
    )


axis = st.lists(st.integers(2, 60), min_size=1, max_size=3, unique=True)
percent = st.lists(st.sampled_from(["0.3", "1", "2.5", "4", "150"]), min_size=1, max_size=2, unique=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_row_has_the_bits_of_the_strategy_run_alone(hours: Market, data: st.DataObject):
    kind = data.draw(st.sampled_from(["ema_cross", "macd", "btc"]))
    if kind == "btc":
        parameters = [f"rsi_middle={','.join(map(str, data.draw(axis)))}", "atr_rise=1.0,1.1"]
    else:
        parameters = [f"{name}={','.join(map(str, data.draw(axis)))}" for name in ("fast", "slow")]
    risk = [
        f"stop_loss_percentage={','.join(data.draw(percent))}",
        f"take_profit_percentage={','.join(['0', *data.draw(percent)][: data.draw(st.integers(1, 2))])}",
        f"max_open_trades={data.draw(st.sampled_from(['1', '1,3']))}",
    ]
    grid = Grid.of(get_strategy(kind), parameters, risk, {}, RISK)
    first = hours.days.days[data.draw(st.integers(0, 200))]
    span = Span(first, first + timedelta(days=data.draw(st.integers(1, 150))))
    change = span.first + (span.end - span.first) // 2
    parts = (
        Part(date(1970, 1, 1), RuleTerms("0.01", "0.00001", "5"), CostTerms("0.001", 2)),
        *([Part(change, RuleTerms("0.1"), CostTerms("0.0005", 0))] * (change > span.first)),
    )
    account = AccountTerms(Decimal(10_000), data.draw(st.booleans()), None, parts)
    rows = everything(Sweep(get_strategy(kind), hours, account, grid, [span]))
    for number in {0, len(grid) - 1, data.draw(st.integers(0, len(grid) - 1))}:
        row = rows.row(number, named=True)
        assert {name: row[name] for name in RESULTS} == row_alone(hours, kind, account, grid[number], span)


def test_a_sweep_covers_a_year_of_minutes_and_the_unfinished_day():
    market = market_of("spot/BTCUSDT-1m-2023", 60_000)
    market.as_of_ms = int(market.arrays.ends[-1])
    grid = Grid.of(get_strategy("ema_cross"), ["fast=5,9", "slow=21,50"], ["stop_loss_percentage=1,3"], {}, RISK)
    account = AccountTerms(Decimal(10_000), False, None)
    span = Span(market.days.days[2], market.days.days[-1] + DAY)
    rows = everything(Sweep(get_strategy("ema_cross"), market, account, grid, [span]))
    assert rows["total_trades"].min() > 100
    for number in range(len(grid)):
        row = rows.row(number, named=True)
        expected = row_alone(market, "ema_cross", account, grid[number], span)
        assert {name: row[name] for name in RESULTS} == expected
    # and the same by the ledger's own entry, with candles from the account's first day on only
    signals, _ = compute_signals("ema_cross", market.candles, None, grid[5].parameters, market.days)
    terms = account.terms(grid[5].risk, span.first, span.first)
    run = run_ledger(market.arrays, signals["signal"], market.days, None, terms, as_of_ms=market.as_of_ms)
    last = run.results.row(-1, named=True)
    assert all(last[name] == rows.row(5, named=True)[name] for name in RESULTS)


def test_signals_are_those_of_plain_bars_whatever_is_kept(hours: Market, tmp_path: Path):
    path = tmp_path / "odd.py"
    path.write_text(
        "from algobot_assets.compute.strategy import BUY, SELL, strategy, window\n"
        '@strategy("odd_sums", parameters={"n": window(7)})\n'
        "def odd_sums(bars, p):\n"
        "    total = bars.rolling_sum(bars.volume, p.n)\n"
        "    ratio = bars.wilder(bars.close / (total - total), p.n)\n"
        "    mean = bars.ema(bars.previous(bars.close), p.n)\n"
        "    rule = bars.crosses_above(bars.close, mean) & (bars.session_sum(bars.volume) > 100.0)\n"
        "    return bars.decide((BUY, rule), (SELL, bars.crosses_below(mean, 20000.0)), (SELL, ratio > 1.0))\n"
    )
    load_strategy_file(path)
    for kind, values in (("odd_sums", "n=3:30:3"), ("macd", "fast=3:30:3")):
        grid = Grid.of(get_strategy(kind), [values], [], {}, RISK)
        for room in (0, 400_000, 10**9):
            work = Sweep(get_strategy(kind), hours, AccountTerms(1000, False, None), grid, [])
            work._shared = Shared(hours.candles, pl.DataFrame(), hours.days, room)
            for rule in [*grid.in_z_order(), 0, 1]:
                plain, _ = compute_signals(kind, hours.candles, None, grid.parameter_set(rule), hours.days)
                assert np.array_equal(work.signals(rule)[0], plain["signal"].to_numpy())
                assert work._shared._bytes <= room


def test_an_account_too_large_is_refused_in_one_sentence(hours: Market):
    grid = Grid.of(get_strategy("ema_cross"), [], [], {}, RISK)
    account = AccountTerms(Decimal("89999999"), False, None)
    with pytest.raises(LedgerError, match=r"with fast 9, slow 21.* passed 90,000,000"):
        market = Market(
            hours.candles.with_columns(
                pl.col("open", "high", "low", "close") * pl.Series([Decimal(i + 1) for i in range(9_000)]) / 1000
            ).cast({name: pl.Decimal(20, 8) for name in ("open", "high", "low", "close")}),
            hours.candles.select(end_of("1h")).to_series(),
            hours.days,
        )
        span = Span(hours.days.days[0], hours.days.days[300])
        list(Sweep(get_strategy("ema_cross"), market, account, grid, [span]).chunks())


def test_axes_are_read_as_written():
    assert parse_axis("fast=5:50:15") == ("fast", ["5", "20", "35", "50"])
    assert parse_axis("x=0.1:0.3:0.1") == ("x", ["0.1", "0.2", "0.3"])
    assert parse_axis("x=1,2:4, 9") == ("x", ["1", "2", "3", "4", "9"])
    grid = Grid.of(get_strategy("ema_cross"), ["fast=5,9", "slow=20,30"], ["max_open_trades=1:3"], {}, RISK)
    assert len(grid) == 12
    assert str(grid[7]) == (
        "fast 9, slow 20, risk_per_trade 0.02, max_risk_per_trade 0.05, max_open_trades 2, "
        "stop_loss_percentage 2, take_profit_percentage 0"
    )
    assert sorted(grid.in_z_order()) == [0, 1, 2, 3]
    assert grid.swept() == ["fast", "slow", "max_open_trades"]


@pytest.mark.parametrize(
    ("parameters", "risk", "words"),
    [
        (["fast"], [], "has no values"),
        (["fast="], [], "has no values"),
        (["fast=1,,2"], [], "empty value"),
        (["fast=9:5"], [], "has no values"),
        (["fast=1:9:0"], [], "has no values"),
        (["fast=1:x"], [], "cannot be read"),
        (["fast=1:inf"], [], "cannot be read"),
        (["fast=1:9:0.0001"], [], "more than 10,000 values"),
        (["fast=1.5"], [], "fast of strategy ema_cross is 1.5"),
        (["fast=abc"], [], "fast of strategy ema_cross is 'abc'"),
        (["fats=1"], [], "no parameter 'fats'"),
        (["fast=1", "fast=2"], [], "given twice"),
        (["fast=1:5000", "slow=1:5000"], [], "25,000,000 combinations"),
        ([], ["stop=1"], "no risk parameter 'stop'"),
        ([], ["stop_loss_percentage=0"], "stop_loss_percentage is 0"),
        ([], ["max_open_trades=1.5"], "give a whole number"),
        ([], ["risk_per_trade=2"], "risk_per_trade is 2"),
    ],
)
def test_an_impossible_grid_is_refused_in_one_sentence(parameters, risk, words):
    with pytest.raises(AlgobotError, match=words):
        Grid.of(get_strategy("ema_cross"), parameters, risk, {}, RISK)


def test_the_best_has_the_metric_and_enough_trades():
    frame = pl.DataFrame({"sharpe_ratio": [None, 1.0, 3.0, 3.0], "total_trades": [9, 9, 2, 9]})
    assert best_row(frame, "sharpe_ratio") == 2
    assert best_row(frame, "sharpe_ratio", 5) == 3
    assert best_row(frame, "sharpe_ratio", 10) is None


def test_base_values_hold_for_what_is_not_swept():
    grid = Grid.of(get_strategy("ema_cross"), ["slow=30"], [], {"fast": 5, "slow": 13}, RISK)
    assert grid[0].parameters == {"fast": 5, "slow": 30}
    with pytest.raises(SettingsError):
        Grid.of(get_strategy("ema_cross"), [], [], {"other": 5}, RISK)
    assert StrategyTerms(1, grid[0].risk["risk_per_trade"], date(2024, 1, 1)).risk_per_trade == Decimal("0.02")

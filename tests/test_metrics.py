"""The ten figures against empyrical-reloaded under the same convention, arithmetic by hand, and NULL."""

from __future__ import annotations

import math
import random
import statistics
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from algobot_assets.compute.carry import Days
from algobot_assets.compute.ledger import kernel
from algobot_assets.compute.ledger.run import LedgerRun, run_ledger
from algobot_assets.compute.ledger.state import read_state
from algobot_assets.compute.ledger.terms import CostTerms, RiskTerms, StrategyTerms, Terms
from algobot_assets.compute.metrics import performance as metrics

PRICE = pl.Decimal(20, 8)
FIRST = date(2024, 1, 1)
RATIOS = metrics.FIGURES[2:]
RETURNS = [[rng.gauss(0.001, 0.02) for _ in range(400)] for rng in map(random.Random, range(3))]


def row(**changes: float) -> dict[str, float]:
    """`figures` of an account of 1000 that stands at 1100 after 100 days, 4 trades of which 3 won."""
    values = {
        "initial": 1000.0,
        "equity": 1100.0,
        "drawdown": -0.1,
        "count": 100.0,
        "mean": 0.001,
        "m2": 0.01,
        "days": 100.0,
        "closed": 4.0,
        "won": 3.0,
        "sum_won": 150.0,
        "sum_lost": -50.0,
        "sum_pct": 8.0,
    }
    out = np.empty(8)
    metrics.figures(*(values | changes).values(), out)
    return dict(zip(RATIOS, out, strict=True))


def accumulate(returns: list[float]) -> tuple[float, float, float]:
    state = (0.0, 0.0, 0.0)
    for value in returns:
        state = kernel.add_return(*state, value)
    return state


def test_figures_equal_values_computed_by_hand() -> None:
    got = row()
    assert got["total_return"] == pytest.approx(0.1, rel=1e-14)
    assert got["annual_return"] == pytest.approx(1.1**3.65 - 1, rel=1e-12)
    assert got["max_drawdown"] == -0.1
    assert got["sharpe_ratio"] == pytest.approx(0.001 / math.sqrt(0.01 / 99) * math.sqrt(365), rel=1e-12)
    assert got["win_rate"] == 0.75
    assert got["avg_profit_pct"] == 2.0
    assert got["risk_reward_ratio"] == 1.0  # 50 per win, 50 per loss
    assert got["profit_factor"] == 3.0


@pytest.mark.parametrize("returns", RETURNS)
def test_sharpe_annual_return_and_drawdown_equal_empyrical(returns: list[float]) -> None:
    """empyrical-reloaded with 365 days, ddof 1, rf 0 and the starting capital as first peak: 1e-9."""
    empyrical = pytest.importorskip("empyrical")
    equity = 1000.0 * np.cumprod(1 + np.asarray(returns))
    got = row(
        equity=equity[-1],
        days=float(len(returns)),
        **dict(zip(("count", "mean", "m2"), accumulate(returns), strict=True)),
    )
    daily = np.asarray(returns)
    assert got["sharpe_ratio"] == pytest.approx(empyrical.sharpe_ratio(daily, annualization=365), rel=1e-9)
    assert got["annual_return"] == pytest.approx(empyrical.annual_return(daily, annualization=365), rel=1e-9)
    assert got["total_return"] == pytest.approx(empyrical.cum_returns_final(daily), rel=1e-9)
    head = np.zeros(kernel.HEAD)
    head[kernel.PEAK] = 1000.0
    for value in equity:
        kernel.mark(head, value)
    assert head[kernel.DRAWDOWN] == pytest.approx(empyrical.max_drawdown(daily), rel=1e-9)


@pytest.mark.parametrize("returns", [*RETURNS, [1e-9 * x + 0.5 for x in RETURNS[0]]])
def test_running_sums_are_the_mean_and_the_variance(returns: list[float]) -> None:
    """Also where the returns hardly differ, which a sum of squares would not survive."""
    count, mean, m2 = accumulate(returns)
    assert count == len(returns)
    assert mean == pytest.approx(statistics.fmean(returns), rel=1e-12)
    assert m2 / (count - 1) == pytest.approx(statistics.variance(returns), rel=1e-6)


def test_undefined_figures_are_null() -> None:
    none = {"closed": 0.0, "won": 0.0, "sum_won": 0.0, "sum_lost": 0.0, "sum_pct": 0.0}
    idle = row(equity=1000.0, drawdown=0.0, mean=0.0, m2=0.0, **none)
    assert idle["total_return"] == 0 and idle["annual_return"] == 0 and idle["max_drawdown"] == 0
    for name in ("sharpe_ratio", "win_rate", "avg_profit_pct", "risk_reward_ratio", "profit_factor"):
        assert math.isnan(idle[name]), name
    losers = row(won=0.0, sum_won=0.0)
    assert losers["profit_factor"] == 0 and math.isnan(losers["risk_reward_ratio"]) and losers["win_rate"] == 0
    winners = row(won=4.0, sum_lost=0.0)
    assert math.isnan(winners["profit_factor"]) and math.isnan(winners["risk_reward_ratio"])
    even = row(won=2.0, sum_won=10.0, sum_lost=0.0)  # two wins, two break-even: they lose nothing
    assert math.isnan(even["profit_factor"]) and math.isnan(even["risk_reward_ratio"]) and even["win_rate"] == 0.5
    mixed = row(won=1.0, sum_won=10.0, sum_lost=-10.0, closed=3.0)  # one win, one loss, one break-even
    assert mixed["risk_reward_ratio"] == 2.0


@pytest.mark.parametrize(("days", "known"), [(29.999, False), (30.0, True), (30.5, True)])
def test_yearly_figures_need_thirty_days(days: float, known: bool) -> None:
    got = row(days=days)
    assert math.isnan(got["annual_return"]) is not known
    assert math.isnan(got["sharpe_ratio"]) is not known


def test_debts_have_no_yearly_return() -> None:
    assert math.isnan(row(equity=-1.0)["annual_return"]) and row(equity=0.0)["annual_return"] == -1
    assert math.isnan(kernel.daily_return(5.0, 0.0)) and math.isnan(kernel.daily_return(5.0, -1.0))


def test_columns_hold_eight_decimals_or_null() -> None:
    values = np.array([0.123456785, -0.5, np.nan, np.inf, -np.inf, 1e12, 999_999_999_999.5, 12_345_678.123456789])
    column = metrics.ratio_column("x", values)
    assert column.dtype == PRICE
    assert column.to_list() == [
        Decimal("0.12345678"),
        Decimal("-0.5"),
        None,
        None,
        None,
        None,
        Decimal("999999999999.5"),
        Decimal("12345678.12345679"),
    ]


def account(
    path: list[tuple[int, float, int]], days: int, start: date = FIRST, fee: str = "0", short: bool = False
) -> LedgerRun:
    """12h candles (index, price, signal), flat within; 1000 of capital all in with a stop of 50 %."""
    begin = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
    times = pl.Series("timestamp", [begin + timedelta(hours=12 * i) for i, _, _ in path]).cast(pl.Datetime("us", "UTC"))
    prices = [
        pl.Series(name, [Decimal(str(p)) for _, p, _ in path], dtype=PRICE) for name in ("open", "high", "low", "close")
    ]
    window = [FIRST + timedelta(days=i) for i in range(days)]
    return run_ledger(
        pl.DataFrame([times, *prices]),
        pl.Series([s for _, _, s in path], dtype=pl.Int8),
        Days(window, times.dt.date()),
        times.dt.offset_by("12h"),
        Terms(StrategyTerms(1000, 1, start, shorting=short), RiskTerms(1, 1, 50), costs=CostTerms(fee)),
    )


def test_a_day_without_candles_is_a_return_of_zero() -> None:
    """Bought at 100 on day 1; day 2 ends at 110, days 3 to 39 have no candle, day 40 ends at 99."""
    run = account([(0, 100, 1), (1, 100, 0), (3, 110, 0), (79, 99, 0)], 40)
    returns = [0.0, 0.1, *[0.0] * 37, 99 / 110 - 1]
    spread = statistics.stdev(returns)
    last = run.results.row(-1, named=True)
    assert float(last["sharpe_ratio"]) == pytest.approx(statistics.fmean(returns) / spread * math.sqrt(365), abs=1e-8)
    assert last["final_capital"] == 990 and last["max_drawdown"] == Decimal("-0.1")
    assert run.results["final_capital"].to_list() == [1000, *[1100] * 38, 990]
    assert run.results["sharpe_ratio"].null_count() == 29
    assert float(last["annual_return"]) == pytest.approx(0.99 ** (365 / 40) - 1, abs=1e-8)
    assert last["open_trades"] == 1 and last["open_profit"] == -10 and last["total_trades"] == 0
    assert last["win_rate"] is None and last["profit_factor"] is None


def test_a_trade_counts_the_running_day() -> None:
    """Sold at noon of day 40: the clock says 40 days at that candle's end, the 40th return runs up to its
    mark.
    """
    run = account([(0, 100, 1), (1, 100, 0), (70, 120, -1), (79, 108, 0)], 41)
    trade = run.metrics.row(0, named=True)
    assert trade["day"] == date(2024, 2, 9) and trade["final_capital"] == 1080
    returns = [0.0] * 35 + [0.2] + [0.0] * 3 + [108 / 120 - 1]
    expected = statistics.fmean(returns) / statistics.stdev(returns) * math.sqrt(365)
    assert float(trade["sharpe_ratio"]) == pytest.approx(expected, abs=1e-8)
    assert float(trade["annual_return"]) == pytest.approx(1.08 ** (365 / 40) - 1, abs=1e-8)
    early = account([(0, 100, 1), (1, 100, 0), (70, 120, -1), (78, 108, 0)], 41).metrics.row(0, named=True)
    assert float(early["annual_return"]) == pytest.approx(1.08 ** (365 / 39.5) - 1, abs=1e-8)
    assert early["sharpe_ratio"] == trade["sharpe_ratio"]


def test_the_clock_starts_on_the_effective_date_not_at_the_first_candle() -> None:
    """Days before the market's first candle count, whether the window lists them or begins later."""
    start = FIRST - timedelta(days=20)
    path = [(0, 100, 1), (1, 100, 0), (3, 110, 0), (23, 105, 0)]
    late = account(path, 12, start).results.row(-1, named=True)
    assert float(late["annual_return"]) == pytest.approx(1.05 ** (365 / 32) - 1, abs=1e-8)
    returns = [0.0] * 21 + [0.1] + [0.0] * 9 + [105 / 110 - 1]
    expected = statistics.fmean(returns) / statistics.stdev(returns) * math.sqrt(365)
    assert float(late["sharpe_ratio"]) == pytest.approx(expected, abs=1e-8)


def test_a_loss_on_the_first_day_is_a_drawdown() -> None:
    run = account([(0, 100, 1), (1, 100, 0), (2, 90, 0)], 2, fee="0.001")
    first, second = run.results["max_drawdown"].to_list()
    assert first == Decimal("-0.00099900") and -Decimal("0.101") < second < Decimal("-0.1")


def test_trades_of_one_candle_share_their_figures() -> None:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    times = pl.Series("timestamp", [begin + timedelta(hours=i) for i in range(4)]).cast(pl.Datetime("us", "UTC"))
    prices = [
        pl.Series(n, [Decimal(x) for x in (100, 100, 100, 110)], dtype=PRICE) for n in ("open", "high", "low", "close")
    ]
    run = run_ledger(
        pl.DataFrame([times, *prices]),
        pl.Series([1, 1, -1, 0]),
        Days([FIRST], times.dt.date()),
        times.dt.offset_by("1h"),
        Terms(StrategyTerms(1000, "0.01", FIRST), RiskTerms(1, 2, 10)),
    )
    assert run.metrics.height == 2
    assert run.metrics.drop("entry_time").n_unique() == 1
    assert run.metrics["entry_time"].to_list() == run.trades["entry_time"].to_list()
    assert run.metrics["win_rate"].to_list() == [1, 1] and run.metrics["profit_factor"].null_count() == 2


@pytest.mark.parametrize("side", [1, -1])
def test_every_small_mark_counts_for_peak_and_drawdown(side: int) -> None:
    """Steps of a tenth of a percent, quiet candles all: as a loop over every mark finds."""
    for seed in range(30):
        rng, price, path = random.Random(seed), 100.0, [(0, 100, side), (1, 100, 0)]
        for i in range(2, 80):
            price = round(price * (1 + rng.gauss(0, 0.001)), 2)
            path.append((i, price, 0))
        run = account(path, 40, short=side < 0)
        peak, deepest = Decimal(1000), Decimal(0)
        for _, value, _ in path:
            equity = 1000 + 10 * side * (Decimal(str(value)) - 100)
            peak = max(peak, equity)
            deepest = min(deepest, equity / peak - 1)
        assert run.results["max_drawdown"][-1] == deepest.quantize(Decimal("0.00000001"))
        assert read_state(list(run.states.values())[-1]).peak == peak

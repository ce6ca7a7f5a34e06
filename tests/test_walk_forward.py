"""Walk-forward windows, their leakage check, and the deflated Sharpe ratio against its published example."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sweep import RISK, market_of, row_alone

from algobot_assets.compute.metrics.deflated_sharpe import deflated_of, deflated_sharpe, expected_best
from algobot_assets.compute.strategies import get_strategy
from algobot_assets.compute.sweep.folds import Fold, check_leakage, split_folds
from algobot_assets.compute.sweep.grid import Grid
from algobot_assets.compute.sweep.run import RESULTS, AccountTerms, Market, Span, Sweep
from algobot_assets.errors import WindowError
from algobot_assets.research.request import Trial
from algobot_assets.research.walk_forward import run
from algobot_assets.schema.intervals import end_of

DAY = timedelta(days=1)
FIRST = date(2024, 1, 1)


@given(st.integers(2, 400), st.integers(1, 100), st.integers(1, 50), st.booleans())
def test_no_test_window_touches_its_train_window_nor_another(length, train, test, anchored):
    last = FIRST + timedelta(days=length - 1)
    if length <= train:
        with pytest.raises(WindowError, match="needs at least"):
            split_folds(FIRST, last, train, test, anchored=anchored)
        return
    found = split_folds(FIRST, last, train, test, anchored=anchored)
    tested = [fold.test_first + i * DAY for fold in found for i in range((fold.test_end - fold.test_first).days)]
    assert tested == [FIRST + timedelta(days=i) for i in range(train, length)]
    for fold in found:
        assert fold.train_end == fold.test_first
        assert fold.train_first == (FIRST if anchored else fold.train_end - timedelta(days=train))


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([Fold(FIRST, FIRST + 10 * DAY, FIRST + 9 * DAY, FIRST + 12 * DAY)], "before its train window ends"),
        (
            [
                Fold(FIRST, FIRST + 5 * DAY, FIRST + 5 * DAY, FIRST + 9 * DAY),
                Fold(FIRST, FIRST + 8 * DAY, FIRST + 8 * DAY, FIRST + 12 * DAY),
            ],
            "within the one before it",
        ),
        ([Fold(FIRST, FIRST, FIRST, FIRST + DAY)], "has no days"),
    ],
)
def test_overlapping_train_and_test_windows_are_refused(pairs, words):
    with pytest.raises(WindowError, match=words):
        check_leakage(pairs)


def test_the_deflated_sharpe_ratio_is_that_of_its_paper():
    """Bailey and Lopez de Prado (2014), the numerical example: a Sharpe ratio of 2.5 over five years of 250 days,
    skewness -3, kurtosis 10, 100 trials whose yearly ratios have a variance of 1/2."""
    assert expected_best(0.5 / 250, 100) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(2.5 / 250**0.5, 1250, -3, 10, 0.5 / 250, 100) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(2.5 / 250**0.5, 1250, -3, 10, 0.5 / 250, 46) == pytest.approx(0.9505, abs=5e-5)
    assert deflated_sharpe(2.5 / 250**0.5, 1250, 0, 3, 0.5 / 250, 88) == pytest.approx(0.9505, abs=5e-4)
    assert expected_best(0.5, 1) == 0.0


def test_what_cannot_be_deflated_is_not_a_number():
    assert np.isnan(deflated_of(np.zeros(50), np.array([1.0, 2.0]), 2))
    assert np.isnan(deflated_of(np.array([0.1, 0.2, 0.1]), np.array([1.0, np.nan]), 2))
    assert np.isnan(deflated_sharpe(5.0, 100, 3.0, 1.0, 0.1, 10))


def trial_of(market: Market) -> Trial:
    grid = Grid.of(get_strategy("ema_cross"), ["fast=5,9,15", "slow=30,60"], ["stop_loss_percentage=1,3"], {}, RISK)
    account = AccountTerms(Decimal(10_000), True, None)
    days = market.days.days
    return Trial(get_strategy("ema_cross"), "BTCUSDT", "1h", None, days[20], days[-1], account, grid, market, b"", "")


@pytest.fixture(scope="module")
def trial() -> Trial:
    return trial_of(market_of("spot/BTCUSDT-1h-2022_2026-04", 6_000))


def test_windows_are_single_runs_and_the_joined_account_is_whole(trial: Trial):
    pairs = split_folds(trial.first, trial.last, 60, 40)
    found = run(trial, pairs, "total_return")
    assert len(found.windows) == len(pairs) > 3
    for window in found.windows:
        train, test = window.fold, Span(window.fold.test_first, window.fold.test_end)
        in_train = [
            row_alone(trial.market, "ema_cross", trial.account, trial.grid[i], Span(train.train_first, train.train_end))
            for i in range(len(trial.grid))
        ]
        returns = [row["total_return"] for row in in_train]
        assert window.combination == returns.index(max(returns))
        chosen = trial.grid[window.combination]
        assert window.result == row_alone(trial.market, "ema_cross", trial.account, chosen, test)
    days = [pairs[0].test_first + timedelta(days=i) for i in range((pairs[-1].test_end - pairs[0].test_first).days)]
    assert found.equity["day"].to_list() == days
    assert found.equity["equity"][-1] == found.joined["final_capital"]
    equity = found.equity["equity"].cast(pl.Float64).to_numpy()
    returns = equity / np.concatenate([[10_000.0], equity[:-1]]) - 1
    sharpe = returns.mean() / returns.std(ddof=1) * 365**0.5
    assert float(found.joined["sharpe_ratio"]) == pytest.approx(sharpe, abs=1e-7)
    assert found.joined["total_return"] == pytest.approx(Decimal(equity[-1] / 10_000 - 1), abs=Decimal("2e-8"))
    assert 0.0 <= found.deflated <= 1.0
    assert found.ahead is None


def test_what_comes_after_a_train_window_does_not_change_what_it_chooses(trial: Trial):
    pairs = split_folds(trial.first, trial.last, 60, 40)[:2]
    before = run(trial, pairs, "sharpe_ratio")
    cut = int(trial.market.first[trial.market.index(pairs[1].train_end)])
    candles = trial.market.candles.with_row_index("i")
    later = pl.col("i") >= cut
    poisoned = candles.with_columns(
        pl.when(later).then((pl.col(name) * 3).cast(pl.Decimal(20, 8))).otherwise(pl.col(name))
        for name in ("open", "high", "low", "close")
    ).drop("i")
    market = Market(poisoned, poisoned.select(end_of("1h")).to_series(), trial.market.days)
    after = run(replace(trial, market=market), pairs, "sharpe_ratio")
    assert [w.combination for w in after.windows] == [w.combination for w in before.windows]
    assert [w.train_metric for w in after.windows] == [w.train_metric for w in before.windows]
    assert after.windows[0].result == before.windows[0].result
    assert after.windows[1].result != before.windows[1].result


def test_a_metric_that_no_combination_has_is_one_sentence(trial: Trial):
    with pytest.raises(WindowError, match="NULL under 30 days"):
        run(trial, split_folds(trial.first, trial.last, 20, 20), "sharpe_ratio")


def test_the_trials_of_a_sweep_do_not_depend_on_one_another(trial: Trial):
    span = Span(trial.first, trial.last + DAY)
    whole = {}
    for chunk in Sweep(trial.strategy, trial.market, trial.account, trial.grid, [span]).chunks():
        whole |= dict(zip(chunk.numbers.tolist(), chunk.frames[0].rows(), strict=True))
    single = Grid.of(trial.strategy, ["fast=9", "slow=60"], ["stop_loss_percentage=3"], {}, RISK)
    (chunk,) = Sweep(trial.strategy, trial.market, trial.account, single, [span]).chunks()
    number = next(i for i in range(len(trial.grid)) if str(trial.grid[i]) == str(single[0]))
    assert chunk.frames[0].rows()[0] == whole[number]
    assert chunk.frames[0].columns == list(RESULTS)

"""Compute the ten figures of an account from the sums that its ledger carries.

Conventions: equity is marked at candle closes, and the starting capital is the first mark. Daily returns run over
calendar days; a day without a candle has a return of 0, and the current day counts up to the mark. Rates are
annualised with 365 days, the risk-free rate is 0, and standard deviations have ddof 1. Drawdowns are negative
fractions, `win_rate` and returns are fractions, `avg_profit_pct` is in percent. A figure that is undefined, not finite
or too large for DECIMAL(20,8) is NULL.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from algobot_assets.compute.native import compiled
from algobot_assets.compute.units import from_units, ratio_column

YEAR_DAYS = 365.0
MIN_DAYS = 30.0
"""Below this many days (exact, fractional) yearly figures are meaningless: annual_return and sharpe_ratio are NULL."""

FIGURES = (
    "initial_capital",
    "final_capital",
    "total_return",
    "annual_return",
    "max_drawdown",
    "sharpe_ratio",
    "win_rate",
    "avg_profit_pct",
    "risk_reward_ratio",
    "profit_factor",
)
"""Columns of performance_metrics and backtest_results, all DECIMAL(20,8); capital in the quote asset."""


@compiled()
def total_return(initial: float, final: float) -> float:
    """Return final / initial - 1."""
    return final / initial - 1.0


@compiled()
def annual_return(initial: float, final: float, days: float) -> float:
    """Return (final / initial)^(365 / days) - 1 with exact fractional days; NaN below 30 days or with debts."""
    if days < MIN_DAYS or final < 0.0:
        return np.nan
    growth: float = (final / initial) ** (YEAR_DAYS / days)
    return growth - 1.0


@compiled()
def sharpe_ratio(count: float, mean: float, m2: float, days: float) -> float:
    """Return mean / std(ddof 1) x sqrt(365) of `count` daily returns, m2 being their sum of squared deviations.

    NaN below 30 days, and if the returns do not vary.
    """
    if days < MIN_DAYS or count < 2.0 or not m2 > 0.0:
        return np.nan
    return mean / math.sqrt(m2 / (count - 1.0)) * math.sqrt(YEAR_DAYS)


@compiled()
def profit_factor(sum_won: float, sum_lost: float) -> float:
    """Return sum of net wins / |sum of net losses|; NaN without a loss, 0 with losses only."""
    return sum_won / -sum_lost if sum_lost < 0.0 else np.nan


@compiled()
def risk_reward_ratio(closed: float, won: float, sum_won: float, sum_lost: float) -> float:
    """Return mean net win / |mean net loss|; NaN without a win or without a loss. Break-even counts as a loss."""
    if won == 0.0 or not sum_lost < 0.0:
        return np.nan
    return (sum_won / won) / (-sum_lost / (closed - won))


@compiled()
def figures(
    initial: float,
    equity: float,
    drawdown: float,
    count: float,
    mean: float,
    m2: float,
    days: float,
    closed: float,
    won: float,
    sum_won: float,
    sum_lost: float,
    sum_pct: float,
    out: np.ndarray,
) -> None:
    """Write the eight ratios of FIGURES, in their order, to `out`; NaN stands for NULL.

    Money can be in any one unit; `sum_pct`, the sum of profit_pct, is in percent. It takes scalars so that a parameter
    sweep can call it from its own loop.
    """
    out[0] = total_return(initial, equity)
    out[1] = annual_return(initial, equity, days)
    out[2] = drawdown
    out[3] = sharpe_ratio(count, mean, m2, days)
    out[4] = won / closed if closed > 0.0 else np.nan
    out[5] = sum_pct / closed if closed > 0.0 else np.nan
    out[6] = risk_reward_ratio(closed, won, sum_won, sum_lost)
    out[7] = profit_factor(sum_won, sum_lost)


@compiled()
def figure_rows(
    initial: float,
    equity: np.ndarray,
    drawdown: np.ndarray,
    count: np.ndarray,
    mean: np.ndarray,
    m2: np.ndarray,
    days: np.ndarray,
    closed: np.ndarray,
    won: np.ndarray,
    sum_won: np.ndarray,
    sum_lost: np.ndarray,
    sum_pct: np.ndarray,
) -> np.ndarray:
    """Return `figures` of arrays of equal length, shape (rows, 8).

    It goes scalar by scalar, because a vectorised power could depend on its neighbours.
    """
    out = np.empty((equity.size, 8))
    for i in range(equity.size):
        figures(
            initial,
            equity[i],
            drawdown[i],
            count[i],
            mean[i],
            m2[i],
            days[i],
            closed[i],
            won[i],
            sum_won[i],
            sum_lost[i],
            sum_pct[i],
            out[i],
        )
    return out


def figure_columns(initial: float, equity: np.ndarray, ratios: np.ndarray) -> list[pl.Series]:
    """Return the ten columns of FIGURES from capital in units of 1e-8 and the ratios of `figure_rows`."""
    capital = [
        from_units("initial_capital", np.full(len(equity), initial)),
        from_units("final_capital", equity),
    ]
    return capital + [ratio_column(name, ratios[:, i]) for i, name in enumerate(FIGURES[2:])]

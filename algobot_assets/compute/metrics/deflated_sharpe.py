"""Compute the deflated Sharpe ratio: the probability that the best of many trials beats the best expected by luck.

D. H. Bailey, M. Lopez de Prado, The Deflated Sharpe Ratio (Journal of Portfolio Management 40 (5), 2014).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

EULER = 0.5772156649015329
_normal = NormalDist()


def expected_best(variance: float, trials: int) -> float:
    """Return the Sharpe ratio that the best of `trials` reaches by luck, if their ratios have `variance` around 0.

    sqrt(V) ((1 - g) Z(1 - 1/N) + g Z(1 - 1/(N e))), where g is Euler's constant and Z the inverse of the normal
    distribution; 0 for one trial. The unit of time is that of the variance's ratios.
    """
    if trials < 2:
        return 0.0
    high = _normal.inv_cdf(1.0 - 1.0 / trials)
    low = _normal.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(variance) * ((1.0 - EULER) * high + EULER * low)


def deflated_sharpe(sharpe: float, count: int, skewness: float, kurtosis: float, variance: float, trials: int) -> float:
    """Return the probability that the true Sharpe ratio is above `expected_best`; NaN if it is undefined.

    `sharpe` is that of `count` returns, per return and not per year; `skewness` and `kurtosis` (normal: 3) are those of
    the same returns; `variance` is that of the trials' ratios, also per return.
    """
    spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe
    if count < 2 or not spread > 0.0 or not variance >= 0.0:
        return math.nan
    return _normal.cdf((sharpe - expected_best(variance, trials)) * math.sqrt(count - 1.0) / math.sqrt(spread))


def deflated_of(returns: np.ndarray, others: np.ndarray, trials: int) -> float:
    """Return `deflated_sharpe` of daily returns among trials whose yearly Sharpe ratios (sqrt(365) days) are `others`.

    NaN if the returns or the ratios do not vary, or if fewer than two ratios are known.
    """
    known = others[np.isfinite(others)]
    if returns.size < 2 or known.size < 2 or not np.isfinite(returns).all():
        return math.nan
    deviation = returns - returns.mean()
    spread = math.sqrt(float((deviation**2).mean()))
    if not spread > 0.0:
        return math.nan
    sharpe = float(returns.mean()) / float(returns.std(ddof=1))
    skewness = float((deviation**3).mean()) / spread**3
    kurtosis = float((deviation**4).mean()) / spread**4
    return deflated_sharpe(sharpe, returns.size, skewness, kurtosis, float(known.var(ddof=1)) / 365.0, trials)

"""Everything a strategy file imports: the decorator, its parameters, the bars it gets and the three signals.

>>> from algobot_assets.compute.strategy import BUY, SELL, strategy, window
>>> @strategy("slow_cross", parameters={"fast": window(20), "slow": window(50)})
... def slow_cross(bars, p):
...     fast, slow = bars.ema(bars.close, p.fast), bars.ema(bars.close, p.slow)
...     return bars.decide((BUY, bars.crosses_above(fast, slow)), (SELL, bars.crosses_below(fast, slow)))
>>> slow_cross.name
'slow_cross'
"""

from __future__ import annotations

from algobot_assets.compute.strategy.bars import Bars
from algobot_assets.compute.strategy.definition import (
    BUY,
    HOLD,
    INDICATORS,
    SELL,
    Parameter,
    Strategy,
    strategy,
    window,
)

__all__ = ["BUY", "HOLD", "INDICATORS", "SELL", "Bars", "Parameter", "Strategy", "strategy", "window"]

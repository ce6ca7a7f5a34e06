"""What a strategy file imports: the decorator, its parameters and the three signals."""

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

"""Buy dips of an uptrend, sell when the RSI has recovered."""

from algobot_assets.compute.strategy import BUY, SELL, Parameter, strategy, window


@strategy(
    "dip",
    parameters={"trend": window(200), "low": Parameter(35.0, 0, 100), "high": Parameter(60.0, 0, 100)},
    indicators=["rsi"],
)
def dip(bars, p):
    """Buy where the RSI falls below `low` while the close is above its average, sell where it rises above `high`."""
    rsi = bars.indicator("rsi")
    rising = bars.close > bars.ema(bars.close, p.trend)
    return bars.decide(
        (BUY, rising & bars.crosses_below(rsi, p.low)),
        (SELL, bars.crosses_above(rsi, p.high)),
    )

"""Buy where the close leaves a band around its average upwards, sell where it leaves it downwards.

algobot try examples/breakout.py --market 'BTCUSDT 1h'
"""

from algobot_assets.compute.strategy import BUY, SELL, Parameter, strategy, window


@strategy("breakout", parameters={"slow": window(50), "band": Parameter(1.0, 0, 10)})
def breakout(bars, p):
    """Trend following: the close leaves a band of `band` percent around its slow average."""
    middle = bars.ema(bars.close, p.slow)
    upper, lower = middle * (1 + p.band / 100), middle * (1 - p.band / 100)
    return bars.decide(
        (BUY, bars.crosses_above(bars.close, upper)),
        (SELL, bars.crosses_below(bars.close, lower)),
    )

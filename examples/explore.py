# A place to begin: look at stored candles, try a rule on them, and make it one of the strategies that are kept.
#
#     .venv/bin/python examples/explore.py [SYMBOL INTERVAL]
#
# Needs a database with candles (`make demo`). The cells (# %%) run one by one in VS Code, PyCharm and, with jupytext,
# in Jupyter. Nothing here writes to the database.

# %%
import sys
from pathlib import Path

import polars as pl

from algobot_assets.client import connect
from algobot_assets.research.request import Request
from algobot_assets.research.try_file import try_strategy, verdict
from algobot_assets.store.connection import Store

SYMBOL, INTERVAL = sys.argv[1:3] if len(sys.argv) > 2 else ("BTCUSDT", "1h")

# %% Candles, indicators and signals, in three lines
with connect() as client:
    candles = client.candles_with_indicators(SYMBOL, INTERVAL).frame
    signals = client.signals(SYMBOL, INTERVAL).frame

print(candles.select("timestamp", "close", "ema", "rsi", "atr", "vwap").tail(5))
print(signals.filter(pl.col("signal") != 0).group_by("strategy_name").len("signals").sort("strategy_name"))

# %% An idea: what follows when the close is one percent above its average?
AHEAD = 24
close = pl.col("close").cast(float)
later = (100 * (close.shift(-AHEAD) / close - 1)).alias("later")
above = (close > 1.01 * pl.col("ema")).alias("above")
idea = candles.with_columns(later).drop_nulls(["ema", "later"]).group_by(above)
print(idea.agg(pl.len().alias("candles"), pl.col("later").mean().alias("mean, % later")).sort("above"))

# %% The idea as a strategy in a file of its own, with the fills, stops and fees of the backtests
FILE = Path(__file__).with_name("breakout.py")

with Store.open() as store:
    tried = try_strategy(store, Request(str(FILE), market=f"{SYMBOL} {INTERVAL}"))

print(verdict(tried.ahead, tried.buys + tried.sells))
print(pl.DataFrame({"figure": list(tried.result), "value": [str(value) for value in tried.result.values()]}))
print(tried.trades.select("entry_time", "exit_time", "exit_reason", "net_profit").tail(5))

# %% To keep a file: copy it to algobot_assets/compute/strategies/, declare it in algobot.yaml (see the README), then
#
#     algobot apply && algobot refresh && algobot report NAME --open

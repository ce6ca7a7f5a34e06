"""Read-only Polars frames for bots and notebooks.

>>> from algobot_assets.client import connect
>>> with connect() as client:
...     candles = client.candles("BTCUSDT", "1h", "2024-02-01", "2024-02-02")
>>> candles.frame.height
24
"""

from __future__ import annotations

from algobot_assets.client import results
from algobot_assets.client.client import Client, connect
from algobot_assets.client.results import LatestSignal, QueryResult

__all__ = ["Client", "LatestSignal", "QueryResult", "connect"]


def __getattr__(name: str) -> type[QueryResult]:
    """Keep the former name `Answer` importable for one version."""
    if name == "Answer":
        return results.__getattr__(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

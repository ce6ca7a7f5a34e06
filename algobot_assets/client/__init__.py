"""Read-only frames for bots and notebooks: ``with connect() as client: client.candles("BTCUSDT", "1h")``."""

from __future__ import annotations

from algobot_assets.client.client import Client, connect
from algobot_assets.client.results import Answer, LatestSignal

__all__ = ["Answer", "Client", "LatestSignal", "connect"]

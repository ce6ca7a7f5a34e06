"""Set up python-binance for the public endpoints of an address: no key, no streams.

The side effects of its import and constructor are contained here.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from algobot_assets.errors import SettingsError
from algobot_assets.feed.bounded_read import BoundedSession

with warnings.catch_warnings():
    # python-binance imports deprecated names of websockets; candles need none of its streams.
    warnings.simplefilter("ignore", DeprecationWarning)
    from binance.client import Client
    from binance.exceptions import BinanceAPIException, BinanceRequestException

__all__ = [
    "FUTURES_URL",
    "SPOT_URL",
    "BinanceAPIException",
    "BinanceRequestException",
    "Client",
    "public_client",
    "refuse_testnet",
]

SPOT_URL = "https://data-api.binance.vision"
FUTURES_URL = "https://fapi.binance.com"


def public_client(url: str, futures_url: str, timeout: tuple[float, float]) -> Client:
    """Return a python-binance client for ``url``. Its constructor makes an event loop for streams, which are not used
    here; in a thread of its own, that loop does not touch the caller's and can be closed at once."""
    with ThreadPoolExecutor(1) as thread:
        client = thread.submit(Client, ping=False, requests_params={"timeout": timeout}).result()
    client.loop.close()
    bounded = BoundedSession()
    bounded.headers.update(client.session.headers)
    client.session.close()
    client.session = bounded
    client.API_URL = f"{url}/api"
    client.FUTURES_URL = f"{futures_url}/fapi"
    return client


def refuse_testnet(url: str) -> None:
    """Raise SettingsError unless ``url`` is the address of a server with real candles."""
    host = urlsplit(url).hostname
    if not host:
        raise SettingsError(f"{url!r} is not the address of an exchange. Write it like {SPOT_URL}.")
    if "testnet" in host or host.startswith("demo-"):
        raise SettingsError(
            f"{host} is Binance's test network, whose candles are made up and wiped every month. Set the"
            f" exchange's address to {SPOT_URL}."
        )

"""Opening the source of candles that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from algobot_assets.feed.archive import Archive
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.folder import Folder
from algobot_assets.feed.planner import Feed
from algobot_assets.feed.simulated import SimulatedExchange
from algobot_assets.feed.source import Source
from algobot_assets.settings import Settings


@contextmanager
def open_source(settings: Settings) -> Iterator[Source]:
    """The source for the time of the block: Binance, the simulated exchange on loopback, or a folder of
    klines.

    SettingsError where the folder is none; whether an exchange can be reached shows with the first
    question."""
    match settings.candles_from:
        case "binance":
            exchange = Exchange(settings.exchange_url, settings.futures_url)
            with closing(Feed(exchange, Archive(settings.archive_url))) as feed:
                yield feed
        case "simulated":
            with SimulatedExchange() as url, closing(Feed(Exchange(url), Archive(url))) as feed:
                yield feed
        case folder:
            with closing(Folder(folder)) as source:
                yield source

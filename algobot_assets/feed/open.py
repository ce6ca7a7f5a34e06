"""Open the source of candles that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from algobot_assets.feed.archive import Archive
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.folder import Folder
from algobot_assets.feed.planner import ArchiveAndRest
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.source import Source
from algobot_assets.settings import Settings


@contextmanager
def open_source(settings: Settings) -> Iterator[Source]:
    """Open the source for the duration of the block: Binance, the simulated exchange on loopback, or a folder of
    klines.

    SettingsError if the folder does not exist or holds no klines. An exchange is not contacted before the first
    request."""
    match settings.candles_from:
        case "binance":
            exchange = Exchange(settings.exchange_url, settings.futures_url)
            with closing(ArchiveAndRest(exchange, Archive(settings.archive_url))) as feed:
                yield feed
        case "simulated":
            with SimulatedExchange() as url, closing(ArchiveAndRest(Exchange(url), Archive(url))) as feed:
                yield feed
        case folder:
            with closing(Folder(folder)) as source:
                yield source


@dataclass(frozen=True)
class CandleFeed:
    """The configured source of candles. ``source`` overrides ALGOBOT_SOURCE: binance, simulated, or a folder."""

    source: str = ""

    @property
    def settings(self) -> Settings:
        """The settings with this source."""
        return Settings(source=self.source) if self.source else Settings()

    @contextmanager
    def opened(self) -> Iterator[Source]:
        """Open the source for the duration of the block."""
        with open_source(self.settings) as source:
            yield source

    @property
    def is_folder(self) -> bool:
        """Whether candles come from files, which gain no new candles over time."""
        return self.settings.candles_from not in ("binance", "simulated")

    @property
    def exchange(self) -> str:
        """The exchange of the candles: binance or simulated."""
        return self.settings.exchange

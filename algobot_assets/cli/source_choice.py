"""Choose the source of candles if a command has no --source."""

from __future__ import annotations

import os

from algobot_assets.cli.output import say
from algobot_assets.errors import SourceError
from algobot_assets.settings import Settings


def choose_source(source: str | None, ask_again: bool = False) -> Settings:
    """Return settings with a source: the given one, the previous choice, Binance if it answers, or else simulated.

    An automatic choice is saved in the settings' home, so that runs from the UI use it too. ``ask_again`` ignores the
    previous choice.
    """
    if source is not None:
        os.environ["ALGOBOT_SOURCE"] = source
    settings = Settings()
    if settings.source:
        return settings
    if not ask_again and (settings.home / "source").is_file():
        if settings.exchange == "simulated":
            say("Candles come from the SIMULATED exchange, as before. To use Binance: --source binance")
        return settings
    from algobot_assets.feed.exchange import Exchange
    from algobot_assets.feed.retry import Retry

    try:
        exchange = Exchange(settings.exchange_url, timeout=(3.0, 5.0), retry=Retry(attempts=1))
        exchange.server_time()
        exchange.close()
        chosen = "binance"
        say(f"Candles come from Binance ({settings.exchange_url}).")
    except SourceError as error:
        chosen = "simulated"
        say(
            "Binance cannot be reached, so candles come from a SIMULATED exchange on this machine:\n"
            "the prices are seeded, not real. They are stored in a database of their own and\n"
            f"never mix with real candles. ({error})"
        )
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "source").write_text(chosen + "\n")
    os.environ["ALGOBOT_SOURCE"] = chosen
    return Settings()

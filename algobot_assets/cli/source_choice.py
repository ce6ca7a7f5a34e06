"""Which source of candles a command takes when it is not told."""

from __future__ import annotations

import os

from algobot_assets.cli.output import say
from algobot_assets.errors import SourceError
from algobot_assets.settings import Settings


def choose_source(source: str | None, anew: bool = False) -> Settings:
    """The settings with a source: the one asked for, else the one chosen before, else Binance where it answers, else
    the simulated exchange.

    What is chosen without being asked is remembered in the settings' home, so that the UI's runs use it too. ``anew``:
    do not take what was chosen before.
    """
    if source is not None:
        os.environ["ALGOBOT_SOURCE"] = source
    settings = Settings()
    if settings.source:
        return settings
    if not anew and (settings.home / "source").is_file():
        if settings.exchange == "simulated":
            say("Candles come from the SIMULATED exchange, as before; --source binance asks Binance.")
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
            "Binance cannot be reached, so a SIMULATED exchange on this machine takes its place:\n"
            "seeded prices, not real ones. They are kept in a database of their own and never\n"
            f"mix with real candles. ({error})"
        )
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "source").write_text(chosen + "\n")
    os.environ["ALGOBOT_SOURCE"] = chosen
    return Settings()

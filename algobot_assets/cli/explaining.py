"""`algobot explain`: where a stored row comes from, for a person or, as JSON, for a script."""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from decimal import Decimal
from typing import Any

import click

from algobot_assets.cli.database import prepare
from algobot_assets.settings import Settings


@click.group()
def explain() -> None:
    """Say where something that is stored comes from."""


@explain.command()
@click.argument("trade_id", type=int, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="As JSON: prices as text, times as ISO 8601.")
def trade(trade_id: int, as_json: bool) -> None:
    """Lead the trade ID back to its signals, what the strategy saw, its candles and their source.

    The strategy is run again from the recorded state; exits with 5 where its signal is not the stored one.
    """
    from algobot_assets.explain import explain_trade
    from algobot_assets.explain_text import as_text
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        found = explain_trade(store, trade_id)
    click.echo(as_text(found) if not as_json else json.dumps(dataclasses.asdict(found), indent=2, default=_plain))
    if found.problems:
        raise click.exceptions.Exit(5)


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, date):  # a datetime is one
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")

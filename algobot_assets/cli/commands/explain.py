"""`algobot explain`: where a stored row comes from, for a person or, as JSON, for a script."""

from __future__ import annotations

import dataclasses

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.output import DIFFERS, emit, json_option
from algobot_assets.settings import Settings


@click.group()
def explain() -> None:
    """Say where something that is stored comes from."""


@explain.command(short_help="A trade: its signals, inputs, candles and their source.")
@click.argument("trade_id", type=int, metavar="ID")
@json_option
def trade(trade_id: int, as_json: bool) -> None:
    """Lead the trade ID back to its signals, what the strategy saw, its candles and their source.

    The strategy is run again from the recorded state; exits with 5 where its signal is not the stored one.
    """
    from algobot_assets.audit.explain import explain_trade
    from algobot_assets.audit.explain_text import as_text
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        found = explain_trade(store, trade_id)
    emit(dataclasses.asdict(found)) if as_json else click.echo(as_text(found))
    if found.problems:
        raise click.exceptions.Exit(DIFFERS)

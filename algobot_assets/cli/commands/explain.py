"""`algobot explain`: trace a stored row back to its source."""

from __future__ import annotations

import dataclasses

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.output import DIFFERS, emit, json_option
from algobot_assets.settings import Settings


@click.group()
def explain() -> None:
    """Trace stored data back to its source."""


@explain.command(short_help="A trade: its signals, inputs, candles and their source.")
@click.argument("trade_id", type=int, metavar="ID")
@json_option
def trade(trade_id: int, as_json: bool) -> None:
    """Trace trade ID back to its signals, the strategy's inputs, the candles and their source.

    Runs the strategy again from the recorded state. Exit code 5: its signal differs from the stored one.
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

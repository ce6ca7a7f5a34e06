"""`algobot gaps`: list missing candles, and accept stretches that nobody can supply."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.console import print_table
from algobot_assets.cli.days import Day
from algobot_assets.cli.output import emit, json_option, say
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.pipeline.candles.accepted_gaps import AcceptedGap


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def gaps(context: click.Context, as_json: bool) -> None:
    """List stretches without candles, with the reason.

    Reason `unknown`: no file or answer of the source covers the stretch, and nothing after it is computed. Provide the
    files, or accept the stretch as a gap.
    """
    if context.invoked_subcommand is not None:
        return
    from algobot_assets.audit.gaps import every_gap
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        found = every_gap(store)
    if as_json:
        emit({"gaps": found})
    elif found.is_empty():
        click.echo("No candles are missing.")
    else:
        print_table(found.drop("end"), "Stretches without candles (UTC)")


@gaps.command()
@click.argument("market")
@click.argument("first", metavar="FROM", type=Day())
@click.argument("last", metavar="TO", type=Day())
@click.option("--reason", required=True, help="Why nobody can supply these candles; kept with your name.")
@json_option
def accept(market: str, first: date, last: date, reason: str, as_json: bool) -> None:
    """Accept the candles of MARKET that are missing from FROM to TO as a gap.

    The days after it are then computed as after any outage. Candles that arrive later are used all the same.
    """
    from algobot_assets.pipeline.candles.accepted_gaps import accept_gap
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    symbol, interval = _market(market)
    with Store.open(settings) as store:
        gap = accept_gap(store, symbol, interval, first, last, reason)
    if as_json:
        emit({"accepted": _document(symbol, interval, gap)})
    else:
        say(f"{market}: {first} to {last} accepted as a gap by {gap.accepted_by}. Run `algobot refresh` to use it.")


@gaps.command()
@click.argument("market")
@click.argument("first", metavar="FROM", type=Day())
@click.argument("last", metavar="TO", type=Day())
@json_option
def withdraw(market: str, first: date, last: date, as_json: bool) -> None:
    """Undo `accept` for the gaps of MARKET within FROM to TO.

    Their candles are unknown again, and the days after them become stale.
    """
    from algobot_assets.pipeline.candles.accepted_gaps import withdraw_gaps
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    symbol, interval = _market(market)
    with Store.open(settings) as store:
        withdrawn = withdraw_gaps(store, symbol, interval, first, last)
    if as_json:
        emit({"withdrawn": [_document(symbol, interval, gap) for gap in withdrawn]})
    else:
        for gap in withdrawn:
            say(f"{market}: {gap.first} to {gap.last} is unknown again; the days after it are stale.")


def _market(name: str) -> tuple[str, str]:
    symbol, _, interval = name.partition(" ")
    if not symbol or not interval or " " in interval:
        raise SettingsError(f"{name!r} is not a market. Markets are written like 'BTCUSDT 1h', in quotes.")
    return symbol, interval


def _document(symbol: str, interval: str, gap: AcceptedGap) -> dict[str, Any]:
    return {"symbol": symbol, "interval": interval, **vars(gap)}

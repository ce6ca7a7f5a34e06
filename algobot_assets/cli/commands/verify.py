"""`algobot verify`: recompute days and compare them with the database bit by bit."""

from __future__ import annotations

from datetime import date

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.console import with_spinner
from algobot_assets.cli.days import Day
from algobot_assets.cli.output import DIFFERS, emit, json_option
from algobot_assets.settings import Settings


@click.command()
@click.argument("first", type=Day())
@click.argument("last", type=Day(), required=False)
@json_option
def verify(first: date, last: date | None, as_json: bool) -> None:
    """Recompute FIRST to LAST without storing anything and compare with the database bit by bit.

    Exit code 5: something differs. Shows the first difference of each table.
    """
    from algobot_assets.audit.staleness import require_stored
    from algobot_assets.audit.verify import verify as verify_days
    from algobot_assets.pipeline.days import require_days
    from algobot_assets.store.connection import Store

    require_days(first, last or first)
    settings = Settings()
    prepare(settings)
    found = []
    with Store.open(settings) as store:
        require_stored(store, first, last or first)
        for finding in with_spinner(verify_days(store, first, last or first), "recomputing"):
            found.append(finding)
            if not as_json:
                words = f"{finding.table:<20} {finding.days:>7,} days {finding.rows:>11,} rows  "
                click.echo(words + ("equal" if finding.difference is None else f"DIFFERS\n  {finding.difference}"))
    equal = all(finding.difference is None for finding in found)
    if as_json:
        emit({"first": first, "last": last or first, "equal": equal, "tables": [vars(each) for each in found]})
    if not equal:
        raise click.exceptions.Exit(DIFFERS)

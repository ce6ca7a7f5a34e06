"""Commands for old months: retention moves them to the archive, restore brings them back."""

from __future__ import annotations

from datetime import date
from typing import Any

import click

from algobot_assets.cli.database import prepare
from algobot_assets.settings import Settings


class Month(click.ParamType):
    """A month written 2023-01."""

    name = "YYYY-MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Its first day, or a sentence about what was written."""
        if isinstance(value, date):
            return value
        try:
            if len(value) != 7:
                raise ValueError
            return date.fromisoformat(f"{value}-01")
        except ValueError:
            self.fail(f"{value!r} is no month; write it as 2023-01", param, ctx)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say which months are due.")
def retention(dry_run: bool) -> None:
    """Move months older than ALGOBOT_RETENTION_MONTHS (24) to the archive.

    Candles, indicators and signals go to Parquet files, are read back and compared, and then leave the database;
    reading them goes on as before. Exits with 4 where a month that is due cannot go yet.
    """
    from algobot_assets.code import register_code
    from algobot_assets.retention import due, retire
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        months = due(store, settings)
        if not months:
            click.echo(f"No month in the database is older than {settings.retention_months} months.")
            return
        named = ", ".join(f"{month:%Y-%m}" for month in months)
        click.echo(f"Due: {named}. The archive is {store.archive.shown()}.")
        if dry_run:
            return
        register_code(store)
        kept = False
        for outcome in retire(store, settings):
            if outcome.kept is not None:
                kept = True
                click.echo(f"{outcome.month:%Y-%m} stays: {outcome.kept}", err=True)
            elif outcome.moved is not None:
                size = outcome.moved.bytes / 2**20
                click.echo(f"{outcome.month:%Y-%m}  {outcome.moved.rows:>12,} rows  {size:>9,.1f} MB archived")
    if kept:
        raise click.exceptions.Exit(4)


@click.command()
@click.argument("first", type=Month())
@click.argument("last", type=Month(), required=False)
def restore(first: date, last: date | None) -> None:
    """Bring the archived months FIRST to LAST back into the database.

    The rows are the same, with the same ids. The next retention archives them again.
    """
    from algobot_assets.retention import restore as restored
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        for moved in restored(store, first, last or first):
            click.echo(f"{moved.month:%Y-%m}  {moved.rows:>12,} rows in {moved.files} files brought back")

"""Commands for old months: retention moves them to the archive, restore brings them back."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.console import watched
from algobot_assets.cli.output import STALE, emit, json_option, say
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.store.retention.months import Moved


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
@json_option
def retention(dry_run: bool, as_json: bool) -> None:
    """Move months older than ALGOBOT_RETENTION_MONTHS (24) to the archive.

    Candles, indicators and signals go to Parquet files, are read back and compared, and then leave the database;
    reading them goes on as before. Exits with 4 where a month that is due cannot go yet.
    """
    from algobot_assets.pipeline.code_versions import register_code
    from algobot_assets.store.connection import Store
    from algobot_assets.store.retention.policy import archive_due_months, due_months

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        months = due_months(store, settings)
        named = [f"{month:%Y-%m}" for month in months]
        document: dict[str, Any] = {"archive": store.archive.shown(), "due": named, "archived": [], "kept": []}
        if not as_json:
            none = f"No month in the database is older than {settings.retention_months} months."
            click.echo(f"Due: {', '.join(named)}. The archive is {store.archive.shown()}." if named else none)
        if months and not dry_run:
            register_code(store)
            for outcome in watched(archive_due_months(store, settings), "archiving"):
                month = f"{outcome.month:%Y-%m}"
                if outcome.kept is not None:
                    document["kept"].append({"month": month, "why": outcome.kept})
                    say(f"{month} stays: {outcome.kept}")
                elif outcome.moved is not None:
                    document["archived"].append(_moved(outcome.moved))
                    if not as_json:
                        size = outcome.moved.bytes / 2**20
                        click.echo(f"{month}  {outcome.moved.rows:>12,} rows  {size:>9,.1f} MB archived")
    if as_json:
        emit(document)
    if document["kept"]:
        raise click.exceptions.Exit(STALE)


@click.command()
@click.argument("first", type=Month())
@click.argument("last", type=Month(), required=False)
@json_option
def restore(first: date, last: date | None, as_json: bool) -> None:
    """Bring the archived months FIRST to LAST back into the database.

    The rows are the same, with the same ids. The next retention archives them again.
    """
    from algobot_assets.store.connection import Store
    from algobot_assets.store.retention.policy import restore_months

    settings = Settings()
    prepare(settings)
    done = []
    with Store.open(settings) as store:
        for moved in watched(restore_months(store, first, last or first), "bringing back"):
            done.append(_moved(moved))
            if not as_json:
                click.echo(f"{moved.month:%Y-%m}  {moved.rows:>12,} rows in {moved.files} files brought back")
    if as_json:
        emit({"restored": done})


def _moved(moved: Moved) -> dict[str, Any]:
    return {"month": f"{moved.month:%Y-%m}", "rows": moved.rows, "files": moved.files, "bytes": moved.bytes}

"""`algobot retention` and `algobot restore`: move old months to the archive and back."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.console import with_spinner
from algobot_assets.cli.output import STALE, emit, json_option, say
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.store.retention.months import Moved


class Month(click.ParamType[date]):
    """A month, written YYYY-MM."""

    name = "YYYY-MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the first day of the month."""
        if isinstance(value, date):
            return value
        try:
            if len(value) != 7:
                raise ValueError
            return date.fromisoformat(f"{value}-01")
        except ValueError:
            self.fail(f"{value!r} is not a valid month. Use YYYY-MM, for example 2023-01.", param, ctx)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list the months to archive.")
@json_option
def retention(dry_run: bool, as_json: bool) -> None:
    """Move months older than ALGOBOT_RETENTION_MONTHS (24) to the archive.

    Candles, indicators and signals are written to Parquet files, read back and compared, and then dropped from the
    database. They stay readable. Exit code 4: a month is due but cannot be archived yet.
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
            click.echo(f"Due: {', '.join(named)}. Archive: {store.archive.shown()}." if named else none)
        if months and not dry_run:
            register_code(store)
            for outcome in with_spinner(archive_due_months(store, settings), "archiving"):
                month = f"{outcome.month:%Y-%m}"
                if outcome.kept is not None:
                    document["kept"].append({"month": month, "why": outcome.kept})
                    say(f"{month} not archived: {outcome.kept}")
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
    """Restore the archived months FIRST to LAST to the database.

    Rows and ids are unchanged. The next retention archives the months again.
    """
    from algobot_assets.pipeline.days import require_days
    from algobot_assets.store.connection import Store
    from algobot_assets.store.retention.policy import restore_months

    require_days(first, last or first)

    settings = Settings()
    prepare(settings)
    done = []
    with Store.open(settings) as store:
        for moved in with_spinner(restore_months(store, first, last or first), "restoring"):
            done.append(_moved(moved))
            if not as_json:
                click.echo(f"{moved.month:%Y-%m}  {moved.rows:>12,} rows in {moved.files} files restored")
    if as_json:
        emit({"restored": done})


def _moved(moved: Moved) -> dict[str, Any]:
    return {"month": f"{moved.month:%Y-%m}", "rows": moved.rows, "files": moved.files, "bytes": moved.bytes}

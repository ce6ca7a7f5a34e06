"""`algobot db`: manage the embedded server and the schema."""

from __future__ import annotations

import click

from algobot_assets.cli import interrupts
from algobot_assets.cli.output import NOT_RUNNING, emit, json_option
from algobot_assets.settings import Settings


@click.group()
def db() -> None:
    """Start, stop and migrate the database."""


@db.command(short_help="Start the embedded server, or check yours; migrate.")
def start() -> None:
    """Start the embedded PostgreSQL, or check the server of ALGOBOT_DATABASE_URL; migrate."""
    prepare(Settings())
    _show_status(as_json=False)


@db.command()
def stop() -> None:
    """Stop the embedded PostgreSQL; its data stays."""
    from algobot_assets.store.server import control as server

    stopped = server.stop(Settings())
    click.echo("Stopped." if stopped else "No embedded server was running.")


@db.command()
@json_option
def status(as_json: bool) -> None:
    """Show whether the server is running, where, and its schema revision.

    Exit code 3: it is not running.
    """
    _show_status(as_json)


@db.command()
def migrate() -> None:
    """Migrate the schema to this version and set the rights of its roles."""
    from algobot_assets.store import roles
    from algobot_assets.store.server.choose import data_database

    prepare(Settings())
    click.echo("The schema is up to date.")
    with data_database(Settings()).connect() as connection:
        made = roles.establish(connection)
        found = made or roles.recorded(connection)
    if made is None:
        click.echo("This login may not create or grant roles. Give an administrator the output of: algobot db grants")
    if found is not None:
        click.echo(f"Runs write as {found.writer}, clients read as {found.reader}, {found.owner} owns the tables.")


@db.command()
def grants() -> None:
    """Print the SQL that creates the roles and grants their rights."""
    from algobot_assets.store import roles
    from algobot_assets.store.server.choose import data_database

    with data_database(Settings(), create=False).connect() as connection:
        click.echo(roles.script(connection))


@db.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the meaning of every table and column as Markdown.

    docs/schema.md is its output. Needs no server.
    """
    from algobot_assets.schema.document import schema_document, schema_page

    emit(schema_document()) if as_json else click.echo(schema_page(), nl=False)


def prepare(settings: Settings) -> None:
    """Start the server, create and migrate the database: the first step of every command that needs them."""
    from algobot_assets.store import catalogue
    from algobot_assets.store import migrate as migrations
    from algobot_assets.store.connection import Store
    from algobot_assets.store.month_partitions import coming_months, ensure_months
    from algobot_assets.store.server.choose import data_database

    with interrupts.deferred():
        database = data_database(settings)
        database.ensure_database()
        url = database.sqlalchemy_url()
        current, head = migrations.current_and_head(url)
        if current != head:
            migrations.upgrade(url)
        with Store(database) as store:
            with store.transaction() as connection:
                today = catalogue.now(connection).date()
            ensure_months(store, coming_months(today))


def _show_status(as_json: bool) -> None:
    from algobot_assets.store import migrate as migrations
    from algobot_assets.store.server import control as server
    from algobot_assets.store.server.choose import data_database
    from algobot_assets.store.server.cluster import ROLE

    settings = Settings()
    found = server.status(settings)
    kind = "Embedded PostgreSQL" if found.embedded else "PostgreSQL"
    current = head = conninfo = None
    if found.running:
        database = data_database(settings)
        current, head = migrations.current_and_head(database.sqlalchemy_url())
        if found.embedded:
            conninfo = f"host={found.location} user={ROLE} dbname={database.name}"
    if as_json:
        emit({**vars(found), "conninfo": conninfo, "schema": current, "schema_wanted": head})
        if not found.running:
            raise click.exceptions.Exit(NOT_RUNNING)
        return
    if not found.running:
        click.echo(f"{kind} at {found.location} is not running. {found.problem or 'Start it: algobot db start'}")
        raise click.exceptions.Exit(NOT_RUNNING)
    click.echo(f"{kind} {found.version or ''} is running at {found.location}.")
    if found.data is not None:
        click.echo(f"Data: {found.data} (process {found.pid}, user {found.account}).")
        click.echo(f"SQL prompt: psql '{conninfo}'")
    click.echo(
        f"Schema revision {current or 'none'}"
        + ("" if current == head else f". To migrate to {head}: algobot db migrate")
        + "."
    )

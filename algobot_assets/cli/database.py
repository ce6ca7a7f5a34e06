"""`algobot db`: the embedded server and the schema."""

from __future__ import annotations

import click

from algobot_assets.settings import Settings


@click.group()
def db() -> None:
    """Start, stop and migrate the database."""


@db.command()
def start() -> None:
    """Start the embedded PostgreSQL, or check the one of ALGOBOT_DATABASE_URL, and migrate."""
    prepare(Settings())
    _show_status()


@db.command()
def stop() -> None:
    """Stop the embedded PostgreSQL; its data stays."""
    from algobot_assets.store import server

    stopped = server.stop(Settings())
    click.echo("Stopped." if stopped else "No embedded server was running.")


@db.command()
def status() -> None:
    """Say whether the server runs, where, and which schema it has."""
    _show_status()


@db.command()
def migrate() -> None:
    """Bring the schema to what this version needs."""
    prepare(Settings())
    click.echo("The schema is up to date.")


def prepare(settings: Settings) -> None:
    """Server started, database made and migrated: what every command that needs the database begins with."""
    from algobot_assets.store import migrate as migrations
    from algobot_assets.store.connection import Store
    from algobot_assets.store.database import data_database
    from algobot_assets.store.partitions import coming_months, ensure_months

    database = data_database(settings)
    database.ensure_database()
    url = database.sqlalchemy_url()
    current, head = migrations.current_and_head(url)
    if current != head:
        migrations.upgrade(url)
    with Store(database) as store:
        with store.transaction() as connection:
            today = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()[0]
        ensure_months(store, coming_months(today))


def _show_status() -> None:
    from algobot_assets.store import migrate as migrations
    from algobot_assets.store import server
    from algobot_assets.store.database import data_database

    settings = Settings()
    found = server.status(settings)
    kind = "Embedded PostgreSQL" if found.embedded else "PostgreSQL"
    if not found.running:
        click.echo(f"{kind} at {found.location} is not running. {found.problem or 'Start it: algobot db start'}")
        raise click.exceptions.Exit(3)
    click.echo(f"{kind} {found.version or ''} runs at {found.location}.")
    if found.data is not None:
        click.echo(f"Its data is in {found.data} (process {found.pid}, user {found.account}).")
    current, head = migrations.current_and_head(data_database(settings).sqlalchemy_url())
    click.echo(
        f"Schema revision {current or 'none'}"
        + ("" if current == head else f"; run algobot db migrate for {head}")
        + "."
    )

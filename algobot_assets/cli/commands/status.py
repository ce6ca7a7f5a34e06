"""`algobot status`: stored data, its freshness, and the health of the database."""

from __future__ import annotations

from datetime import timedelta

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.console import print_table
from algobot_assets.cli.output import STALE, emit, json_option, say
from algobot_assets.settings import Settings


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show what is stored and how fresh it is, the newest results, and the database's health.

    Exit code 4: something is stale.
    """
    from algobot_assets.audit.staleness import stale_counts
    from algobot_assets.cli.summary import Summary, health_document, show_health
    from algobot_assets.pipeline.code_versions import register_code
    from algobot_assets.store import health
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        register_code(store)
        summary = Summary.read(store)
        counts = stale_counts(store)
        measured = health.measure(store, [settings.dagster_database])
        before = health.figures_before(store, timedelta(days=7))
    judged = list(health.find_problems(measured))
    if as_json:
        figures = health_document(measured, before)
        emit({**summary.document(), "health": figures, "warnings": judged, "stale": counts})
    else:
        summary.show()
        summary.show_doubts()
        show_health(measured, before)
        for sentence in judged:
            say(f"Warning: {sentence}")
        if counts.is_empty():
            click.echo("Nothing is stale.")
        else:
            print_table(counts, "Stale partitions (to recompute them: algobot refresh)")
    if not counts.is_empty():
        raise click.exceptions.Exit(STALE)

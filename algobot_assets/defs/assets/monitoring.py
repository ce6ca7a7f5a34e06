"""The asset database_health: figures of the database over time, and checks of their thresholds.

It has no partitions, and nothing is computed from it. store/health.py defines figures and thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import dagster as dg
import polars as pl

from algobot_assets.defs.instance.records import drift, materialised
from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.schema.tables import NINE
from algobot_assets.settings import Settings
from algobot_assets.store import health
from algobot_assets.store.connection import Store

THRESHOLDS, AGREES = "within_thresholds", "catalogue_agrees"


def recorded_partitions(store: Store) -> dict[str, set[date]]:
    """Return the days of each of the nine tables that lineage records."""
    with store.transaction() as connection:
        rows = connection.execute("SELECT DISTINCT table_name, day FROM lineage").fetchall()
    found: dict[str, set[date]] = {table: set() for table in NINE}
    for table, day in rows:
        found[table].add(day)
    return found


def drift_sentences(store: Store, dagster_database: str) -> list[str]:
    """Return a message for each range of days on which lineage and Dagster's catalogue disagree."""
    catalogued = materialised(store.database, dagster_database, NINE)
    sentences = []
    for table, (only_dagster, only_lineage) in drift(recorded_partitions(store), catalogued).items():
        for first, last in only_dagster:
            sentences.append(
                f"{table} {first} to {last}: Dagster calls these days materialised, but the database has no record "
                f"of them. Run `algobot backfill {first} {last}`."
            )
        for first, last in only_lineage:
            sentences.append(
                f"{table} {first} to {last}: the database has these days, but Dagster does not know them. Run "
                f"`algobot backfill {first} {last} --table {table}`; fresh days are not recomputed."
            )
    return sentences


def _database_health(
    context: dg.AssetExecutionContext, database: DatabaseResource
) -> Iterator[dg.MaterializeResult[None]]:
    settings = Settings()
    found = health.measure(database.store, [settings.dagster_database])
    health.record(database.store, found)
    exceeded = health.find_problems(found)
    drifted = drift_sentences(database.store, settings.dagster_database)
    yield dg.MaterializeResult(
        asset_key="database_health",
        metadata=_metadata(found),
        check_results=[
            _result(THRESHOLDS, exceeded, "All figures are within their thresholds."),
            _result(AGREES, drifted, "Dagster's catalogue and lineage record the same days."),
        ],
    )


def _result(name: str, sentences: list[str], otherwise: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        passed=not sentences,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(sentences) or otherwise,
        metadata={"found": len(sentences)},
    )


def _metadata(found: health.Health) -> dict[str, dg.MetadataValue]:
    """Return the figures as numbers, which Dagster plots over time, and the details as tables."""
    metadata: dict[str, dg.MetadataValue] = {}
    for item in found.measures:
        name = f"{item.name} {item.subject}".strip().replace("_", " ")
        metadata[name] = dg.MetadataValue.float(round(float(item.value), 4))
    lists = {
        "partitions": found.leaves.sort("bytes", descending=True).head(40),
        "unused indexes": found.unused_indexes,
        "slowest statements": found.statements,
    }
    for name, frame in lists.items():
        if frame is None:
            metadata[name] = dg.MetadataValue.text("The extension pg_stat_statements is not installed.")
        elif frame.height:
            metadata[name] = dg.MetadataValue.md(_markdown(frame))
    return metadata


def _markdown(frame: pl.DataFrame) -> str:
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * frame.width]
    for row in frame.iter_rows():
        lines.append("| " + " | ".join(str(value).replace("|", "\\|") for value in row) + " |")
    return "\n".join(lines)


# Dagster reads this annotation without resolving it
_database_health.__annotations__["context"] = dg.AssetExecutionContext
database_health = dg.multi_asset(
    name="database_health",
    specs=[
        dg.AssetSpec(
            "database_health",
            group_name="monitoring",
            kinds={"postgres"},
            owners=["team:data"],
            description="Sizes, rows per partition, dead rows, cache hit ratio, unused indexes, slowest statements, "
            "connections, partitions ahead and the age of the newest candles. Table health_history keeps their "
            "history.",
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            THRESHOLDS,
            asset="database_health",
            description="No figure of the database exceeds its threshold; messages say what to do.",
        ),
        dg.AssetCheckSpec(
            AGREES,
            asset="database_health",
            description="Dagster calls the same days materialised as lineage records, table by table.",
        ),
    ],
)(_database_health)

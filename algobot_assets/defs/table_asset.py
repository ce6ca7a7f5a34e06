"""Turn a generator of window frames into the Dagster asset of a table.

The asset gets partitions, a backfill policy, catalog metadata, and a check that names every skipped market.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.types.dagster_type import resolve_dagster_type
from pydantic import Field
from sqlalchemy.dialects import postgresql

from algobot_assets.defs.io_manager import run_days
from algobot_assets.defs.partitions import daily
from algobot_assets.defs.resources import DatabaseResource, FeedResource, StateResource
from algobot_assets.pipeline.skipped import Skipped, by_cause
from algobot_assets.pipeline.steps.frames import Frames, WindowFrame
from algobot_assets.pipeline.steps.run import RunOptions, TableRun, upstream_of
from algobot_assets.schema.column_lineage import COLUMN_LINEAGE
from algobot_assets.schema.tables import metadata
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store

CHECK = "every_market_proceeded"
OWNERS = ("team:data",)
#: Metadata of the check: the skipped markets, in the form of `Skipped.document`.
_SKIPPED = "what was skipped"
DIALECT: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
_PERIOD = timedelta(minutes=Settings().refresh_minutes)
#: Every refresh materialises today for every table. The catalog flags a table that missed several refreshes.
FRESH = dg.FreshnessPolicy.time_window(fail_window=24 * _PERIOD, warn_window=6 * _PERIOD)


class MarketConfig(dg.Config):
    """Run configuration of the tables computed per market."""

    markets: list[str] = Field(default_factory=list)
    """Only these markets, such as "BTCUSDT 1m"; empty: all."""


class CandleConfig(MarketConfig):
    """Run configuration of market_data."""

    from_source: bool = False
    """Fetch complete days again and store what the source has now."""
    check_archives: bool = False
    """Compare the checksums of loaded files with the published ones, and fetch the days of replaced files again."""


class DeclaredConfig(dg.Config):
    """Run configuration of the reference tables."""

    rewrite: bool = False
    """Overwrite stored versions that differ; everything computed from them becomes stale."""


class RecomputeConfig(MarketConfig):
    """Run configuration of the computed tables."""

    recompute: bool = False
    """Recompute days even if none of their inputs has changed."""


def table_asset(
    *,
    group: str,
    kinds: Sequence[str],
    description: str,
    code_version: str,
    tags: Mapping[str, str] | None = None,
    config_class: type[dg.Config] = RecomputeConfig,
    pool: str | None = None,
    before: Callable[[Store], None] = lambda store: None,
) -> Callable[[Callable[..., Iterator[WindowFrame]]], dg.AssetsDefinition]:
    """Turn the decorated generator ``body(run: TableRun, **upstream: Table)`` into the asset of the table it names.

    The IO manager loads each further parameter of the body, an upstream table, as annotated. The run fails if every
    market was skipped; if only some were, the check names them. ``before`` tidies up the stored rows before a run
    computes anything. ``pool`` limits how many queued runs may hold an asset of that pool (dagster.yaml).
    """

    def decorate(body: Callable[..., Iterator[WindowFrame]]) -> dg.AssetsDefinition:
        table = body.__name__
        hints = typing.get_type_hints(body)
        upstream = upstream_of(body)

        def asset(
            context: dg.AssetExecutionContext,
            config: dg.Config,
            database: DatabaseResource,
            feed: FeedResource,
            state: StateResource,
            **inputs: Any,
        ) -> Iterator[dg.Output[Frames] | dg.AssetCheckResult]:
            before(database.store)
            options = RunOptions(**config.model_dump())
            days = run_days(context, table)
            run = TableRun(table, database.store, *days, context.log, options, feed.feed, state.file)
            yield dg.Output(run.frames(body(run, **inputs)), output_name=table)
            yield dg.AssetCheckResult(
                check_name=CHECK,
                asset_key=table,
                passed=not run.skipped,
                severity=dg.AssetCheckSeverity.WARN,
                description="\n".join(by_cause(run.skipped)) or "No market was skipped.",
                metadata={
                    "skipped": len(run.skipped),
                    "left out": len(run.skipped),  # the old name, for one version
                    "days": run.day_counts.days,
                    "days computed": run.day_counts.computed,
                    _SKIPPED: dg.MetadataValue.json([item.document() for item in run.skipped]),
                },
            )

        # Dagster reads these annotations without resolving them, and only this line knows the class of the options
        asset.__annotations__.update(context=dg.AssetExecutionContext, config=config_class)
        return dg.multi_asset(
            name=table,
            outs={
                table: dg.AssetOut(
                    dagster_type=dg.Any,
                    description=description,
                    group_name=group,
                    code_version=code_version,
                    kinds={"postgres", *kinds},
                    owners=list(OWNERS),
                    tags=dict(tags or {}),
                    metadata=catalog_metadata(table),
                    io_manager_key="io_manager",
                    freshness_policy=FRESH,
                )
            },
            ins={name: dg.AssetIn(key=name, dagster_type=resolve_dagster_type(hints[name])) for name in upstream},
            partitions_def=daily,
            backfill_policy=dg.BackfillPolicy.single_run(),
            pool=pool,
            check_specs=[
                dg.AssetCheckSpec(
                    CHECK, asset=table, description="No market or strategy had to be skipped in the run's days."
                )
            ],
        )(asset)

    return decorate


def failed_checks(evaluations: Iterable[dg.AssetCheckEvaluation]) -> list[str]:
    """Return the messages of a run's failed checks, one line per cause, whichever tables it stopped."""
    skipped: list[Skipped] = []
    lines: list[str] = []
    for evaluation in evaluations:
        if evaluation.passed:
            continue
        documents = evaluation.metadata.get(_SKIPPED)
        if not isinstance(documents, dg.JsonMetadataValue) or not isinstance(documents.data, list):
            lines += (evaluation.description or "").splitlines()
        else:
            skipped += [Skipped.read(document) for document in documents.data]
    return list(dict.fromkeys([*by_cause(skipped), *lines]))


def catalog_metadata(table: str) -> dict[str, Any]:
    """Return the table's name and columns for Dagster's catalog, described by the schema's comments."""
    columns = [
        dg.TableColumn(
            column.name,
            str(column.type.compile(dialect=DIALECT)),
            _describe(table, column),
            dg.TableColumnConstraints(nullable=bool(column.nullable), unique=bool(column.unique)),
        )
        for column in metadata.tables[table].columns
    ]
    return {
        "dagster/table_name": f"public.{table}",
        "dagster/storage_kind": "postgres",
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }


def _describe(table: str, column: sa.Column[Any]) -> str | None:
    """Return the column's comment and its sources: the open-source UI does not show column lineage."""
    sources = COLUMN_LINEAGE.get(table, {}).get(column.name, ())
    if not sources:
        return column.comment
    return f"{column.comment} From {', '.join(f'{source}.{name}' for source, name in sources)}."

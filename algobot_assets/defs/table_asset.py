"""The factory that makes a table asset: what all nine have in common.

An asset module writes one generator of window frames per table; here it becomes a Dagster asset with its
partitions, backfill policy, catalog metadata, and the check that names every market that could not proceed.
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
from algobot_assets.pipeline.frames import Frames, WindowFrame
from algobot_assets.pipeline.run import RunOptions, TableRun, upstream_of
from algobot_assets.pipeline.skipped import Skipped, by_cause
from algobot_assets.schema.column_lineage import COLUMN_LINEAGE
from algobot_assets.schema.tables import metadata
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store

CHECK = "every_market_proceeded"
OWNERS = ("team:data",)
#: Metadata of the check: what was skipped, as `Skipped.document` gives it.
_SKIPPED = "what was skipped"
_PERIOD = timedelta(minutes=Settings().refresh_minutes)
#: Every refresh materialises today of every table; several in a row that did not are shown in the catalog.
FRESH = dg.FreshnessPolicy.time_window(fail_window=24 * _PERIOD, warn_window=6 * _PERIOD)


class MarketConfig(dg.Config):
    """Run configuration of the tables that go market by market."""

    markets: list[str] = Field(default_factory=list)
    """Only these markets, written "BTCUSDT 1m"; empty: all."""


class CandleConfig(MarketConfig):
    """Run configuration of market_data."""

    from_source: bool = False
    """Ask the source again for days that are stored complete, and take what it says now."""
    check_archives: bool = False
    """Compare the checksums of the files behind stored days with those published now; where a file has been
    replaced, fetch its days again."""


class DeclaredConfig(dg.Config):
    """Run configuration of the reference tables."""

    rewrite: bool = False
    """Correct versions that are stored with other values; what was computed from them becomes stale."""


class RecomputeConfig(MarketConfig):
    """Run configuration of the computed tables."""

    recompute: bool = False
    """Compute days again even where nothing they were computed from has changed."""


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
    """Decorator: a generator ``body(run: TableRun, **upstream: Table)`` becomes the asset of the table of its name.

    Every other parameter of the body is an upstream asset, handed over by the IO manager as its annotation says.
    The run fails with its sentences where no market could proceed; where some could, the check names the others.
    ``before``: puts in order what is stored, before a run of the asset computes anything.
    ``pool``: runs of the queue that have an asset of it are bounded (dagster.yaml).
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
        ) -> Iterator[dg.Output | dg.AssetCheckResult]:
            before(database.store)
            options = RunOptions(**config.model_dump())
            days = run_days(context, table)
            run = TableRun(table, database.store, *days, context.log, options, feed.feed, state.file)
            yield dg.Output(Frames(run.frames(body(run, **inputs))), output_name=table)
            yield dg.AssetCheckResult(
                check_name=CHECK,
                asset_key=table,
                passed=not run.skipped,
                severity=dg.AssetCheckSeverity.WARN,
                description="\n".join(by_cause(run.skipped)) or "All markets proceeded.",
                metadata={
                    "skipped": len(run.skipped),
                    "left out": len(run.skipped),  # the old name, for one version
                    "days": run.day_counts.days,
                    "days computed": run.day_counts.computed,
                    _SKIPPED: dg.MetadataValue.json([item.document() for item in run.skipped]),
                },
            )

        # Dagster reads these two before it resolves annotations; the options are known only here
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
                    CHECK, asset=table, description="Every market or strategy of the run's days could be computed."
                )
            ],
        )(asset)

    return decorate


def failed_checks(evaluations: Iterable[dg.AssetCheckEvaluation]) -> list[str]:
    """What the failed checks of a run say, one line per cause, whichever tables it stopped."""
    skipped: list[Skipped] = []
    lines: list[str] = []
    for evaluation in evaluations:
        if evaluation.passed:
            continue
        documents = evaluation.metadata.get(_SKIPPED)
        if documents is None:
            lines += (evaluation.description or "").splitlines()
        else:
            skipped += [Skipped.read(document) for document in documents.value]
    return list(dict.fromkeys([*by_cause(skipped), *lines]))


def catalog_metadata(table: str) -> dict[str, Any]:
    """Table name and columns for Dagster's catalog, from the schema's comments."""
    columns = [
        dg.TableColumn(
            column.name,
            str(column.type.compile(dialect=postgresql.dialect())),
            _described(table, column),
            dg.TableColumnConstraints(nullable=bool(column.nullable), unique=bool(column.unique)),
        )
        for column in metadata.tables[table].columns
    ]
    return {
        "dagster/table_name": f"public.{table}",
        "dagster/storage_kind": "postgres",
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }


def _described(table: str, column: sa.Column) -> str:
    """The comment, and what the column is computed from: the open-source UI draws no lineage of columns."""
    sources = COLUMN_LINEAGE.get(table, {}).get(column.name, ())
    if not sources:
        return column.comment
    return f"{column.comment} From {', '.join(f'{source}.{name}' for source, name in sources)}."

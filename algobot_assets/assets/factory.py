"""The factory that makes a table asset: what all nine have in common.

An asset module writes one generator of window frames per table; here it becomes a Dagster asset with its
partitions, backfill policy, catalog metadata, and the check that names every market that could not proceed.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from logging import Logger
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.types.dagster_type import resolve_dagster_type
from pydantic import Field
from sqlalchemy.dialects import postgresql

from algobot_assets.assets.chain import Tally
from algobot_assets.assets.partitions import daily
from algobot_assets.errors import AlgobotError, ArchivedError, WindowError
from algobot_assets.io_manager import run_days
from algobot_assets.resources import DatabaseResource, FeedResource, StateResource
from algobot_assets.schema.column_lineage import COLUMN_LINEAGE
from algobot_assets.schema.tables import MONTHLY, metadata
from algobot_assets.settings import Settings
from algobot_assets.store import writer
from algobot_assets.store.connection import Store
from algobot_assets.windows import Frames, WindowFrame

CHECK = "every_market_proceeded"
OWNERS = ("team:data",)
_PERIOD = timedelta(minutes=Settings().refresh_minutes)
#: Every refresh materialises today of every table; several in a row that did not are shown in the catalog.
FRESH = dg.FreshnessPolicy.time_window(fail_window=24 * _PERIOD, warn_window=6 * _PERIOD)


@dataclass
class TableRun:
    """One table in one run: the days [first, end), what it works with, and whom it had to leave out."""

    table: str
    store: Store
    first: date
    end: date
    log: Logger
    options: Any
    feed: FeedResource
    state: StateResource
    refusals: list[str] = field(default_factory=list)
    proceeded: int = 0
    tally: Tally = field(default_factory=Tally)

    def refuse(self, sentence: str) -> None:
        """Leave a market or strategy out; the sentence says why and what to do, and fails the run's check."""
        self.refusals.append(sentence)
        self.log.warning(sentence)

    def takes(self, symbol: str, interval: str) -> bool:
        """Whether the run is about this market."""
        return not self.options.markets or f"{symbol} {interval}" in self.options.markets

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Say which of the markets that were asked for are none of ``known``."""
        for name in sorted(set(self.options.markets) - set(known)):
            self.refuse(f"{self.table} knows no market {name!r}; write one as {min(known, default='BTCUSDT 1m')!r}.")


class MarketOptions(dg.Config):
    """Run configuration of the tables that go market by market."""

    markets: list[str] = Field(default_factory=list)
    """Only these markets, written "BTCUSDT 1m"; empty: all."""


class RecomputeOptions(MarketOptions):
    """Run configuration of the computed tables."""

    recompute: bool = False
    """Compute days again even where nothing they were computed from has changed."""


@dataclass(frozen=True)
class Body:
    """What an asset module wrote for a table, and the names of the assets it reads."""

    function: Callable[..., Iterator[WindowFrame]]
    upstream: tuple[str, ...]


#: The bodies by table, for those who compute without storing.
BODIES: dict[str, Body] = {}


def table_asset(
    *,
    group: str,
    kinds: Sequence[str],
    description: str,
    code_version: str,
    tags: Mapping[str, str] | None = None,
    options: type[dg.Config] = RecomputeOptions,
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
        upstream = tuple(name for name in inspect.signature(body).parameters if name != "run")
        BODIES[table] = Body(body, upstream)

        def asset(
            context: dg.AssetExecutionContext,
            config: dg.Config,
            database: DatabaseResource,
            feed: FeedResource,
            state: StateResource,
            **inputs: Any,
        ) -> Iterator[dg.Output | dg.AssetCheckResult]:
            before(database.store)
            run = TableRun(table, database.store, *run_days(context, table), context.log, config, feed, state)
            yield dg.Output(Frames(_guarded(run, body(run, **inputs))), output_name=table)
            yield dg.AssetCheckResult(
                check_name=CHECK,
                asset_key=table,
                passed=not run.refusals,
                severity=dg.AssetCheckSeverity.WARN,
                description="\n".join(run.refusals) or "All markets proceeded.",
                metadata={"left out": len(run.refusals), "days": run.tally.days, "days computed": run.tally.computed},
            )

        # Dagster reads these two before it resolves annotations; the options are known only here
        asset.__annotations__.update(context=dg.AssetExecutionContext, config=options)
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


def _guarded(run: TableRun, frames: Iterator[WindowFrame]) -> Iterator[WindowFrame]:
    """The frames; an error at the end where nothing could proceed at all."""
    yield from frames
    if run.refusals and not run.proceeded:
        raise WindowError("\n".join(run.refusals))


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


def side_by_side(streams: Sequence[Iterator[WindowFrame]]) -> Iterator[WindowFrame]:
    """One frame of each stream after the other, until all have ended.

    Strategies of one market go on month by month together, so that a month of candles is read once for all.
    """
    left = list(streams)
    while left:
        for stream in tuple(left):
            frame = next(stream, None)
            if frame is None:
                left.remove(stream)
            else:
                yield frame


def attempt(run: TableRun, frames: Iterator[WindowFrame]) -> Iterator[WindowFrame]:
    """The frames of one market; an error meant for people leaves the market out, and the others go on.

    So does a frame that would change rows of an archived month.
    """
    began = False
    try:
        for item in frames:
            refuse_archived(run.store, item)
            began = True
            yield item
    except ArchivedError as error:
        run.proceeded -= not began
        run.refuse(str(error))
    except AlgobotError as error:
        run.refuse(str(error))


def refuse_archived(store: Store, item: WindowFrame) -> None:
    """ArchivedError where the frame would change rows of an archived month, so that only its market is left out."""
    if item.window.table in MONTHLY:
        with store.transaction() as connection:
            writer.refuse_archived(connection, item.window, item.frame, item.days)

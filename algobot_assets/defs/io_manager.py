"""Store the rows that assets return for the run's days, and load their inputs.

An asset may return a Polars frame of the run's days or ``Frames``. An input is loaded as ``Table``, ``pl.DataFrame``
or ``pl.LazyFrame``, depending on its annotation.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
from pydantic import PrivateAttr

from algobot_assets.errors import WindowError
from algobot_assets.pipeline.steps.frames import Frames, joined
from algobot_assets.pipeline.steps.parallel_writes import write_frames
from algobot_assets.pipeline.table import Table, split
from algobot_assets.schema.column_lineage import COLUMN_LINEAGE
from algobot_assets.schema.tables import MONTHLY, NINE
from algobot_assets.schema.windows import WINDOWING
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.month_partitions import vacuum_months
from algobot_assets.store.writer import months_of

#: For progress bars in the same process: one record when a table starts, one per window, one when it ends.
LOG = logging.getLogger("algobot.windows")
#: Number of rows inserted into a leaf that triggers new statistics after the run's writes.
_BULK = 1_000


def run_days(context: dg.OutputContext | dg.InputContext | dg.AssetExecutionContext, table: str) -> tuple[date, date]:
    """Return the run's days [first, end). WindowError if the run has no partition."""
    if isinstance(context, dg.AssetExecutionContext):
        partitioned = context.has_partition_key_range or context.has_partition_key
    else:
        partitioned = context.has_asset_partitions or getattr(context, "has_partition_key", False)
    if not partitioned:
        raise WindowError(
            f"{table} needs a partition. Choose a day or a range of days (in the UI: Materialize, then the days; in "
            'code: partition_key="2024-01-31").'
        )
    if isinstance(context, dg.AssetExecutionContext):
        window = context.partition_time_window
    else:
        window = context.asset_partitions_time_window
    return window.start.date(), window.end.date()


class PostgresIOManager(dg.ConfigurableIOManager):
    """IO manager of the nine tables. It takes the database from the settings and needs no configuration."""

    # not a nested DatabaseResource: Dagster 1.13 emits a warning of its own when a run opens one
    _store: Store | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[PostgresIOManager]:
        """Open the store for the duration of the run."""
        with Store.open(run_id=context.run.run_id if context.run else "") as store:
            self._store = store
            yield self

    @property
    def store(self) -> Store:
        """The store of this run."""
        if self._store is None:
            raise RuntimeError("the IO manager was used outside a run")
        return self._store

    def handle_output(self, context: dg.OutputContext, obj: Frames | pl.DataFrame | pl.LazyFrame) -> None:
        """Write the asset's output for the run's days, one transaction per window."""
        table = self._table(context)
        first, end = run_days(context, table)
        store = self.store
        if isinstance(obj, pl.LazyFrame):
            obj = obj.collect()
        if isinstance(obj, pl.DataFrame):
            obj = split(store, table, first, end, obj)
        if not isinstance(obj, Frames):
            raise WindowError(f"{table} returned {type(obj).__name__}; return a Polars frame or Frames.")
        totals: Counter[str] = Counter()
        loaded: set[date] = set()
        sample: pl.DataFrame | None = None
        LOG.info("table", extra={"table": table})
        for done in write_frames(store, joined(obj) if WINDOWING[table].time == "day" else obj):
            written = done.written
            totals.update(
                inserted=written.inserted,
                updated=written.updated,
                deleted=written.deleted,
                windows=len(done.items) - len(written.errors),
                ms=int(done.seconds * 1000),
            )
            for position, error in written.errors.items():
                obj.refuse(done.items[position], error)
            for item in done.items:
                if table in MONTHLY and written.inserted > _BULK:
                    loaded.update(months_of(item.window))
                if item.frame.height:
                    sample = item.frame.tail(5)
                extra = {"table": table, "rows": item.frame.height, "days": f"{item.window.first:%Y-%m}"}
                LOG.info("window", extra=extra)
            if done.items:
                more = f" and {len(done.items) - 1} more windows" if len(done.items) > 1 else ""
                context.log.info(
                    f"{done.items[0].window}{more}: rows={written.rows} inserted={written.inserted} "
                    f"updated={written.updated} deleted={written.deleted} seconds={done.seconds:.3f}"
                )
        if loaded:
            vacuum_months(store, table, sorted(loaded))
        LOG.info("table", extra={"table": table, "finished": True})
        obj.finish()
        with store.transaction() as connection:
            per_day = lineage.rows_by_day(connection, table, first, end)
        self._add_metadata(context, per_day, totals, sample)

    def _add_metadata(
        self, context: dg.OutputContext, per_day: Mapping[date, int], totals: Counter[str], sample: pl.DataFrame | None
    ) -> None:
        metadata: dict[str, Any] = {f"rows {name}": totals[name] for name in ("inserted", "updated", "deleted")}
        metadata["windows written"] = totals["windows"]
        metadata["seconds writing"] = totals["ms"] / 1000
        if sample is not None:
            metadata["preview"] = dg.MetadataValue.md(_markdown(sample))
        columns = column_lineage(context.asset_key.path[-1])
        if columns is not None:
            metadata["dagster/column_lineage"] = columns
        # metadata of the whole run is logged with its last day; Dagster would repeat output metadata for every day
        last = max(context.asset_partition_keys)
        for key in context.asset_partition_keys:
            count = per_day.get(date.fromisoformat(key))
            found = {} if count is None else {"dagster/partition_row_count": count}
            if key == last:
                found |= metadata
            if found:
                context.step_context.add_asset_metadata(found, asset_key=context.asset_key, partition_key=key)

    def load_input(self, context: dg.InputContext) -> Table | pl.DataFrame | pl.LazyFrame:
        """Load the upstream table for the run's days as annotated: Table, DataFrame (default) or LazyFrame."""
        table = self._table(context)
        first, end = run_days(context, table)
        handle = Table(self.store, table, first, end)
        kind = context.dagster_type.typing_type
        if kind is Table:
            return handle
        return handle.lazy() if kind is pl.LazyFrame else handle.frame()

    @staticmethod
    def _table(context: dg.OutputContext | dg.InputContext) -> str:
        table = context.asset_key.path[-1]
        if table not in NINE:
            raise WindowError(f"{table} is not a table of this platform. The IO manager stores {', '.join(NINE)}.")
        return table


def column_lineage(table: str) -> dg.TableColumnLineage | None:
    """Return the column lineage of a table for Dagster's catalog."""
    known = COLUMN_LINEAGE.get(table)
    if known is None:
        return None
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=source, column_name=name) for source, name in sources]
            for column, sources in known.items()
        }
    )


def _markdown(frame: pl.DataFrame) -> str:
    """Format the rows as a Markdown table."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * frame.width]
    lines += ["| " + " | ".join("" if v is None else str(v) for v in row) + " |" for row in frame.iter_rows()]
    return "\n".join(lines)

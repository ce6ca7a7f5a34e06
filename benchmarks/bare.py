"""COPY BINARY of the rows that a run writes, beside the run's own writing: the floor of every table's window."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

import polars as pl
import psycopg
from pgpq import ArrowToPostgresBinaryEncoder

from algobot_assets.pipeline import parallel_writes as lanes
from algobot_assets.schema.intervals import months_between
from algobot_assets.schema.windows import WINDOWING, Window
from algobot_assets.store.connection import Store
from algobot_assets.store.reader import read_window
from benchmarks.harness import Stages
from benchmarks.year import COPIED, FIRST


def copied(store: Store, table: str, frame: pl.DataFrame) -> float:
    """Seconds of one transaction that does nothing but COPY BINARY of buffers that are ready."""
    arrow = frame.to_arrow()
    encoder = ArrowToPostgresBinaryEncoder(arrow.schema)
    buffers = [encoder.write_header(), *map(encoder.write_batch, arrow.to_batches(65_536)), encoder.finish()]
    columns = ", ".join(f'"{name}"' for name in frame.columns)
    began = time.perf_counter()
    statement = f"COPY {table} ({columns}) FROM STDIN BINARY"
    with store.transaction() as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
        for buffer in buffers:
            copy.write(buffer)
    return time.perf_counter() - began


class BareCopy:
    """COPY BINARY of every window's rows into the same tables of a second database, beside the run's own write.

    The floor: buffers are ready, one transaction per window, leaves are there; no digest, lock, check or lineage.
    Each goes first in every other window, so that none profits from what the other has warmed.
    """

    def __init__(self, bare: Store, stages: Stages, end: date) -> None:
        self.bare, self.stages = bare, stages
        self.seconds = dict.fromkeys(COPIED, 0.0)
        self._write, self._turn = lanes.write_window, 0
        with bare.transaction() as connection:
            for month in months_between(FIRST, end):
                connection.execute("SELECT ensure_month(%s)", (month,))

    def write_window(self, store: Store, window: Window, frame: pl.DataFrame, *rest: Any) -> Any:
        """In place of the product's write_window: both writes, timed apart."""
        self._turn += 1
        if self._turn % 2:
            self._copy(store, window, frame)
        with self.stages.stage("write", window.table):
            written = self._write(store, window, frame, *rest)
        if not self._turn % 2 or window.table == "strategies":
            self._copy(store, window, frame)
        return written

    def _copy(self, store: Store, window: Window, frame: pl.DataFrame) -> None:
        with self.stages.stage("bare", window.table):
            if window.table == "strategies":
                self._strategies(store)
            if window.table not in COPIED or frame.is_empty():
                return
            frame = self._relinked(store, window, frame)
            self.seconds[window.table] += copied(self.bare, window.table, frame)

    def _strategies(self, store: Store) -> None:
        """What the others refer to, with the same ids."""
        with store.transaction() as source, self.bare.transaction() as connection:
            for row in source.execute("SELECT * FROM strategies ORDER BY id").fetchall():
                values = [psycopg.types.json.Jsonb(v) if isinstance(v, dict) else v for v in row]
                marks = ", ".join(["%s"] * len(row))
                connection.execute(
                    f"INSERT INTO strategies OVERRIDING SYSTEM VALUE VALUES ({marks}) ON CONFLICT DO NOTHING", values
                )

    def _relinked(self, store: Store, window: Window, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows with the ids that candles and trades have in the second database."""
        for link, table in (("market_data_id", "market_data"), ("trade_id", "trade_history")):
            if link not in frame.columns:
                continue
            target = Window(table, window.first, window.end, window.symbol, window.interval, window.strategy_id)
            keys = [name for name in WINDOWING[table].natural_key if name != "strategy_id"]
            here, there = (read_window(s, target, ["id", *keys]) for s in (store, self.bare))
            ids = here.join(there, on=keys, suffix="_there").select(pl.col("id").alias(link), "id_there")
            frame = frame.join(ids, on=link, how="left", maintain_order="left")
            frame = frame.with_columns(pl.col("id_there").alias(link)).drop("id_there")
        return frame

"""One month's window of each large table: written, written again unchanged, and read by both readers.

    python -m benchmarks.windows [--rounds 5]

Writing is compared with a bare COPY of the same rows into the same emptied leaf (buffers ready, one transaction), and
with writing it again when nothing has changed. Reading is compared with COPY TO of the same rows and columns drained
by psycopg: text that nobody parses. Equality first: both readers give one frame, it has the digests that the lineage
recorded, and writing it changes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import polars as pl
from psycopg import sql

from algobot_assets.cli import runs
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.windows import Window, content_columns
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import day_digests
from algobot_assets.store.lineage.records import DayLineage
from algobot_assets.store.month_partitions import leaf
from algobot_assets.store.reader import query, read_window
from algobot_assets.store.server.control import Server
from algobot_assets.store.writer import write_window
from benchmarks.bare import copied
from benchmarks.harness import machine, medians, save, show
from benchmarks.year import FIRST, fresh, prepared

DAYS = 31
CHAIN = ("configurations", "strategies", "risk_parameters", "market_data", "indicators", "signals")
PACKAGES = ("polars", "psycopg", "connectorx", "pgpq")


def windows(store: Store, end: date) -> list[Window]:
    """The month of candles, of indicators, and of one strategy's signals."""
    with store.transaction() as connection:
        strategy = connection.execute("SELECT min(id) FROM strategies").fetchone()[0]
    owners = {"market_data": 0, "indicators": 0, "signals": strategy}
    return [Window(table, FIRST, end, "BTCUSDT", "1m", owner) for table, owner in owners.items()]


def statement(window: Window) -> sql.Composed:
    """The window's rows as anybody would select them."""
    return sql.SQL(
        'SELECT {} FROM {} WHERE symbol = {} AND "interval" = {} AND "timestamp" >= {} AND "timestamp" < {}{} '
        'ORDER BY "timestamp"'
    ).format(
        sql.SQL(", ").join(map(sql.Identifier, schema_of(window.table))),
        sql.Identifier(window.table),
        *map(sql.Literal, (window.symbol, window.interval, *window.bounds)),
        sql.SQL(" AND strategy_id = {}").format(sql.Literal(window.strategy_id)) if window.strategy_id else sql.SQL(""),
    )


def drained(store: Store, window: Window) -> int:
    """Bytes of COPY TO, as they come."""
    text = sql.SQL("COPY ({}) TO STDOUT").format(statement(window))
    with store.transaction() as connection, connection.cursor() as cursor, cursor.copy(text) as copy:
        return sum(len(row) for row in copy)


def seconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def checked(store: Store, window: Window) -> tuple[pl.DataFrame, list[DayLineage]]:
    """The window's frame and what is recorded of its days; stops where readers, digests or writer disagree."""
    frame = read_window(store, window)
    if not query(store, statement(window), (), schema_of(window.table)).equals(frame):
        sys.exit(f"{window}: the two readers differ; no figure is worth anything.")
    with store.transaction() as connection:
        recorded = lineage.read(connection, window)
    found = day_digests(frame, content_columns(window.table), frame["timestamp"].dt.date())
    if {day: (item.rows, item.output) for day, item in recorded.items()} != found:
        sys.exit(f"{window}: what is stored has not the recorded digests; no figure is worth anything.")
    if write_window(store, window, frame, list(recorded.values())).changed:
        sys.exit(f"{window}: writing what is stored changed rows; no figure is worth anything.")
    return frame, list(recorded.values())


def measure(server: Server, store: Store, window: Window, rounds: int) -> dict[str, float]:
    """Medians of one window."""
    frame, days = checked(store, window)
    figures = []
    for _ in range(rounds + 1):
        emptied(server, store, window.table)
        bare = copied(store, window.table, frame)
        emptied(server, store, window.table)
        first = seconds(lambda: write_window(store, window, frame, days))
        again = seconds(lambda: write_window(store, window, frame, days))
        read = seconds(lambda: read_window(store, window))
        by_connectorx = seconds(lambda: query(store, statement(window), (), schema_of(window.table)))
        drain = seconds(lambda: drained(store, window))
        figures.append(
            {
                "bare COPY": bare,
                "write": first,
                "write / bare COPY": first / bare,
                "write again": again,
                "write / write again": first / again,
                "COPY TO": drain,
                "read": read,
                "read / COPY TO": read / drain,
                "connectorx": by_connectorx,
                "connectorx / COPY TO": by_connectorx / drain,
            }
        )
    return medians(figures[1:]) | {"rows": frame.height}


def emptied(server: Server, store: Store, table: str) -> None:
    """Empty the month of the table with all that was recorded of it, as a superuser may."""
    with server.connect(store.database.name, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {leaf(table, FIRST)} CASCADE")
        connection.execute("DELETE FROM lineage WHERE table_name = %s", (table,))
        connection.execute("CHECKPOINT")


def main() -> None:
    """Run, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    state = machine(PACKAGES)
    end = FIRST + timedelta(days=DAYS)
    figures = {}
    with prepared(DAYS) as (server, _, what), fresh(server, "windows") as (instance, store, _):
        if not runs.materialise(instance, FIRST, end - timedelta(days=1), CHAIN).success:
            sys.exit("The run failed; no figure is worth anything.")
        for window in reversed(windows(store, end)):  # what refers to a table is emptied before it
            figures[window.table] = measure(server, store, window, given.rounds)
    header = list(next(iter(figures.values())))
    cells = [[table, *(f"{row[name]:,.2f}" if name != "rows" else f"{row[name]:,}" for name in header)]
             for table, row in figures.items()]  # fmt: skip
    print(show(f"One month of minutes, {what}; seconds and ratios", ["table", *header], cells))
    print(f"Written to {save('windows', {'machine': state, 'rounds': given.rounds, 'tables': figures})}.")


if __name__ == "__main__":
    main()

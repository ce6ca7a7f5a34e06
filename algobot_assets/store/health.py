"""Measure the database's health, warn of figures beyond their thresholds, and keep their history.

All figures come from the server's statistics and lineage, never from counting rows, so they take milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import polars as pl
import psycopg

from algobot_assets.schema.frames import UTC
from algobot_assets.schema.symbols import delivery_of
from algobot_assets.schema.tables import MONTHLY, NINE
from algobot_assets.store import catalogue
from algobot_assets.store.connection import Store
from algobot_assets.store.month_partitions import months_present
from algobot_assets.store.reader import query
from algobot_assets.store.session import fetch_value

#: Figures are kept per quarter of an hour for this long, then one per day.
FINE_FOR = timedelta(days=14)
KEPT_FOR = timedelta(days=800)


@dataclass(frozen=True)
class Measure:
    """One figure. Sizes are in bytes, ages in seconds, ratios between 0 and 1.

    ``subject``: its table or market; empty for the whole database.
    """

    name: str
    value: float
    subject: str = ""


@dataclass(frozen=True)
class Health:
    """The figures at one moment, and the lists behind them as frames."""

    measures: tuple[Measure, ...]
    leaves: pl.DataFrame
    unused_indexes: pl.DataFrame
    statements: pl.DataFrame | None = field(default=None)
    """The slowest statements; None if the server does not record them (extension pg_stat_statements)."""

    def value(self, name: str, subject: str = "") -> float | None:
        """Return a figure by its name; None if there is none."""
        return next((m.value for m in self.measures if (m.name, m.subject) == (name, subject)), None)

    def of(self, name: str) -> dict[str, float]:
        """Return all figures of a name, by subject."""
        return {m.subject: m.value for m in self.measures if m.name == name}


_LEAVES = """
SELECT p.relname AS "table", c.relname AS leaf, greatest(c.reltuples, 0)::bigint AS rows,
       pg_total_relation_size(c.oid) AS bytes, s.n_live_tup AS live, s.n_dead_tup AS dead
  FROM pg_class AS c JOIN pg_inherits AS i ON i.inhrelid = c.oid JOIN pg_class AS p ON p.oid = i.inhparent
  JOIN pg_stat_user_tables AS s ON s.relid = c.oid
 WHERE p.relname = ANY(%(monthly)s) AND c.relkind = 'r'
UNION ALL
SELECT c.relname, c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid), s.n_live_tup, s.n_dead_tup
  FROM pg_class AS c JOIN pg_stat_user_tables AS s ON s.relid = c.oid
 WHERE c.relname = ANY(%(plain)s) AND c.relkind = 'r'
 ORDER BY 1, 2
"""
# a unique index is needed even if no query searches it
_UNUSED = """
SELECT s.relname AS "table", s.indexrelname AS index, pg_relation_size(s.indexrelid) AS bytes
  FROM pg_stat_user_indexes AS s JOIN pg_index AS x ON x.indexrelid = s.indexrelid
 WHERE s.idx_scan = 0 AND NOT x.indisunique AND pg_relation_size(s.indexrelid) > 1000000
 ORDER BY 3 DESC LIMIT 20
"""
_SERVER = """
SELECT pg_database_size(current_database())::float8 AS database_bytes,
       (SELECT sum(heap_blks_hit + idx_blks_hit)::float8 / nullif(sum(heap_blks_hit + idx_blks_hit + heap_blks_read
               + idx_blks_read), 0) FROM pg_statio_user_tables) AS cache_hit_ratio,
       (SELECT sum(heap_blks_hit + idx_blks_hit + heap_blks_read + idx_blks_read)::float8
          FROM pg_statio_user_tables) AS blocks_asked,
       (SELECT count(*)::float8 FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       current_setting('max_connections')::float8 AS connections_allowed,
       coalesce((SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8 FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()), 0) AS oldest_transaction_seconds,
       (SELECT age(datfrozenxid)::float8 FROM pg_database WHERE datname = current_database()) AS transaction_ids_used,
       (SELECT count(*)::float8 FROM dirty_days) AS dirty_days,
       (SELECT count(*)::float8 FROM stale_partitions) AS stale_partitions
"""
#: Only their owner and monitors see sessions and statements; the login may be a monitor, the role is not.
_AS_LOGIN = "SELECT set_config('role', 'none', true)"
_STATEMENTS = """
SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 160) AS statement, calls,
       round(mean_exec_time::numeric, 1)::float8 AS mean_ms,
       round(total_exec_time::numeric / 1000, 1)::float8 AS total_s
  FROM pg_stat_statements
 WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query !~* 'password'
 ORDER BY total_exec_time DESC LIMIT 10
"""


def measure(store: Store, others: Sequence[str] = ()) -> Health:
    """Measure the database now. ``others``: further databases of the server to include in the size (Dagster's)."""
    parameters = {"monthly": list(MONTHLY), "plain": [name for name in NINE if name not in MONTHLY] + ["lineage"]}
    leaves = query(store, _LEAVES, parameters)
    unused = query(store, _UNUSED)

    def work(connection: psycopg.Connection) -> list[Measure]:
        connection.execute(_AS_LOGIN)
        cursor = connection.execute(_SERVER)
        names = [column.name for column in cursor.description or ()]
        found = [Measure(n, v) for n, v in zip(names, cursor.fetchone() or (), strict=True) if v is not None]
        for name in others:
            row = connection.execute(
                "SELECT pg_database_size(datname)::float8 FROM pg_database WHERE datname = %s", (name,)
            ).fetchone()
            found += [Measure("database_bytes", row[0], name)] if row else []
        now = catalogue.now(connection)
        ahead = sum(month > now.date() for month in months_present(connection))
        found.append(Measure("partitions_ahead", float(ahead)))
        for market in catalogue.markets(connection):
            delivery = delivery_of(market.symbol)
            if market.newest is not None and (delivery is None or delivery > now):
                age = max((now - market.newest).total_seconds(), 0.0)
                found.append(Measure("candle_age_seconds", age, f"{market.symbol} {market.interval}"))
        return found

    measures = store.retrying(work, "Measuring the database")
    totals = leaves.group_by("table", maintain_order=True).agg(
        pl.col("rows", "bytes", "dead").sum(), pl.col("rows").max().alias("largest")
    )
    for table, rows, size, dead, largest in totals.iter_rows():
        measures += [Measure("rows", rows, table), Measure("bytes", size, table), Measure("dead_rows", dead, table)]
        if table in MONTHLY:
            measures.append(Measure("rows_of_largest_partition", largest, table))
    return Health(tuple(measures), leaves, unused, _statements(store))


def _statements(store: Store) -> pl.DataFrame | None:
    try:
        with store.transaction() as connection:
            if fetch_value(connection.execute("SELECT to_regclass('pg_stat_statements') IS NULL"), bool):
                return None
            connection.execute(_AS_LOGIN)
            rows = connection.execute(_STATEMENTS).fetchall()
    except psycopg.Error:  # not preloaded, or not for this role
        return None
    schema = {"statement": pl.String, "calls": pl.Int64, "mean_ms": pl.Float64, "total_s": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def find_problems(found: Health) -> list[str]:
    """Return a sentence with the remedy for each figure beyond its threshold; empty if all is well."""
    sentences = []
    if (found.value("partitions_ahead") or 0) < 1:
        sentences.append(
            "No partition of a coming month exists, so the first candle of next month cannot be stored. Run the job "
            "partition_maintenance, and check that its schedule is on."
        )
    used, allowed = found.value("connections") or 0, found.value("connections_allowed") or 1
    if used > 0.8 * allowed:
        sentences.append(
            f"{used:.0f} of {allowed:.0f} connections are in use. Close clients (pg_stat_activity names them by "
            "application_name) or raise max_connections."
        )
    ratio, asked = found.value("cache_hit_ratio"), found.value("blocks_asked") or 0
    if ratio is not None and ratio < 0.9 and asked > 1_000_000:
        sentences.append(
            f"Only {ratio:.0%} of the requested blocks came from memory. Raise shared_buffers (a quarter of the memory "
            "is usual)."
        )
    oldest = found.value("oldest_transaction_seconds") or 0
    if oldest > 3600:
        sentences.append(
            f"A transaction has been open for {oldest / 3600:.1f} hours and keeps VACUUM from removing rows. Find it "
            "in pg_stat_activity (xact_start) and end it."
        )
    if (found.value("transaction_ids_used") or 0) > 1_000_000_000:
        sentences.append(
            "Half of the transaction ids are used up. Check that autovacuum is on, then run VACUUM FREEZE."
        )
    bloated = found.leaves.filter((pl.col("dead") > 50_000) & (pl.col("dead") > 0.2 * pl.col("live")))
    for leaf, dead in bloated.select("leaf", "dead").iter_rows():
        sentences.append(
            f"{leaf} holds {dead:,} dead rows. Run VACUUM (ANALYZE) {leaf}, and check that autovacuum is on."
        )
    return sentences


def record(store: Store, found: Health) -> None:
    """Add the figures to their history, and thin out old ones."""

    def work(connection: psycopg.Connection) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO health_history (measure, subject, value) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                [(m.name, m.subject, m.value) for m in found.measures],
            )
        connection.execute(
            """DELETE FROM health_history AS h
                WHERE measured_at < now() - %(kept)s OR (measured_at < now() - %(fine)s AND EXISTS (
                      SELECT FROM health_history AS e
                       WHERE (e.measure, e.subject) = (h.measure, h.subject) AND e.measured_at < h.measured_at
                         AND e.measured_at >= date_trunc('day', h.measured_at)))""",
            {"fine": FINE_FOR, "kept": KEPT_FOR},
        )

    store.retrying(work, "Recording the database's figures")


def figures_before(store: Store, ago: timedelta) -> dict[tuple[str, str], float]:
    """Return the figures by (measure, subject) of that long ago, or the earliest since if none is that old."""
    rows: list[Any] = store.retrying(
        lambda connection: connection.execute(
            """SELECT DISTINCT ON (measure, subject) measure, subject, value FROM health_history
                WHERE measured_at >= coalesce((SELECT max(measured_at) FROM health_history
                                                WHERE measured_at <= now() - %(ago)s), '-infinity')
                ORDER BY measure, subject, measured_at""",
            {"ago": ago},
        ).fetchall(),
        "Reading the database's earlier figures",
    )
    return {(name, subject): value for name, subject, value in rows}


def history(store: Store, name: str, subject: str = "") -> pl.DataFrame:
    """Return measured_at and value of one figure, ascending."""
    return query(
        store,
        "SELECT measured_at, value FROM health_history WHERE measure = %s AND subject = %s ORDER BY measured_at",
        [name, subject],
        {"measured_at": UTC, "value": pl.Float64()},
    )

"""Purge old records from Dagster's database, and read which partitions it calls materialised.

Dagster has no retention of runs and events. It takes the status of a partition from the newest materialisation event,
so these events are kept for ever and the rest of a run can be deleted. The SQL matches Dagster's tables in the pinned
version; a test runs it on a real instance.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import psycopg

from algobot_assets.schema.intervals import consecutive
from algobot_assets.store.database import Database

_FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
#: Runs deleted per transaction; small, to hold locks briefly.
_BATCH = 200


@dataclass(frozen=True)
class Purged:
    """Counts of deleted records, and of events kept because they are the status of a partition."""

    runs: int = 0
    events: int = 0
    checks: int = 0
    kept: int = 0

    def __add__(self, other: Purged) -> Purged:
        return Purged(
            self.runs + other.runs, self.events + other.events, self.checks + other.checks, self.kept + other.kept
        )


def purge_before(database: Database, name: str, before: datetime) -> Purged:
    """Delete runs that finished before ``before`` and their events from Dagster's database ``name``.

    Keeps the newest materialisation and observation of each asset and partition, the newest result of each check, and
    unfinished runs. StoreError if the database cannot be reached.
    """
    done = Purged()
    with database.connect(name, autocommit=True) as connection:
        # Dagster's times are UTC without a zone
        moment = before.astimezone(UTC).replace(tzinfo=None)
        while True:
            rows = connection.execute(
                "SELECT run_id FROM runs WHERE status = ANY(%s) AND update_timestamp < %s ORDER BY id LIMIT %s",
                (list(_FINISHED), moment, _BATCH),
            ).fetchall()
            if not rows:
                return done
            with connection.transaction():
                done += _delete(connection, [row[0] for row in rows])


def _delete(connection: psycopg.Connection[Any], runs: list[str]) -> Purged:
    checks = connection.execute(
        """DELETE FROM asset_check_executions AS c WHERE run_id = ANY(%s) AND EXISTS (
               SELECT FROM asset_check_executions AS n
                WHERE n.asset_key = c.asset_key AND n.check_name = c.check_name
                  AND n.partition IS NOT DISTINCT FROM c.partition AND n.id > c.id)""",
        (runs,),
    ).rowcount
    deleted = connection.execute(
        """DELETE FROM event_logs AS e WHERE run_id = ANY(%(runs)s)
              AND NOT (e.dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION') AND NOT EXISTS (
                   SELECT FROM event_logs AS n
                    WHERE n.asset_key = e.asset_key AND n.dagster_event_type = e.dagster_event_type
                      AND (n.partition = e.partition OR (n.partition IS NULL AND e.partition IS NULL))
                      AND n.id > e.id))
              -- a check's result is shown from its event
              AND NOT EXISTS (SELECT FROM asset_check_executions AS c
                               WHERE c.run_id = e.run_id AND c.evaluation_event_storage_id = e.id)
           RETURNING id""",
        {"runs": runs},
    ).fetchall()
    connection.execute("DELETE FROM asset_event_tags WHERE event_id = ANY(%s)", ([row[0] for row in deleted],))
    row = connection.execute("SELECT count(*) FROM event_logs WHERE run_id = ANY(%s)", (runs,)).fetchone()
    kept = row[0] if row else 0
    # deletes their tags as well
    connection.execute("DELETE FROM runs WHERE run_id = ANY(%s)", (runs,))
    return Purged(len(runs), len(deleted), checks, kept)


def materialised(database: Database, name: str, tables: tuple[str, ...]) -> dict[str, set[date]]:
    """Return the days of each table that Dagster's database ``name`` calls materialised."""
    keys = {json.dumps([table]): table for table in tables}
    found: dict[str, set[date]] = {table: set() for table in tables}
    with database.connect(name) as connection:
        if connection.execute("SELECT 1 FROM pg_class WHERE oid = to_regclass('event_logs')").fetchone() is None:
            return found
        rows = connection.execute(
            """SELECT DISTINCT asset_key, partition FROM event_logs
                WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key = ANY(%s) AND partition IS NOT NULL""",
            (list(keys),),
        )
        for key, partition in rows:
            found[keys[key]].add(date.fromisoformat(partition))
    return found


def drift(
    recorded: dict[str, set[date]], catalogued: dict[str, set[date]]
) -> dict[str, tuple[list[tuple[date, date]], list[tuple[date, date]]]]:
    """Return per table the ranges (first, last) that only Dagster calls materialised, and those only in lineage.

    Days outside a table's recorded range do not count: a run may include days before a market started. Tables that
    agree are omitted.
    """
    found: dict[str, tuple[list[tuple[date, date]], list[tuple[date, date]]]] = {}
    for table, days in recorded.items():
        known = catalogued.get(table, set())
        if not days:
            continue
        inside = {day for day in known if min(days) <= day <= max(days)}
        only_dagster, only_lineage = (
            [(run[0], run[-1]) for run in consecutive(some)] for some in (inside - days, days - known)
        )
        if only_dagster or only_lineage:
            found[table] = only_dagster, only_lineage
    return found

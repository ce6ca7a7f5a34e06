"""What all checks have in common: the run's days, the markets recorded for them, sentences, and the way to Dagster.

A check op is not partitioned, so a range run gives one evaluation per check. Large tables are looked at on the server
or month by month; what is right and wrong is said in the rules_* modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta

import dagster as dg

from algobot_assets.audit.rules.check_run import DAY, CheckRun, Findings
from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.schema.intervals import months_between, next_month
from algobot_assets.store.archive import archived_months
from algobot_assets.store.connection import Store

#: A candle opens at most this many days before its day, but for 1M, which ends with its month.
_REACH = timedelta(days=6)
#: Days looked at where a check is executed by itself, without a partition: the newest recorded ones.
NEWEST_DAYS = 31
#: Sentences shown per check; the number of all is in the metadata.
_SHOWN = 20


Body = Callable[[CheckRun], None]


def look(body: Body, run: CheckRun) -> dict[str, Findings]:
    """What the checks of one table find in the run's days, by check."""
    body(run)
    return run.findings


def table_checks(
    table: str, checks: Mapping[str, str], blocking: Sequence[str] = ()
) -> Callable[[Body], dg.AssetChecksDefinition]:
    """Decorator: ``body(run)`` adds sentences to ``run.findings``; it becomes the checks of ``table``.

    ``checks``: descriptions by name. Those of ``blocking`` guard what everything computed from the table relies on:
    a failure ends the run before that is computed. The others leave the other markets alone.
    """
    specs = [
        dg.AssetCheckSpec(name, asset=table, description=text, blocking=name in blocking)
        for name, text in checks.items()
    ]

    def decorate(body: Body) -> dg.AssetChecksDefinition:
        def op(context: dg.AssetCheckExecutionContext, database: DatabaseResource) -> Iterator[dg.AssetCheckResult]:
            first, end = _run_days(context, database.store, table)
            first = _first_kept(database.store, first, end)
            days = f"{first} to {end - DAY}" if first < end else "archived"
            for name, found in look(body, CheckRun(table, database.store, first, end, checks)).items():
                shown = found.sentences[:_SHOWN]
                more = [f"And {len(found.sentences) - _SHOWN} more."] if len(found.sentences) > _SHOWN else []
                yield dg.AssetCheckResult(
                    check_name=name,
                    asset_key=table,
                    passed=not found.sentences,
                    severity=dg.AssetCheckSeverity.ERROR,
                    description="\n".join([*shown, *more]) or f"{days}: nothing found.",
                    metadata={"found": len(found.sentences), "looked at": found.seen, "days": days},
                )

        # Dagster reads this one before it resolves annotations
        op.__annotations__["context"] = dg.AssetCheckExecutionContext
        return dg.multi_asset_check(name=f"{table}_checks", specs=specs)(op)

    return decorate


def _first_kept(store: Store, first: date, end: date) -> date:
    """The first of the days from which on all candles are in the database, ``end`` where there is none.

    What is archived was looked at when it was written, and compared with its lineage when it left.
    """
    with store.transaction() as connection:
        months = archived_months(connection, months_between(first - _REACH, end))
    return min(end, max(first, next_month(months[-1]) + _REACH)) if months else first


def _run_days(context: dg.AssetCheckExecutionContext, store: Store, table: str) -> tuple[date, date]:
    """The run's days [first, end); without a partition the newest recorded ones."""
    if context.run.is_partitioned:
        keys = context.op_execution_context.partition_key_range
        return date.fromisoformat(keys.start), date.fromisoformat(keys.end) + DAY
    with store.transaction() as connection:
        newest = connection.execute("SELECT max(day) FROM lineage WHERE table_name = %s", (table,)).fetchone()[0]
    end = (newest or date(1970, 1, 1)) + DAY
    return end - timedelta(days=NEWEST_DAYS), end

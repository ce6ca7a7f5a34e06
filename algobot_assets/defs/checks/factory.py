"""Turn the checks of a table into Dagster asset checks over the run's days.

A check op is not partitioned, so a range run gives one evaluation per check. Large tables are checked on the server or
month by month.
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

#: A candle opens at most this many days before its day, except 1M, which ends with its month.
_REACH = timedelta(days=6)
#: Days to check if a check is executed without a partition: the newest recorded ones.
NEWEST_DAYS = 31
#: Messages shown per check. The metadata has their total number.
_SHOWN = 20


Body = Callable[[CheckRun], None]


def evaluate(body: Body, run: CheckRun) -> dict[str, Findings]:
    """Run the checks of one table over the run's days; return their findings by check."""
    body(run)
    return run.findings


def define_checks(
    table: str, checks: Mapping[str, str], blocking: Sequence[str] = ()
) -> Callable[[Body], dg.AssetChecksDefinition]:
    """Turn the decorated ``body(run)``, which adds messages to ``run.findings``, into the checks of ``table``.

    ``checks``: descriptions by name. Everything computed from the table relies on those in ``blocking``: if one fails,
    the run stops before it computes that. The others do not affect other markets.
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
            for name, found in evaluate(body, CheckRun(table, database.store, first, end, checks)).items():
                shown = found.sentences[:_SHOWN]
                more = [f"And {len(found.sentences) - _SHOWN} more."] if len(found.sentences) > _SHOWN else []
                yield dg.AssetCheckResult(
                    check_name=name,
                    asset_key=table,
                    passed=not found.sentences,
                    severity=dg.AssetCheckSeverity.ERROR,
                    description="\n".join([*shown, *more]) or f"{days}: no problems found.",
                    metadata={"found": len(found.sentences), "looked at": found.seen, "days": days},
                )

        # Dagster reads this annotation without resolving it
        op.__annotations__["context"] = dg.AssetCheckExecutionContext
        return dg.multi_asset_check(name=f"{table}_checks", specs=specs)(op)

    return decorate


def _first_kept(store: Store, first: date, end: date) -> date:
    """Return the first day from which all candles are in the database, or ``end`` if there is none.

    Archived days were checked when they were written and compared with their lineage when they were archived.
    """
    with store.transaction() as connection:
        months = archived_months(connection, months_between(first - _REACH, end))
    return min(end, max(first, next_month(months[-1]) + _REACH)) if months else first


def _run_days(context: dg.AssetCheckExecutionContext, store: Store, table: str) -> tuple[date, date]:
    """Return the run's days [first, end), or the newest recorded ones if it has no partition."""
    if context.run.is_partitioned:
        keys = context.op_execution_context.partition_key_range
        return date.fromisoformat(keys.start), date.fromisoformat(keys.end) + DAY
    with store.transaction() as connection:
        row = connection.execute("SELECT max(day) FROM lineage WHERE table_name = %s", (table,)).fetchone()
    end = (row[0] if row and row[0] else date(1970, 1, 1)) + DAY
    return end - timedelta(days=NEWEST_DAYS), end

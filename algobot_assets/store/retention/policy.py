"""Archive the months that are older than the settings keep, and restore archived months.

A month's age is counted by the database's clock. A month may be archived once everything in it is complete, matches
lineage and is not stale: archived days are not recomputed, so they must be right. The ledger's tables and lineage stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from algobot_assets.errors import SettingsError, StoreError
from algobot_assets.schema.intervals import midnight, months_between, next_month, phase_of
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window
from algobot_assets.settings import Settings
from algobot_assets.store import catalogue
from algobot_assets.store.archive import archived_months
from algobot_assets.store.connection import Store
from algobot_assets.store.month_partitions import months_present
from algobot_assets.store.retention.months import Moved, Progress, archive_month, restore_month


@dataclass(frozen=True)
class Outcome:
    """The result for one due month: the rows and files moved, or the reason why it stays."""

    month: date
    moved: Moved | None
    kept: str | None


def cutoff(today: date, months: int) -> date:
    """Return the first day that is kept: ``months`` whole months before the month of ``today``."""
    index = today.year * 12 + today.month - 1 - months
    return date(index // 12, index % 12 + 1, 1)


def due_months(store: Store, settings: Settings, today: date | None = None) -> list[date]:
    """Return the stored months that are older than the settings keep, ascending.

    ``today``: by default the day of the database's clock, UTC.
    """
    with store.transaction() as connection:
        if today is None:
            today = catalogue.now(connection).date()
        return [month for month in months_present(connection) if month < cutoff(today, settings.retention_months)]


def archive_due_months(
    store: Store, settings: Settings, today: date | None = None, progress: Progress = lambda _: None
) -> Iterator[Outcome]:
    """Archive every due month, oldest first; a month that cannot be archived yet does not stop the others.

    ``progress`` is called for every file. Killed at any point, each month is stored or archived, and the next run
    continues.
    """
    months = due_months(store, settings, today)
    stale = _stale(store, months)
    for month in months:
        if month in stale:
            yield Outcome(month, None, stale[month])
            continue
        try:
            yield Outcome(month, archive_month(store, month, progress), None)
        except StoreError as error:
            yield Outcome(month, None, str(error))


def restore_months(store: Store, first: date, last: date, progress: Progress = lambda _: None) -> Iterator[Moved]:
    """Restore the archived months from ``first`` to ``last``, oldest first; SettingsError if none is archived."""
    with store.transaction() as connection:
        known = archived_months(connection)
    wanted = [month for month in months_between(first, next_month(last)) if month in known]
    if not wanted:
        have = f"; archived are {known[0]:%Y-%m} to {known[-1]:%Y-%m}" if known else "; nothing is archived"
        asked = f"{first:%Y-%m}" if first == last else f"{first:%Y-%m} to {last:%Y-%m}"
        raise SettingsError(f"{asked} is not archived{have}.")
    for month in wanted:
        yield restore_month(store, month, progress)


def _stale(store: Store, months: Sequence[date]) -> dict[date, str]:
    """Return, for each of ``months`` that holds stale partitions, a sentence about the first."""
    if not months:
        return {}
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT s.table_name, s.symbol, s."interval", s.strategy_id, s.day, s.reason, l.first_open
                 FROM stale_partitions AS s
                 LEFT JOIN listings AS l ON l.symbol = s.symbol AND l."interval" = s."interval"
                WHERE s.table_name = ANY(%s) AND s.day < %s ORDER BY s.day, s.table_name, s.symbol, s.strategy_id""",
            (list(MONTHLY), next_month(months[-1]) + timedelta(days=7)),
        ).fetchall()
    found: dict[date, str] = {}
    for table, symbol, interval, strategy, day, reason, listed in rows:
        phase = phase_of(listed or midnight(day)) if interval == "3d" else None
        window = Window(table, day, day + timedelta(days=1), symbol, interval, strategy, phase)
        opened = window.bounds[0]
        found.setdefault(
            date(opened.year, opened.month, 1),
            f"{window} is stale ({reason}): run `algobot refresh`, then `algobot retention`.",
        )
    return {month: found[month] for month in months if month in found}

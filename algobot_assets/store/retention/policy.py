"""Retention: which months leave the database, which may not yet, and bringing months back.

A month is due when it is older than the months that are kept, by the database's clock. It may leave once everything in
it is complete, as recorded and not stale: what is archived is not computed again, so it must be right. How a month is
moved is the store's affair (store/months.py). The ledger's tables and lineage stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from algobot_assets.errors import SettingsError, StoreError
from algobot_assets.schema.intervals import midnight, months_between, next_month, phase_of
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window
from algobot_assets.settings import Settings
from algobot_assets.store.archive import archived_months
from algobot_assets.store.connection import Store
from algobot_assets.store.month_partitions import months_present
from algobot_assets.store.retention.months import Moved, archive_month, restore_month

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a month that was due: what was moved, or the sentence why it stays."""

    month: date
    moved: Moved | None
    kept: str | None


def cutoff(today: date, months: int) -> date:
    """The first day that is kept: so many whole months before the month of ``today``."""
    index = today.year * 12 + today.month - 1 - months
    return date(index // 12, index % 12 + 1, 1)


def due(store: Store, settings: Settings, today: date | None = None) -> list[date]:
    """The months in the database that are older than the settings keep, ascending. ``today``: by default the day of
    the database's clock, UTC."""
    with store.transaction() as connection:
        if today is None:
            today = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()[0]
        return [month for month in months_present(connection) if month < cutoff(today, settings.retention_months)]


def retire(store: Store, settings: Settings, today: date | None = None, say: Say = lambda _: None) -> Iterator[Outcome]:
    """Archive every month that is due, oldest first; a month that cannot go yet leaves the others alone.

    ``say`` hears of every file. Killed at any point, each month is stored or archived, and the next run goes on.
    """
    months = due(store, settings, today)
    stale = _stale(store, months)
    for month in months:
        if month in stale:
            yield Outcome(month, None, stale[month])
            continue
        try:
            yield Outcome(month, archive_month(store, month, say), None)
        except StoreError as error:
            yield Outcome(month, None, str(error))


def restore(store: Store, first: date, last: date, say: Say = lambda _: None) -> Iterator[Moved]:
    """Bring the archived months from ``first`` to ``last`` back, oldest first. SettingsError where none of them is
    archived."""
    with store.transaction() as connection:
        known = archived_months(connection)
    wanted = [month for month in months_between(first, next_month(last)) if month in known]
    if not wanted:
        have = f"; archived are {known[0]:%Y-%m} to {known[-1]:%Y-%m}" if known else "; nothing is archived"
        asked = f"{first:%Y-%m}" if first == last else f"{first:%Y-%m} to {last:%Y-%m}"
        raise SettingsError(f"{asked} is not archived{have}.")
    for month in wanted:
        yield restore_month(store, month, say)


def _stale(store: Store, months: Sequence[date]) -> dict[date, str]:
    """For each of ``months`` that holds stale partitions a sentence about the first."""
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

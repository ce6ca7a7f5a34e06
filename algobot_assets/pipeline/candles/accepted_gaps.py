"""Accept missing candles that nobody can supply as gaps, and withdraw such acceptances."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import psycopg

from algobot_assets.errors import ArchivedError, WindowError
from algobot_assets.schema.intervals import days_between, month_start, opens_window, phase_of
from algobot_assets.store.archive import archived_months, restore_command
from algobot_assets.store.connection import Store

#: The reason in `gaps` of a gap that a person has accepted.
ACCEPTED = "accepted"
_DAY = timedelta(days=1)
_LEDGER = ("trade_history", "performance_metrics", "backtest_results")


@dataclass(frozen=True)
class AcceptedGap:
    """Days first to last (both included) whose missing candles a person has declared nonexistent."""

    first: date
    last: date
    reason: str
    accepted_by: str
    accepted_at: datetime

    @property
    def evidence(self) -> str:
        """The acceptance in words, for the table `gaps`."""
        return f"accepted by {self.accepted_by} on {self.accepted_at:%Y-%m-%d}: {self.reason}"

    @property
    def days(self) -> list[date]:
        """All its days."""
        return days_between(self.first, self.last + _DAY)


def accepted_gaps(connection: psycopg.Connection, symbol: str, interval: str) -> list[AcceptedGap]:
    """Return the accepted gaps of a market, oldest first."""
    rows = connection.execute(
        """SELECT first_day, last_day, reason, accepted_by, accepted_at FROM accepted_gaps
            WHERE symbol = %s AND "interval" = %s ORDER BY first_day""",
        (symbol, interval),
    ).fetchall()
    return [AcceptedGap(first, last, reason, who, at.astimezone(UTC)) for first, last, reason, who, at in rows]


def accepted_by_market(store: Store) -> dict[tuple[str, str], list[AcceptedGap]]:
    """Return the accepted gaps of every market, oldest first."""
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT symbol, "interval", first_day, last_day, reason, accepted_by, accepted_at FROM accepted_gaps
                ORDER BY symbol, "interval", first_day"""
        ).fetchall()
    found: dict[tuple[str, str], list[AcceptedGap]] = {}
    for symbol, interval, first, last, reason, who, at in rows:
        found.setdefault((symbol, interval), []).append(AcceptedGap(first, last, reason, who, at.astimezone(UTC)))
    return found


def accept_gap(store: Store, symbol: str, interval: str, first: date, last: date, reason: str) -> AcceptedGap:
    """Record that the candles missing on the days first to last do not exist; the next run closes these days.

    WindowError if the days lie in the future, are already accepted, or lack no candle. ArchivedError for archived
    months.
    """
    market = f"{symbol} {interval}"
    if not reason.strip():
        raise WindowError("A gap is accepted for a reason. Add --reason TEXT.")
    if last < first:
        raise WindowError(f"The last day {last} lies before the first day {first}. Name the earlier day first.")

    def work(connection: psycopg.Connection) -> AcceptedGap:
        _hold(connection, market)
        recorded: dict[date, bool] = dict(
            connection.execute(
                """SELECT day, complete_through >= (day + 1)::timestamp AT TIME ZONE 'UTC' FROM lineage
                    WHERE table_name = 'market_data' AND symbol = %s AND "interval" = %s""",
                (symbol, interval),
            ).fetchall()
        )
        if not recorded:
            raise WindowError(f"No candles of {market} are stored. Markets are written like 'BTCUSDT 1m'.")
        if last >= max(recorded):
            raise WindowError(
                f"{market}: candles are stored up to {max(recorded)}, and a gap ends before that. "
                "Name an earlier last day."
            )
        for known in accepted_gaps(connection, symbol, interval):
            if known.first <= last and first <= known.last:
                raise WindowError(
                    f"{market}: {known.first} to {known.last} is accepted already. To change it, run "
                    f"`algobot gaps withdraw '{market}' {known.first} {known.last}` first."
                )
        if all(recorded.get(day, day < min(recorded)) for day in days_between(first, last + _DAY)):
            raise WindowError(f"{market}: no candles are unknown from {first} to {last}. See `algobot gaps`.")
        _refuse_archived(connection, market, first, last)
        who = _who(connection)
        rows = connection.execute(
            """INSERT INTO accepted_gaps (symbol, "interval", first_day, last_day, reason, accepted_by)
               VALUES (%s, %s, %s, %s, %s, %s) RETURNING accepted_at""",
            (symbol, interval, first, last, reason.strip(), who),
        ).fetchall()
        return AcceptedGap(first, last, reason.strip(), who, rows[0][0].astimezone(UTC))

    return store.retrying(work, f"Accepting the gap of {market}")


def withdraw_gaps(store: Store, symbol: str, interval: str, first: date, last: date) -> list[AcceptedGap]:
    """Withdraw the acceptances within the days first to last: these become unknown, and later days stale.

    WindowError if nothing is accepted there. ArchivedError for archived months.
    """
    market = f"{symbol} {interval}"

    def work(connection: psycopg.Connection) -> list[AcceptedGap]:
        _hold(connection, market)
        known = accepted_gaps(connection, symbol, interval)
        found = [gap for gap in known if first <= gap.first and gap.last <= last]
        if not found:
            listed = ", ".join(f"{gap.first} to {gap.last}" for gap in known) or "none"
            raise WindowError(f"{market}: no accepted gap lies within {first} to {last}. Accepted are: {listed}.")
        for gap in found:
            _refuse_archived(connection, market, gap.first, gap.last)
            _reopen(connection, symbol, interval, gap)
        return found

    return store.retrying(work, f"Withdrawing the accepted gap of {market}")


def _reopen(connection: psycopg.Connection, symbol: str, interval: str, gap: AcceptedGap) -> None:
    """Delete the gap, make its days incomplete, and mark everything computed from its first day on as stale."""
    listed = connection.execute(
        """SELECT first_open FROM listings WHERE symbol = %s AND "interval" = %s""", (symbol, interval)
    ).fetchone()
    phase = (phase_of(listed[0]) if listed else 0) if interval == "3d" else None
    lo, hi = opens_window(interval, gap.first, gap.last + _DAY, phase)
    connection.execute(
        """DELETE FROM accepted_gaps WHERE symbol = %s AND "interval" = %s AND first_day = %s""",
        (symbol, interval, gap.first),
    )
    absent = connection.execute(
        """DELETE FROM gaps WHERE symbol = %s AND "interval" = %s AND reason = %s AND first_open < %s AND end_open > %s
           RETURNING first_open, end_open""",
        (symbol, interval, ACCEPTED, hi, lo),
    ).fetchall()
    for begin, end in absent:
        connection.execute(
            """UPDATE lineage SET complete_through =
                      greatest(day::timestamp AT TIME ZONE 'UTC', least(complete_through, %(begin)s::timestamptz))
                WHERE table_name = 'market_data' AND symbol = %(symbol)s::text AND "interval" = %(interval)s::text
                  AND day BETWEEN candle_day(%(symbol)s::text, %(interval)s::text, %(begin)s::timestamptz)
                              AND candle_day(%(symbol)s::text, %(interval)s::text,
                                             %(end)s::timestamptz - interval '1 microsecond')""",
            {"symbol": symbol, "interval": interval, "begin": begin, "end": end},
        )
    connection.execute(
        """INSERT INTO dirty_days (table_name, symbol, "interval", strategy_id, day)
           SELECT l.table_name, l.symbol, l."interval", l.strategy_id, l.day FROM lineage AS l
            WHERE l.day >= %(first)s AND (
                  (l.table_name IN ('indicators', 'signals')
                   AND (l.symbol, l."interval") = (%(symbol)s::text, %(interval)s::text))
                  OR (l.table_name = ANY(%(ledger)s) AND l.strategy_id IN (
                      SELECT id FROM strategies
                       WHERE symbol = %(symbol)s::text AND ("interval" = %(interval)s::text
                             -- ledgers of longer candles that follow the minutes inside them
                             OR (%(interval)s::text = '1m' AND parameters ->> 'stop_path' IS NOT NULL)))))
               ON CONFLICT DO NOTHING""",
        {"first": gap.first, "symbol": symbol, "interval": interval, "ledger": list(_LEDGER)},
    )


def _hold(connection: psycopg.Connection, market: str) -> None:
    """Keep other sessions from changing the market's gaps until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"gaps of {market}",))


def _who(connection: psycopg.Connection) -> str:
    """Return the user of the operating system, if known, and the database role."""
    ((role,),) = connection.execute("SELECT session_user").fetchall()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "an unknown user"
    return f"{user} (database role {role})"


def _refuse_archived(connection: psycopg.Connection, market: str, first: date, last: date) -> None:
    months: Sequence[date] = sorted({month_start(day) for day in days_between(first, last + _DAY)})
    archived = archived_months(connection, months)
    if archived:
        raise ArchivedError(
            f"{market}: {archived[0]:%Y-%m} is archived, so its gaps cannot change. "
            f"Run {restore_command(archived)} first."
        )


def unanswered(
    begin: datetime, end: datetime, answered: Sequence[tuple[datetime, datetime]]
) -> list[tuple[datetime, datetime]]:
    """Return the ranges of [begin, end) that none of ``answered`` (ascending) covers."""
    found = []
    for first, last in answered:
        if first > begin and begin < end:
            found.append((begin, min(first, end)))
        begin = max(begin, last)
    if begin < end:
        found.append((begin, end))
    return found

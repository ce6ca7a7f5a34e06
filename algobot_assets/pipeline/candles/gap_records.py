"""Record candles that do not exist, and why.

A gap is a run of grid points for which the source has no candle, or which a person has accepted as absent. It is one
row of `gaps`, however many fetches it took: a delisted market's row grows with every day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import psycopg

from algobot_assets.feed.source import Fetched
from algobot_assets.pipeline.candles.accepted_gaps import ACCEPTED
from algobot_assets.schema.intervals import candle_end, expected_opens, floor_open
from algobot_assets.schema.windows import Window

#: If the price differs by this factor after a gap this long, the symbol may have been reused for another coin.
REUSE_AFTER = timedelta(days=3)
REUSE_FACTOR = 10
_STATUS, _PRICE = "its status is ", "its price went "


@dataclass(frozen=True)
class Gap:
    """Absent opens [first, end).

    reason: listing, outage, halt, delisting, delivery, reuse? or accepted. evidence: the sources
    consulted and other known facts, separated by semicolons.
    """

    first: datetime
    end: datetime
    reason: str
    evidence: str


def absent(part: Window, lo: datetime, hi: datetime, frame: pl.DataFrame) -> list[tuple[datetime, datetime]]:
    """Return the runs of grid points in [lo, hi) without a candle, as half-open ranges of opens."""
    grid = expected_opens(part.interval, lo, hi, part.phase)
    present = frame.select(floor_open(part.interval, part.phase).alias("timestamp"))["timestamp"]
    missing = grid.to_frame().with_row_index("i").join(present.to_frame(), on="timestamp", how="anti").sort("i")
    runs = missing.group_by((pl.col("i") - pl.int_range(pl.len())).alias("run"), maintain_order=True).agg(
        pl.col("timestamp").first().alias("first"), pl.col("timestamp").last().alias("last")
    )
    return [(first, candle_end(part.interval, last)) for _, first, last in runs.iter_rows()]


def record_gaps(
    connection: psycopg.Connection,
    part: Window,
    frame: pl.DataFrame,
    lo: datetime,
    hi: datetime,
    stretches: Sequence[Fetched],
    accepted: Sequence[Gap],
    listed: datetime | None,
    status: str,
    delivery: datetime | None = None,
) -> None:
    """Make `gaps` match ``frame``, whose rows are stored already, for the opens [lo, hi) of a market.

    ``accepted``: the gaps that rest on a person's acceptance alone. ``listed``: open of the market's first candle.
    ``status``: the exchange's current status of the symbol, empty if the source has none. Gaps found in the range are
    joined with stored ones that touch it.
    """
    if lo >= hi:
        return
    market = (part.symbol, part.interval)
    # without the lock, two runs that meet at a month's end would each join the row they see
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"gaps of {market[0]} {market[1]}",))
    rows = connection.execute(
        """SELECT first_open, end_open, reason, evidence FROM gaps
            WHERE symbol = %s AND "interval" = %s AND first_open <= %s AND end_open >= %s""",
        (*market, hi, lo),
    )
    stored = [Gap(first.astimezone(UTC), end.astimezone(UTC), *rest) for first, end, *rest in rows]
    missing = [Gap(first, end, "", "") for first, end in absent(part, lo, hi, frame)]
    by_hand = [
        replace(gap, first=max(gap.first, known.first), end=min(gap.end, known.end), reason=ACCEPTED, evidence=why)
        for known in accepted
        for why in (known.evidence,)
        for gap in missing
        if gap.first < known.end and known.first < gap.end
    ]
    for known in accepted:
        missing = _outside(missing, known.first, known.end)
    found = by_hand + [replace(gap, evidence=_asked(gap.first, gap.end, stretches)) for gap in missing]
    wanted = [
        _explained(connection, market, gap, frame, listed, status, delivery)
        for gap in _joined([*_outside(stored, lo, hi), *found])
    ]
    for gap in stored:
        if gap not in wanted:
            connection.execute(
                """DELETE FROM gaps WHERE symbol = %s AND "interval" = %s AND first_open = %s""", (*market, gap.first)
            )
    for gap in wanted:
        if gap not in stored:
            connection.execute(
                """INSERT INTO gaps (symbol, "interval", first_open, end_open, reason, evidence)
                   VALUES (%s, %s, %s, %s, %s, %s)""",
                (*market, gap.first, gap.end, gap.reason, gap.evidence),
            )


def _asked(first: datetime, end: datetime, stretches: Iterable[Fetched]) -> str:
    asked = [s.origin for s in stretches if s.lo < end and first < s.hi]
    return "; ".join(dict.fromkeys(f"{o.kind} {o.name} has no candle there" for o in asked))


def _outside(gaps: Iterable[Gap], lo: datetime, hi: datetime) -> list[Gap]:
    """Return the parts of the gaps that lie outside [lo, hi)."""
    pieces = [piece for g in gaps for piece in (replace(g, end=min(g.end, lo)), replace(g, first=max(g.first, hi)))]
    return [piece for piece in pieces if piece.first < piece.end]


def _joined(gaps: Iterable[Gap]) -> list[Gap]:
    """Join gaps that touch, and drop conclusions about the pieces; accepted gaps join only each other."""
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.first):
        if gap.reason == ACCEPTED or (joined and joined[-1].reason == ACCEPTED):
            if joined and joined[-1].end == gap.first and joined[-1].evidence == gap.evidence:
                gap = replace(gap, first=joined.pop().first)
            elif gap.reason != ACCEPTED:
                gap = replace(gap, evidence="; ".join(_facts(gap)))
            joined.append(gap)
            continue
        asked = _facts(gap)
        if joined and joined[-1].end == gap.first:
            asked = list(dict.fromkeys([*joined[-1].evidence.split("; "), *asked]))
            gap = replace(gap, first=joined.pop().first)
        joined.append(replace(gap, evidence="; ".join(asked)))
    return joined


def _facts(gap: Gap) -> list[str]:
    """Return the evidence without conclusions drawn from it."""
    return [item for item in gap.evidence.split("; ") if item and not item.startswith((_STATUS, _PRICE))]


def _explained(
    connection: psycopg.Connection,
    market: tuple[str, str],
    gap: Gap,
    frame: pl.DataFrame,
    listed: datetime | None,
    status: str,
    delivery: datetime | None,
) -> Gap:
    """Return the gap with its reason, derived from the candles around it."""
    if gap.reason == ACCEPTED:
        return gap
    if listed is None or gap.end <= listed:
        begins = f"the first candle opens at {listed:%Y-%m-%d %H:%M} UTC" if listed else "there is no candle yet"
        return replace(gap, reason="listing", evidence=gap.evidence or begins)
    if delivery is not None and gap.end > delivery:
        ends = f"the contract was delivered at {delivery:%Y-%m-%d %H:%M} UTC"
        asked = [item for item in gap.evidence.split("; ") if item and item != ends]
        return replace(gap, reason="delivery", evidence="; ".join([*asked, ends]))
    is_long = gap.end - gap.first >= REUSE_AFTER
    if not is_long and frame.height and frame["timestamp"][-1] >= gap.end:
        return replace(gap, reason="outage")
    after = _price(connection, market, 'open FROM market_data {} AND "timestamp" >= %s ORDER BY "timestamp"', gap.end)
    if after is None:
        if status in ("", "TRADING"):
            return replace(gap, reason="outage")
        reason = "halt" if status == "HALT" else "delisting"
        return replace(gap, reason=reason, evidence=f"{gap.evidence}; {_STATUS}{status}")
    before = _price(
        connection, market, 'close FROM market_data {} AND "timestamp" < %s ORDER BY "timestamp" DESC', gap.first
    )
    if is_long and before is not None and max(before, after) >= REUSE_FACTOR * min(before, after):
        evidence = f"{gap.evidence}; {_PRICE}from {before.normalize():f} to {after.normalize():f}"
        return replace(gap, reason="reuse?", evidence=evidence)
    return replace(gap, reason="outage")


def _price(connection: psycopg.Connection, market: tuple[str, str], which: str, moment: datetime) -> Decimal | None:
    condition = 'WHERE symbol = %s AND "interval" = %s'
    row = connection.execute(f"SELECT {which.format(condition)} LIMIT 1", (*market, moment)).fetchone()
    return None if row is None else row[0]

"""Record candles that do not exist, and why.

A gap is a run of grid points for which the source has no candle, or which a person has accepted as absent. It is one
row of `gaps`, however many fetches it took: a delisted market's row grows with every day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class Answered:
    """What the source answered for the opens of a part of a market: its rows, and the ranges that it covers.

    ``accepted``: the gaps that rest on a person's acceptance alone. ``listed``: open of the market's first candle.
    ``status``: the exchange's current status of the symbol, empty if the source has none. ``delivery``: when a dated
    contract ends.
    """

    part: Window
    frame: pl.DataFrame
    ranges: Sequence[tuple[datetime, datetime]]
    stretches: Sequence[Fetched]
    accepted: Sequence[Gap]
    listed: datetime | None
    status: str
    delivery: datetime | None

    @property
    def market(self) -> tuple[str, str]:
        """Symbol and interval."""
        return self.part.symbol, self.part.interval


def record_gaps(connection: psycopg.Connection, answers: Sequence[Answered]) -> None:
    """Make `gaps` match the frames, whose rows are stored already, for the ranges of opens that the sources cover.

    Gaps found in a range are joined with stored ones that touch it.
    """
    by_market: dict[tuple[str, str], list[Answered]] = {}
    for answer in answers:
        if any(lo < hi for lo, hi in answer.ranges):
            by_market.setdefault(answer.market, []).append(answer)
    if not by_market:
        return
    stored = _stored(connection, by_market)
    found: dict[tuple[str, str], list[Gap]] = {}
    touched: list[tuple[tuple[str, str], Gap]] = []
    for market, of_market in by_market.items():
        known, changed = _with_found(stored.get(market, []), of_market)
        found[market] = known
        touched += [(market, gap) for gap in changed]
    prices = _prices(connection, [item for item in touched if _needs_prices(item[1], by_market[item[0]])])
    for market, gap in touched:
        known = found[market]
        known[known.index(gap)] = _explained(gap, by_market[market], prices.get((market, gap)))
    _replace(connection, stored, found)


def _stored(
    connection: psycopg.Connection, by_market: Mapping[tuple[str, str], Sequence[Answered]]
) -> dict[tuple[str, str], list[Gap]]:
    """Lock the markets' gaps, and return those that touch the ranges."""
    # without the lock, two runs that meet at a month's end would each join the row they see
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(%s::text[]) AS name",
        ([f"gaps of {symbol} {interval}" for symbol, interval in sorted(by_market)],),
    )
    spans = []
    for market, answers in by_market.items():
        ranges = [span for answer in answers for span in answer.ranges]
        spans.append((*market, min(lo for lo, _ in ranges), max(hi for _, hi in ranges)))
    rows = connection.execute(
        """SELECT g.symbol, g."interval", g.first_open, g.end_open, g.reason, g.evidence
             FROM unnest(%s::varchar[], %s::varchar[], %s::timestamptz[], %s::timestamptz[])
                  AS w (symbol, "interval", lo, hi)
             JOIN gaps AS g USING (symbol, "interval") WHERE g.first_open <= w.hi AND g.end_open >= w.lo
            ORDER BY g.first_open""",
        [list(column) for column in zip(*spans, strict=True)],
    )
    stored: dict[tuple[str, str], list[Gap]] = {}
    for symbol, interval, first, end, *rest in rows:
        gap = Gap(first.astimezone(UTC), end.astimezone(UTC), *rest)
        stored.setdefault((symbol, interval), []).append(gap)
    return stored


def _with_found(stored: Sequence[Gap], answers: Sequence[Answered]) -> tuple[list[Gap], list[Gap]]:
    """Return a market's gaps once the answers are known, and those of them that touch an answered range."""
    known = list(stored)
    changed: list[Gap] = []
    for answer in answers:
        for lo, hi in answer.ranges:
            if lo >= hi:
                continue
            touching = [gap for gap in known if gap.first <= hi and gap.end >= lo]
            wanted = _joined([*_outside(touching, lo, hi), *_found(answer, lo, hi)])
            known = [gap for gap in known if gap not in touching] + wanted
            changed = [gap for gap in changed if gap not in touching] + wanted
    return known, changed


def _found(answer: Answered, lo: datetime, hi: datetime) -> list[Gap]:
    """Return the grid points in [lo, hi) without a candle, as gaps: accepted ones, and those that the source has."""
    missing = [Gap(first, end, "", "") for first, end in absent(answer.part, lo, hi, answer.frame)]
    by_hand = [
        replace(
            gap,
            first=max(gap.first, known.first),
            end=min(gap.end, known.end),
            reason=ACCEPTED,
            evidence=known.evidence,
        )
        for known in answer.accepted
        for gap in missing
        if gap.first < known.end and known.first < gap.end
    ]
    for known in answer.accepted:
        missing = _outside(missing, known.first, known.end)
    return by_hand + [replace(gap, evidence=_asked(gap.first, gap.end, answer.stretches)) for gap in missing]


def _replace(
    connection: psycopg.Connection,
    stored: Mapping[tuple[str, str], Sequence[Gap]],
    found: Mapping[tuple[str, str], Sequence[Gap]],
) -> None:
    """Delete the stored gaps that are no longer found, and insert those that are new."""
    gone = [(*market, gap.first) for market, gaps in stored.items() for gap in gaps if gap not in found[market]]
    new = [
        (*market, gap.first, gap.end, gap.reason, gap.evidence)
        for market, gaps in found.items()
        for gap in gaps
        if gap not in stored.get(market, ())
    ]
    if gone:
        connection.execute(
            """DELETE FROM gaps AS g USING unnest(%s::varchar[], %s::varchar[], %s::timestamptz[])
                                           AS w (symbol, "interval", first_open)
                WHERE (g.symbol, g."interval", g.first_open) = (w.symbol, w."interval", w.first_open)""",
            [list(column) for column in zip(*gone, strict=True)],
        )
    if new:
        connection.execute(
            """INSERT INTO gaps (symbol, "interval", first_open, end_open, reason, evidence)
               SELECT * FROM unnest(%s::varchar[], %s::varchar[], %s::timestamptz[], %s::timestamptz[], %s::varchar[],
                                    %s::text[])""",
            [list(column) for column in zip(*new, strict=True)],
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


def _needs_prices(gap: Gap, answers: Sequence[Answered]) -> bool:
    """Return whether the reason of a gap depends on the stored candles around it."""
    listed, delivery = answers[-1].listed, answers[-1].delivery
    if gap.reason == ACCEPTED or listed is None or gap.end <= listed or (delivery is not None and gap.end > delivery):
        return False
    return _is_long(gap) or not _continues(gap, answers)


def _is_long(gap: Gap) -> bool:
    return gap.end - gap.first >= REUSE_AFTER


def _continues(gap: Gap, answers: Sequence[Answered]) -> bool:
    """Return whether a candle after the gap is among the answers."""
    return any(answer.frame.height and answer.frame["timestamp"][-1] >= gap.end for answer in answers)


def _explained(gap: Gap, answers: Sequence[Answered], prices: tuple[Decimal | None, Decimal | None] | None) -> Gap:
    """Return the gap with its reason, derived from the candles around it. ``prices``: before and after it."""
    listed, status, delivery = answers[-1].listed, answers[-1].status, answers[-1].delivery
    if gap.reason == ACCEPTED:
        return gap
    if listed is None or gap.end <= listed:
        begins = f"the first candle opens at {listed:%Y-%m-%d %H:%M} UTC" if listed else "there is no candle yet"
        return replace(gap, reason="listing", evidence=gap.evidence or begins)
    if delivery is not None and gap.end > delivery:
        ends = f"the contract was delivered at {delivery:%Y-%m-%d %H:%M} UTC"
        asked = [item for item in gap.evidence.split("; ") if item and item != ends]
        return replace(gap, reason="delivery", evidence="; ".join([*asked, ends]))
    if prices is None:
        return replace(gap, reason="outage")
    before, after = prices
    if after is None:
        if status in ("", "TRADING"):
            return replace(gap, reason="outage")
        reason = "halt" if status == "HALT" else "delisting"
        return replace(gap, reason=reason, evidence=f"{gap.evidence}; {_STATUS}{status}")
    if _is_long(gap) and before is not None and max(before, after) >= REUSE_FACTOR * min(before, after):
        evidence = f"{gap.evidence}; {_PRICE}from {before.normalize():f} to {after.normalize():f}"
        return replace(gap, reason="reuse?", evidence=evidence)
    return replace(gap, reason="outage")


def _prices(
    connection: psycopg.Connection, gaps: Sequence[tuple[tuple[str, str], Gap]]
) -> dict[tuple[tuple[str, str], Gap], tuple[Decimal | None, Decimal | None]]:
    """Return the last close before each gap and the first open after it; None where there is no candle."""
    if not gaps:
        return {}
    rows = connection.execute(
        """SELECT (SELECT close FROM market_data AS c WHERE c.symbol = w.symbol AND c."interval" = w."interval"
                      AND c."timestamp" < w.lo ORDER BY c."timestamp" DESC LIMIT 1),
                  (SELECT open FROM market_data AS c WHERE c.symbol = w.symbol AND c."interval" = w."interval"
                      AND c."timestamp" >= w.hi ORDER BY c."timestamp" LIMIT 1)
             FROM unnest(%s::varchar[], %s::varchar[], %s::timestamptz[], %s::timestamptz[])
                  WITH ORDINALITY AS w (symbol, "interval", lo, hi, n) ORDER BY n""",
        [
            [symbol for (symbol, _), _ in gaps],
            [interval for (_, interval), _ in gaps],
            [gap.first for _, gap in gaps],
            [gap.end for _, gap in gaps],
        ],
    ).fetchall()
    return dict(zip(gaps, rows, strict=True))

"""Assemble the rows of a part of one market's days, with the sources and gaps to record with them.

A day is complete when its end has passed by the source's clock and the source covers all of it; candles that are
still missing do not exist and are recorded as a gap. Days that the source does not cover stay incomplete.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

import polars as pl

from algobot_assets.feed.source import Fetched, Source
from algobot_assets.pipeline.candles.accepted_gaps import ACCEPTED, AcceptedGap, unanswered
from algobot_assets.pipeline.candles.gap_records import Answered, Gap, record_gaps
from algobot_assets.pipeline.candles.plan import MarketPlan
from algobot_assets.pipeline.candles.source_records import Delivered, record_sources
from algobot_assets.pipeline.steps.frames import Record, WindowFrame
from algobot_assets.pipeline.steps.handed_on import hand_on
from algobot_assets.pipeline.steps.incremental import DAY
from algobot_assets.schema.frames import empty
from algobot_assets.schema.intervals import day_of, days_between, midnight, opens_window
from algobot_assets.schema.windows import Window, content_columns
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.digests import NOTHING, day_digests
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.reader import read_window

CODE_VERSION = "1"
#: For progress displays in this process: how many windows are planned, and which one is being fetched.
LOG = logging.getLogger("algobot.windows")
#: One part of a market: its rows and the notes of the source.
FetchedPart = tuple[WindowFrame, tuple[str, ...]]


def adopted_part(plan: MarketPlan, store: Store, days: Sequence[date]) -> FetchedPart:
    """Keep rows that were changed by hand: record their days as they are, so that later tables recompute.

    ``inputs`` keeps the digest of the source's rows, so the difference stays visible.
    """
    part = plan.window.of(days[0], days[-1] + DAY)
    frame = read_window(store, part)
    recorded = plan.recorded
    inputs = [DayInputs(d, recorded[d].complete_through, recorded[d].inputs, code_version=CODE_VERSION) for d in days]
    return WindowFrame(part, frame, inputs), ()


def fetched_part(plan: MarketPlan, source: Source, days: Sequence[date]) -> FetchedPart:
    """Fetch the window's candles, with the sources and gaps to record in their transaction."""
    part = plan.window.of(days[0], days[-1] + DAY)
    text = f"{part.symbol} {part.interval} {part.first:%Y-%m}"
    LOG.info("fetching", extra={"table": "market_data", "fetching": text})
    stretches, accepted, answered = _answers(plan, source, part)
    frame = pl.concat([s.frame for s in stretches]) if stretches else empty("market_data")
    frame = frame.sort("timestamp")
    day = frame.select(day_of(part.interval, part.phase).alias("day"))["day"]
    digests = day_digests(frame, content_columns("market_data"), day)
    records = [
        DayInputs(
            item,
            _complete_through(part, item, answered, plan.settled),
            digests.get(item, (0, NOTHING))[1],
            code_version=CODE_VERSION,
        )
        for item in days
    ]

    answer = Answered(part, frame, answered, stretches, accepted, plan.listed, plan.status, plan.delivery)
    extra = [
        Record(record_sources, Delivered(part, days, stretches, plan.known)),
        Record(record_gaps, answer),
    ]
    hand_on(part, frame, digests)
    return WindowFrame(part, frame, records, extra, digests), tuple(note for s in stretches for note in s.notes)


def _answers(
    plan: MarketPlan, source: Source, part: Window
) -> tuple[list[Fetched], list[Gap], list[tuple[datetime, datetime]]]:
    """Return the window's stretches from the source, its accepted gaps, and the ranges of opens that both cover.

    After a stretch that the source does not cover, its candles count from the next whole day on: the days in between
    stay incomplete, and the next run fetches them again.
    """
    lo, hi = opens_window(part.interval, part.first, part.end, part.phase)
    delivered = list(source.fetch(part.symbol, part.interval, lo, hi))
    # nothing is unknown before a market's first candle
    answered = [(lo, lo if plan.listed is None else max(lo, min(hi, plan.listed)))]
    begin, covered = answered[0]
    accepted = _accepted(plan.accepted, part, [(begin, covered), *((s.lo, s.hi) for s in delivered)])
    stretches: list[Fetched] = []
    gaps: list[Gap] = []
    items: list[tuple[datetime, datetime, Fetched | Gap]] = [(s.lo, s.hi, s) for s in delivered]
    for first, end, item in sorted([*items, *accepted], key=lambda each: each[0]):
        begin, covered = answered[-1]
        start = first
        if first <= covered:
            answered[-1] = begin, max(covered, end)
        else:
            start = _next_day(part, first)
            if start >= end:
                continue
            answered.append((start, end))
        if isinstance(item, Gap):
            gaps.append(replace(item, first=start))
        elif start == first:
            stretches.append(item)
        else:
            frame = item.frame.filter(pl.col("timestamp") >= start)
            stretches.append(replace(item, lo=start, frame=frame))
    begin, covered = answered[-1]
    if plan.delivery is not None and covered >= plan.delivery:
        answered[-1] = begin, max(covered, hi)  # nothing trades after the delivery
    return stretches, gaps, answered


def _accepted(
    accepted: Sequence[AcceptedGap], part: Window, answered: Sequence[tuple[datetime, datetime]]
) -> Iterator[tuple[datetime, datetime, Gap]]:
    """Yield the ranges of the window that the source does not cover and a person has accepted as absent."""
    for known in accepted:
        first, end = max(part.first, known.first), min(part.end, known.last + DAY)
        if first < end:
            span = opens_window(part.interval, first, end, part.phase)
            for lo, hi in unanswered(*span, answered):
                yield lo, hi, Gap(lo, hi, ACCEPTED, known.evidence)


def _next_day(part: Window, moment: datetime) -> datetime:
    """Return the first open of the window's first day that begins at or after ``moment``."""
    opens = (opens_window(part.interval, day, day + DAY, part.phase)[0] for day in days_between(part.first, part.end))
    return next((opened for opened in opens if opened >= moment), datetime.max.replace(tzinfo=UTC))


def _complete_through(
    part: Window, day: date, answered: Sequence[tuple[datetime, datetime]], known: datetime
) -> datetime:
    """Return the time up to which the source covers the day: the day's end only once that has passed."""
    end = midnight(day + DAY)
    first_open, last_open = opens_window(part.interval, day, day + DAY, part.phase)
    covered = max((hi for lo, hi in answered if lo <= first_open), default=midnight(day))
    if covered >= last_open and known >= end:
        return end
    return max(midnight(day), min(covered, end))

"""Frames that a run has computed are handed on whole, once, and only while lineage names their content."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest
from conftest import published_candles

from algobot_assets.feed.klines import from_published
from algobot_assets.pipeline.steps import handed_on as module
from algobot_assets.pipeline.steps.handed_on import hand_on, handed_on
from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.windows import Window, content_columns
from algobot_assets.store.lineage.digests import day_digests
from algobot_assets.store.writer import row_days

FIRST = date(2024, 2, 1)
CANDLES = from_published(published_candles(midnight(FIRST), 24 * 8), "BTCUSDT", "1h", where="a test")
OUTPUTS = {
    day: digest
    for day, (_, digest) in day_digests(
        CANDLES,
        content_columns("market_data"),
        row_days(Window("market_data", FIRST, FIRST + timedelta(days=8), "BTCUSDT", "1h"), CANDLES),
    ).items()
}


def window(first: int, end: int) -> Window:
    return Window("market_data", FIRST + timedelta(days=first), FIRST + timedelta(days=end), "BTCUSDT", "1h")


def rows(first: int, end: int) -> pl.DataFrame:
    return CANDLES[24 * first : 24 * end].select("timestamp", "open", "high", "low", "close", "volume")


def keep(first: int, end: int) -> None:
    part = window(first, end)
    frame = CANDLES[24 * first : 24 * end]
    hand_on(part, frame, day_digests(frame, content_columns("market_data"), row_days(part, frame)))


def outputs(first: int, end: int) -> dict[date, bytes]:
    return {day: digest for day, digest in OUTPUTS.items() if window(first, end).first <= day < window(first, end).end}


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_kept", module._Kept())


@pytest.mark.parametrize(
    "kept", [[(0, 8)], [(0, 3), (3, 8)], [(0, 4), (2, 8)], [(1, 5), (0, 8)], [(0, 6), (2, 4), (3, 8)]]
)
def test_kept_frames_give_each_row_once_however_they_overlap(kept: list[tuple[int, int]]):
    for first, end in kept:
        keep(first, end)
    for first, end in ((0, 8), (2, 6), (3, 4)):
        found = handed_on(window(first, end), outputs(first, end))
        assert found is not None and found.equals(rows(first, end))


def test_a_day_that_is_not_kept_or_has_other_content_is_not_handed_on():
    keep(0, 3)
    assert handed_on(window(0, 4), outputs(0, 4)) is None
    changed = outputs(0, 3) | {FIRST: b"other"}
    assert handed_on(window(0, 3), changed) is None


def test_the_oldest_frames_make_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_MOST_BYTES", int(rows(0, 2).estimated_size() * 1.5))
    keep(0, 2)
    keep(2, 4)
    assert handed_on(window(0, 2), outputs(0, 2)) is None
    assert handed_on(window(2, 4), outputs(2, 4)) is not None

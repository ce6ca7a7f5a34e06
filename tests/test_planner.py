"""Archive and REST together: the right one for each stretch, and no gap that was not asked for twice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from algobot_assets.errors import SourceError, SourceUnavailable
from algobot_assets.feed import klines
from algobot_assets.feed.archive import Archive
from algobot_assets.feed.archive_files import ArchiveName
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.planner import ArchiveAndRest
from algobot_assets.feed.retry import Retry
from algobot_assets.feed.simulated import faults
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.simulated.prices import SimulatedPrices
from algobot_assets.feed.simulated.replay import ReplayedPrices
from algobot_assets.feed.source import Fetched, Source

DATA = Path(os.environ.get("ALGOBOT_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no development candles at {DATA}")
PRICES = SimulatedPrices()
NOW = datetime(2024, 5, 10, 12, 34, 20, tzinfo=UTC)
MONTHLY, DAILY, REST = "monthly archive", "daily archive", "rest"


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)


def feed_of(simulated: SimulatedExchange) -> ArchiveAndRest:
    def retry() -> Retry:
        return Retry(sleep=simulated.advance, clock=simulated.timestamp)

    return ArchiveAndRest(Exchange(simulated.url, retry=retry()), Archive(simulated.url, retry=retry()))


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[SimulatedExchange, ArchiveAndRest]]]:
    started: list[tuple[SimulatedExchange, ArchiveAndRest]] = []

    def serve(now: datetime = NOW, **options: object) -> tuple[SimulatedExchange, ArchiveAndRest]:
        simulated = SimulatedExchange(**{"prices": PRICES, "now": now, **options})
        simulated.start()
        started.append((simulated, feed_of(simulated)))
        return started[-1]

    yield serve
    for simulated, feed in started:
        feed.close()
        simulated.stop()


def market(simulated: SimulatedExchange, symbol: str, interval: str, lo: datetime, hi: datetime) -> pl.DataFrame:
    """The market's own candles in [lo, hi)."""
    months = [m for m in simulated.prices.months(symbol, hi) if m >= lo.date().replace(day=1)]
    tables = [simulated.prices.candles(symbol, interval, month, utc(2030, 1, 1)) for month in months]
    frame = klines.from_published(pl.concat(tables), symbol, interval)
    return frame.filter(pl.col("timestamp").is_between(lo, hi, closed="left"))


def gather(feed: Source, symbol: str, interval: str, lo: datetime, hi: datetime) -> tuple[pl.DataFrame, list[Fetched]]:
    """All candles and their stretches, which must cover [lo, hi) without a gap, each within a month."""
    stretches = list(feed.fetch(symbol, interval, lo, hi))
    assert stretches[0].lo == lo
    assert stretches[-1].hi == hi
    for before, after in pairwise(stretches):
        assert before.hi == after.lo
    for stretch in stretches:
        last = stretch.hi - timedelta(microseconds=1)
        assert (stretch.lo.year, stretch.lo.month) == (last.year, last.month)
        assert stretch.frame["timestamp"].is_between(stretch.lo, stretch.hi, closed="left").all()
        assert (stretch.origin.sha256 is None) == (stretch.origin.kind == REST)
        assert dict(stretch.frame.schema) == klines.SCHEMA
    return pl.concat([s.frame for s in stretches]), stretches


def kinds(stretches: list[Fetched]) -> list[tuple[str, str, str]]:
    """(kind, first day, last day) of each run of stretches of one kind."""
    runs: list[tuple[str, str, str]] = []
    for s in stretches:
        last = f"{s.hi - timedelta(microseconds=1):%m-%d}"
        if runs and runs[-1][0] == s.origin.kind:
            runs[-1] = (s.origin.kind, runs[-1][1], last)
        else:
            runs.append((s.origin.kind, f"{s.lo:%m-%d}", last))
    return runs


def test_the_planner_prefers_months_then_days_then_rest(serve: Callable) -> None:
    simulated, feed = serve()
    lo, hi = utc(2024, 2, 27), utc(2024, 5, 10, 12, 34)
    frame, stretches = gather(feed, "BTCUSDT", "1m", lo, hi)
    assert kinds(stretches) == [
        (DAILY, "02-27", "02-29"),
        (MONTHLY, "03-01", "04-30"),
        (DAILY, "05-01", "05-09"),
        (REST, "05-10", "05-10"),
    ]
    assert frame.equals(market(simulated, "BTCUSDT", "1m", lo, hi))
    assert not any(s.notes for s in stretches)


def test_what_rest_can_bring_in_three_pages_is_asked_there(serve: Callable) -> None:
    simulated, feed = serve()
    for symbol, interval, lo in (
        ("BTCUSDT", "1m", utc(2024, 5, 9)),
        ("BTCUSDT", "1h", utc(2024, 4, 2)),
        ("BTCUSDT", "1d", utc(2023, 1, 1)),
        ("DOGEUSDT", "3d", utc(2023, 1, 1)),
        ("BTCUSDT", "1w", utc(2022, 1, 1)),
        ("BTCUSDT", "1M", utc(2022, 1, 1)),
    ):
        stretches = list(feed.fetch(symbol, interval, lo, NOW))
        assert {s.origin.kind for s in stretches} == {REST}
        frame = pl.concat([s.frame for s in stretches])
        assert frame.equals(market(simulated, symbol, interval, lo, stretches[-1].hi))
    assert not any("/data/" in path for path in simulated.requests)


def test_archives_not_out_yet_are_replaced_by_the_next_best(serve: Callable) -> None:
    simulated, feed = serve(now=utc(2024, 5, 3, 1))  # April's file appears on the 6th, 2 May's at 02:00
    lo, hi = utc(2024, 3, 1), utc(2024, 5, 3)
    frame, stretches = gather(feed, "ETHUSDT", "1m", lo, hi)
    assert kinds(stretches) == [
        (MONTHLY, "03-01", "03-31"),
        (DAILY, "04-01", "04-30"),
        (REST, "05-01", "05-02"),
    ]
    assert frame.equals(market(simulated, "ETHUSDT", "1m", lo, hi))


def test_perpetuals_have_their_own_archive(serve: Callable) -> None:
    simulated, feed = serve()
    lo, hi = utc(2024, 4, 1), utc(2024, 5, 2)
    frame, stretches = gather(feed, "BTCUSDT.UM", "5m", lo, hi)
    assert kinds(stretches) == [(MONTHLY, "04-01", "04-30"), (REST, "05-01", "05-01")]
    assert frame.equals(market(simulated, "BTCUSDT.UM", "5m", lo, hi))
    assert simulated.requests["/data/futures/um/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-04.zip"] == 1
    assert frame["symbol"].unique().to_list() == ["BTCUSDT.UM"]


def test_listing_and_delisting_cost_a_request_not_a_search(serve: Callable) -> None:
    simulated, feed = serve(now=utc(2024, 12, 20))
    lo, hi = utc(2022, 2, 1), utc(2024, 12, 1)
    frame, stretches = gather(feed, "GONEUSDT", "30m", lo, hi)
    assert frame.equals(market(simulated, "GONEUSDT", "30m", lo, hi))
    assert frame["timestamp"][0] == utc(2022, 3, 11, 6)
    assert frame["timestamp"][-1] == utc(2024, 9, 8, 8, 30)
    assert stretches[0].origin.kind == REST  # before the listing: empty, and known to be so
    assert kinds(stretches)[1] == (MONTHLY, "03-11", "09-07")
    assert not any("/daily/" in path for path in simulated.requests)
    assert simulated.requests["/api/v3/klines"] < 10


def test_a_real_outage_is_asked_twice_and_then_confirmed(serve: Callable) -> None:
    outage = (utc(2024, 4, 10, 11, 28), utc(2024, 4, 11, 2))
    _, feed = serve(prices=SimulatedPrices(outages=(outage,)))
    frame, stretches = gather(feed, "BTCUSDT", "5m", utc(2024, 4, 1), utc(2024, 5, 1))
    assert kinds(stretches) == [
        (MONTHLY, "04-01", "04-09"),
        (REST, "04-10", "04-11"),
        (MONTHLY, "04-12", "04-30"),
    ]
    assert frame.height == 30 * 288 - 174
    assert frame.filter(pl.col("timestamp").is_between(utc(2024, 4, 10, 11, 30), utc(2024, 4, 11, 1, 59))).is_empty()
    assert not any(s.notes for s in stretches)  # the two agree


def test_a_gap_of_the_archive_alone_is_filled_from_rest(serve: Callable) -> None:
    simulated, feed = serve()
    month = ArchiveName("BTCUSDT", "5m", "monthly", date(2024, 4, 1))
    simulated.republish(month.path, faults.without_rows(288 * 9 + 5, 288 * 9 + 25))
    lo, hi = utc(2024, 4, 1), utc(2024, 5, 1)
    frame, stretches = gather(feed, "BTCUSDT", "5m", lo, hi)
    assert kinds(stretches) == [
        (MONTHLY, "04-01", "04-09"),
        (REST, "04-10", "04-10"),
        (MONTHLY, "04-11", "04-30"),
    ]
    assert frame.equals(market(simulated, "BTCUSDT", "5m", lo, hi))
    assert [s.notes for s in stretches if s.notes] == [
        (
            "BTCUSDT 5m 2024-04-10: BTCUSDT-5m-2024-04.zip holds 268 candles, REST 288, not all alike; those"
            " of api/v3/klines are kept.",
        )
    ]


def test_where_they_differ_on_a_day_both_were_asked_rest_is_kept(serve: Callable) -> None:
    simulated, feed = serve(prices=SimulatedPrices(outages=((utc(2024, 4, 10, 11), utc(2024, 4, 10, 12)),)))
    month = ArchiveName("BTCUSDT", "5m", "monthly", date(2024, 4, 1))
    true = market(simulated, "BTCUSDT", "5m", utc(2024, 4, 1), utc(2024, 5, 1))
    volume = true.filter(pl.col("timestamp") == utc(2024, 4, 10))["volume"][0]
    simulated.republish(month.path, faults.replaced(f",{volume:f},".encode(), b",1.00000000,"))
    frame, stretches = gather(feed, "BTCUSDT", "5m", utc(2024, 4, 1), utc(2024, 5, 1))
    assert frame.equals(true)
    assert "holds 276 candles, REST 276, not all alike" in stretches[1].notes[0]


def test_a_monthly_file_that_is_whole_and_wrong_is_corrected_from_rest(serve: Callable) -> None:
    simulated, feed = serve()
    lo, hi = utc(2024, 4, 1), utc(2024, 5, 1)
    right = market(simulated, "BTCUSDT", "5m", lo, hi)
    tenth = right.filter(pl.col("timestamp") == utc(2024, 4, 10, 7))
    month = ArchiveName("BTCUSDT", "5m", "monthly", date(2024, 4, 1))
    simulated.republish(month.path, faults.replaced(f",{tenth['volume'][0]:f},".encode(), b",0.00000001,"))
    frame, stretches = gather(feed, "BTCUSDT", "5m", lo, hi)
    assert frame.equals(right)
    assert kinds(stretches) == [(MONTHLY, "04-01", "04-09"), (REST, "04-10", "04-10"), (MONTHLY, "04-11", "04-30")]
    assert "not all alike; those of" in stretches[1].notes[0]
    simulated.requests.clear()
    later, _ = gather(feed, "BTCUSDT", "15m", lo, hi)
    assert later.height == 30 * 96
    assert simulated.requests["/api/v3/klines"] <= 1, "the day candles have been asked for already"


def test_candles_that_only_the_archive_still_holds_are_kept(serve: Callable) -> None:
    simulated, feed = serve()
    month = ArchiveName("BTCUSDT", "5m", "monthly", date(2024, 4, 1))
    simulated.republish(month.path, faults.without_rows(288 * 9 + 5, 288 * 9 + 6))
    simulated.faults.append(
        faults.Fault(lambda t: "interval=5m" in t and "limit=1000" in t, lambda a: faults.Answer(200, b"[]", {}))
    )
    frame, stretches = gather(feed, "BTCUSDT", "5m", utc(2024, 4, 1), utc(2024, 5, 1))
    assert frame.height == 30 * 288 - 1
    assert kinds(stretches) == [(MONTHLY, "04-01", "04-30")]
    assert "holds 287 candles, REST 0" in stretches[1].notes[0]


def test_a_daily_file_published_too_early_is_completed(serve: Callable) -> None:
    simulated, feed = serve()
    early = ArchiveName("BTCUSDT", "1m", "daily", date(2024, 5, 4))
    simulated.republish(early.path, faults.first_rows(230), made=utc(2024, 5, 4, 3, 50))
    lo, hi = utc(2024, 5, 2), utc(2024, 5, 7)
    frame, stretches = gather(feed, "BTCUSDT", "1m", lo, hi)
    assert kinds(stretches) == [
        (DAILY, "05-02", "05-03"),
        (REST, "05-04", "05-04"),
        (DAILY, "05-05", "05-06"),
    ]
    assert frame.equals(market(simulated, "BTCUSDT", "1m", lo, hi))


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (faults.wrong_checksum("2024-04.zip.CHECKSUM", times=9), "published checksum"),
        (faults.missing("2024-04.zip.CHECKSUM", times=9), "has no checksum"),
        (faults.truncated("2024-04.zip", times=9), "has a checksum that cannot be read|published checksum"),
    ],
)
def test_a_corrupt_month_is_skipped_with_a_note(serve: Callable, fault: faults.Fault, what: str) -> None:
    simulated, feed = serve()
    simulated.faults.append(fault)
    lo, hi = utc(2024, 4, 1), utc(2024, 5, 1)
    frame, stretches = gather(feed, "ETHUSDT", "5m", lo, hi)
    assert kinds(stretches) == [(DAILY, "04-01", "04-30")]
    assert frame.equals(market(simulated, "ETHUSDT", "5m", lo, hi))
    notes = [note for s in stretches for note in s.notes]
    assert len(notes) == 1
    assert re.search(what, notes[0])
    assert "ETHUSDT-5m-2024-04.zip" in notes[0]


def test_an_unreachable_archive_is_an_error_and_no_gap(serve: Callable) -> None:
    simulated, feed = serve()
    simulated.faults.append(faults.error("/data/", 503, times=999))
    with pytest.raises(SourceUnavailable, match=r"ETHUSDT-15m-2024-04.zip .* HTTP 503"):
        list(feed.fetch("ETHUSDT", "15m", utc(2024, 4, 1), utc(2024, 5, 1)))


def test_nothing_is_delivered_beyond_the_last_closed_candle(serve: Callable) -> None:
    _, feed = serve()
    stretches = list(feed.fetch("BTCUSDT", "1h", utc(2024, 5, 10), utc(2024, 6, 1)))
    assert stretches[-1].hi == utc(2024, 5, 10, 12)
    assert list(feed.fetch("BTCUSDT", "1h", utc(2024, 5, 10, 12), utc(2024, 6, 1))) == []
    assert list(feed.fetch("BTCUSDT", "1h", utc(2025, 1, 1), utc(2025, 1, 2))) == []


def test_rules_and_listings_come_from_the_exchange(serve: Callable) -> None:
    _, feed = serve()
    assert feed.server_time() == feed.known_through("BTCUSDT", "1m") == NOW
    assert feed.first_open("DOGEUSDT", "1m") == utc(2019, 7, 5, 12)
    assert "DOGEUSDT" in feed.symbols()
    assert feed.rules("DOGEUSDT").step == 1
    assert "with its archive" in feed.name
    with pytest.raises(SourceError, match="did you mean DOGEUSDT"):
        list(feed.fetch("DOGEUSD", "1m", utc(2024, 5, 1), utc(2024, 5, 2)))


@needs_data
def test_real_candles_arrive_alike_by_month_by_day_and_by_rest(serve: Callable) -> None:
    replayed = ReplayedPrices(DATA / "klines")
    true = klines.from_published(pl.read_parquet(DATA / "klines/spot/BTCUSDT-1m-2023.parquet"), "BTCUSDT", "1m").filter(
        pl.col("timestamp").is_between(utc(2023, 3, 1), utc(2023, 4, 1), closed="left")
    )
    for now, kind in ((utc(2023, 5, 1), MONTHLY), (utc(2023, 4, 3), DAILY)):
        _, feed = serve(now=now, prices=replayed)
        frame, stretches = gather(feed, "BTCUSDT", "1m", utc(2023, 3, 1), utc(2023, 4, 1))
        # 24 March 2023, when the exchange stood still, was asked from REST as well.
        assert kinds(stretches) == [
            (kind, "03-01", "03-23"),
            (REST, "03-24", "03-24"),
            (kind, "03-25", "03-31"),
        ]
        assert frame.equals(true)
        rest = pl.concat([s.frame for s in feed._exchange.fetch("BTCUSDT", "1m", utc(2023, 3, 1), utc(2023, 4, 1))])
        assert rest.equals(true)


@needs_data
def test_the_listing_day_of_a_real_market_is_fetched_once(serve: Callable) -> None:
    _, feed = serve(now=utc(2023, 6, 20), prices=ReplayedPrices(DATA / "klines"))
    frame, stretches = gather(feed, "ARBUSDT", "1m", utc(2023, 3, 1), utc(2023, 4, 1))
    assert frame["timestamp"][0] == utc(2023, 3, 23, 15)
    assert frame.filter(pl.col("timestamp") < utc(2023, 3, 24)).height == 540
    assert [s.origin.kind for s in stretches] == [REST, MONTHLY, REST, MONTHLY]
    assert sum(s.frame.height for s in stretches[:1]) == 0

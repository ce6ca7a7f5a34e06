"""The client's cache returns the frames of repeated queries, and never rows that have changed since."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import psycopg
from conftest import START, Project
from polars.testing import assert_frame_equal

from algobot_assets.client import Client, connect
from algobot_assets.client.cache import FrameCache

LAST = START + timedelta(days=9)
ASKED = ("BTCUSDT", "1h", "2024-02-01", "2024-02-03")


def questions(client: Client) -> list[pl.DataFrame]:
    """Every kind of answer that is kept."""
    return [
        client.candles(*ASKED).frame,
        client.candles(*ASKED, columns=["id", "close"]).frame,
        client.indicators(*ASKED).frame,
        client.candles_with_indicators(*ASKED).frame,
        client.signals(*ASKED).frame,
        client.signals(*ASKED, strategy="cross").frame,
        client.candles("BTCUSDT", "1h").frame,
    ]


def same(remembering: Client, plain: Client) -> None:
    """Both clients give the same frames and the same newest data."""
    for left, right in zip(questions(remembering), questions(plain), strict=True):
        assert_frame_equal(left, right)
    for name in ("candles", "indicators", "signals"):
        assert getattr(remembering, name)(*ASKED).newest == getattr(plain, name)(*ASKED).newest


def test_cached_frames_are_never_stale(project: Project, database_url):
    assert project.run(START, LAST - timedelta(days=1)).success
    with connect(cache_mb=16) as client, connect(cache_mb=0) as plain:
        questions(client)
        assert (client.cache_info.hits, client.cache_info.misses) == (0, 7)
        same(client, plain)
        assert client.cache_info.hits >= 7 and client.cache_info.frames == 7
        assert plain.cache_info.limit == plain.cache_info.hits == 0

        def by_hand(statement: str) -> None:
            with psycopg.connect(database_url) as connection:
                connection.execute(statement)
            before = client.cache_info.hits
            same(client, plain)
            assert client.cache_info.hits < before + 10, "at least what was touched is read again"
            same(client, plain)

        by_hand("""UPDATE market_data SET close = close + 1 WHERE "timestamp" = '2024-02-02T04:00Z'""")
        by_hand("""UPDATE market_data SET close = close + 1 WHERE "timestamp" = '2024-02-02T04:00Z'""")
        by_hand("""DELETE FROM indicators WHERE "timestamp" = '2024-02-01T04:00Z'""")
        # the run keeps the candle that was changed, and computes again what follows
        assert project.run(START, LAST - timedelta(days=1)).success
        same(client, plain)
        by_hand(
            """INSERT INTO market_data (symbol, "interval", "timestamp", open, high, low, close, volume, close_time,
                      quote_asset_volume, trades, taker_buy_base, taker_buy_quote, ignored)
               SELECT symbol, "interval", "timestamp" + interval '30 minutes', open, high, low, close, volume,
                      close_time, quote_asset_volume, trades, taker_buy_base, taker_buy_quote, ignored
                 FROM market_data WHERE "timestamp" = '2024-02-02T06:00Z'"""
        )
        before = client.candles(*ASKED).newest
        assert project.run(LAST).success
        same(client, plain)
        assert client.candles(*ASKED).newest > before, "the age is of the newest candle, wherever the range is"


def test_changes_to_a_returned_frame_do_not_reach_the_cache(project: Project, database_url):
    assert project.run(START, START + timedelta(days=3), ["market_data"]).success
    with connect() as client:
        first = client.candles("BTCUSDT", "1h").frame
        first.drop_in_place("close")
        first.extend(first)
        assert "close" in client.candles("BTCUSDT", "1h").frame.columns
        assert client.cache_info.hits == 1 and client.cache_info.hit_ratio == 0.5
        assert "bytes" in repr(client.cache_info)


def test_the_cache_is_bounded_and_evicts_the_least_recently_used():
    cache = FrameCache(1000)
    frame = pl.DataFrame({"a": list(range(25))})  # 200 bytes
    for number in range(5):
        cache.put(number, "key", frame)
    assert cache.get(0, "key") is not None
    cache.put(5, "key", frame)
    assert cache.get(1, "key") is None and cache.get(0, "key") is not None
    assert cache.info().bytes <= 1000 and cache.info().frames == 5
    cache.put(6, "key", pl.DataFrame({"a": list(range(100))}))
    assert cache.get(6, "key") is None, "too large"
    assert cache.get(0, "another key") is None and cache.info().frames == 4, "what is no longer so is given up"
    cache.put(7, None, frame)
    assert cache.get(7, None) is None and cache.info().uncacheable == 1
    cache.clear()
    assert cache.info().bytes == cache.info().frames == 0
    off = FrameCache(0)
    off.put(1, "key", frame)
    assert not off.is_on and off.get(1, "key") is None

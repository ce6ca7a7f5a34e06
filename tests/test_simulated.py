"""The simulated exchange behaves like the real one, and its market like a market."""

from __future__ import annotations

import io
import json
import os
import zipfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import requests

from algobot_assets.feed import klines
from algobot_assets.feed.archive_files import ArchiveName
from algobot_assets.feed.simulated import faults
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.simulated.faults import Answer
from algobot_assets.feed.simulated.listings import LISTINGS
from algobot_assets.feed.simulated.prices import SimulatedPrices
from algobot_assets.feed.simulated.replay import ReplayedPrices
from algobot_assets.schema.intervals import INTERVALS, expected_opens, phase_of

DATA = Path(os.environ.get("ALGOBOT_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no development candles at {DATA}")
NOW = datetime(2025, 2, 10, 12, 34, 20, tzinfo=UTC)
LATER = datetime(2030, 1, 1, tzinfo=UTC)
PRICES = SimulatedPrices()


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)


def ask(exchange: SimulatedExchange, target: str) -> Any:
    return json.loads(exchange.answer(target).body)


def unzipped(answer: Answer) -> bytes:
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        return archive.read(archive.namelist()[0])


@pytest.mark.parametrize("symbol", [listing.symbol for listing in LISTINGS])
@pytest.mark.parametrize("interval", [i for i in INTERVALS if i != "1s"])
def test_every_market_has_candles_that_pass_every_check(symbol: str, interval: str) -> None:
    month = date(2025, 3, 1) if symbol == "FRESHUSDT" else date(2024, 9, 1)
    table = PRICES.candles(symbol, interval, month, LATER)
    frame = klines.from_published(table, symbol, interval)
    listing = PRICES.listings[symbol]
    assert frame.height > 0
    ends = pl.Series([listing.delisted or LATER]).dt.cast_time_unit("us")
    assert (frame["timestamp"] < ends[0]).all()
    for column in ("open", "high", "low", "close"):
        assert all(value % listing.tick == 0 for value in frame[column].head(200))
    assert all(value % listing.step == 0 for value in frame["volume"].head(200))
    assert (frame["taker_buy_base"] <= frame["volume"]).all()
    assert (frame["taker_buy_quote"] <= frame["quote_asset_volume"]).all()
    traded = frame.filter(pl.col("volume") > 0).head(500)
    for volume, quote, low, high in traded.select("volume", "quote_asset_volume", "low", "high").iter_rows():
        assert low * volume - Decimal("0.00001") <= quote <= high * volume
    if listing.delisted is None and symbol != "FRESHUSDT":
        lo, hi = utc(2024, 9, 1), utc(2024, 10, 1)
        assert frame["timestamp"].equals(expected_opens(interval, lo, hi, phase_of(listing.listed)))


def test_any_window_is_the_same_whatever_was_asked_before() -> None:
    fresh = SimulatedPrices()
    april = fresh.candles("BTCUSDT", "1m", date(2024, 4, 1), LATER)
    assert april.equals(PRICES.candles("BTCUSDT", "1m", date(2024, 4, 1), LATER))
    other = SimulatedPrices(seed=2).candles("BTCUSDT", "1m", date(2024, 4, 1), LATER)
    assert not april.equals(other)
    assert not april["close"].equals(PRICES.candles("ETHUSDT", "1m", date(2024, 4, 1), LATER)["close"])


def test_months_join_as_days_do() -> None:
    minutes = pl.concat([PRICES.candles("BTCUSDT", "1m", date(2024, m, 1), LATER) for m in (3, 4)])
    frame = klines.from_published(minutes, "BTCUSDT", "1m").cast({"open": pl.Float64, "close": pl.Float64})
    jump = (frame["open"] / frame["close"].shift(1)).drop_nulls()
    assert jump.is_between(0.999, 1.001).all()


@pytest.mark.parametrize("interval", ["15m", "4h", "1d", "3d", "1w", "1M"])
@pytest.mark.parametrize("symbol", ["BTCUSDT", "GONEUSDT"])
def test_longer_candles_are_sums_of_their_minutes(symbol: str, interval: str) -> None:
    """The oracle: plain Python over the minutes, leaving out those without a trade."""
    month = date(2024, 3, 1)
    candle = PRICES.candles(symbol, interval, month, LATER).row(1 if interval not in ("1M",) else 0, named=True)
    minutes = pl.concat([PRICES.candles(symbol, "1m", date(2024, m, 1), LATER) for m in (3, 4)])
    rows = [
        r
        for r in minutes.iter_rows(named=True)
        if candle["open_time"] <= r["open_time"] <= candle["close_time"] and r["count"]
    ]
    assert rows
    assert candle["open"] == rows[0]["open"]
    assert candle["close"] == rows[-1]["close"]
    assert Decimal(candle["high"]) == max(Decimal(r["high"]) for r in rows)
    assert Decimal(candle["low"]) == min(Decimal(r["low"]) for r in rows)
    assert candle["count"] == sum(r["count"] for r in rows)
    for name in ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume"):
        assert Decimal(candle[name]) == sum(Decimal(r[name]) for r in rows)


def test_returns_have_a_market_s_character() -> None:
    closes = [
        PRICES.candles("BTCUSDT", "1m", date(2024, m, 1), LATER)["close"].cast(pl.Float64).to_numpy()
        for m in range(1, 7)
    ]
    returns = np.diff(np.log(np.concatenate(closes)))
    kurtosis = np.mean((returns - returns.mean()) ** 4) / returns.var() ** 2
    assert kurtosis > 4  # fat tails, where a plain walk has 3
    size = np.abs(returns)
    clustering = np.corrcoef(size[:-1], size[1:])[0, 1]
    assert clustering > 0.05  # a wild minute follows a wild minute
    assert abs(np.corrcoef(returns[:-1], returns[1:])[0, 1]) < 0.05  # but the direction is not to be had
    assert 0.0002 < returns.std() < 0.003


def test_simulated_special_markets_have_their_defects() -> None:
    shib = klines.from_published(PRICES.candles("SHIBUSDT", "1h", date(2024, 4, 1), LATER), "SHIBUSDT", "1h")
    assert shib["volume"].max() >= 10**13
    gone = PRICES.candles("GONEUSDT", "1m", date(2024, 9, 1), LATER)
    assert gone["open_time"][-1] == utc(2024, 9, 8, 8, 59).timestamp() * 1000
    quiet = gone.filter(pl.col("count") == 0)
    assert 0.1 < quiet.height / gone.height < 0.3
    assert (quiet["high"] == quiet["low"]).all()
    fresh = PRICES.candles("FRESHUSDT", "1m", date(2025, 3, 1), LATER)
    assert fresh["open_time"][0] == utc(2025, 3, 18, 15, 30).timestamp() * 1000


def test_a_simulated_outage_is_a_gap_at_every_interval() -> None:
    outage = (utc(2024, 4, 10, 11, 28), utc(2024, 4, 10, 14))
    prices = SimulatedPrices(outages=(outage,))
    minutes = prices.candles("BTCUSDT", "1m", date(2024, 4, 1), LATER)
    assert minutes.height == 30 * 1440 - 152
    hours = klines.from_published(prices.candles("BTCUSDT", "1h", date(2024, 4, 1), LATER), "BTCUSDT", "1h")
    missing = set(expected_opens("1h", utc(2024, 4, 1), utc(2024, 5, 1))) - set(hours["timestamp"])
    assert missing == {utc(2024, 4, 10, 12), utc(2024, 4, 10, 13)}


# The REST side


def test_the_simulated_exchange_pages_like_binance() -> None:
    exchange = SimulatedExchange(now=NOW)
    url = "/api/v3/klines?symbol=BTCUSDT&interval=1m"
    assert len(ask(exchange, url)) == 500
    assert len(ask(exchange, url + "&limit=5000")) == 1000
    last = ask(exchange, url + "&limit=2")
    assert [row[0] for row in last] == [utc(2025, 2, 10, 12, m).timestamp() * 1000 for m in (33, 34)]
    start = int(utc(2025, 1, 31, 23, 58).timestamp() * 1000)
    rows = ask(exchange, f"{url}&startTime={start}&endTime={start + 240_000}")
    assert [row[0] - start for row in rows] == [0, 60_000, 120_000, 180_000, 240_000]  # the end is inclusive
    assert all(len(row) == 12 for row in rows)
    assert ask(exchange, f"{url}&startTime={int(NOW.timestamp() * 1000) + 60_000}") == []
    assert ask(exchange, f"{url}&startTime=0&limit=1")[0][0] == utc(2017, 8, 17, 4).timestamp() * 1000
    backwards = ask(exchange, f"{url}&endTime={start}&limit=3")
    assert [row[0] - start for row in backwards] == [-120_000, -60_000, 0]


def test_the_forming_candle_grows_until_it_is_closed() -> None:
    exchange = SimulatedExchange(now=utc(2025, 2, 10, 12, 34, 6))
    target = "/api/v3/klines?symbol=BTCUSDT&interval=5m&limit=1"
    seen = []
    for _ in range(5):
        seen.append(ask(exchange, target)[0])
        exchange.advance(15)
    assert len({row[0] for row in seen}) == 2  # 12:30 until 12:34:59, then 12:35
    growing = [Decimal(row[5]) for row in seen if row[0] == seen[0][0]]
    assert growing == sorted(set(growing))
    final = ask(exchange, f"{target}&startTime={seen[0][0]}")[0]
    assert final[0] == seen[0][0]
    assert Decimal(final[5]) > growing[-1]
    assert final[1] == seen[0][1]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("interval=1m", -1102),
        ("symbol=NOUSDT&interval=1m", -1121),
        ("symbol=FRESHUSDT&interval=1m", -1121),  # not listed yet
        ("symbol=BTCUSDT&interval=7m", -1120),
        ("symbol=BTCUSDT&interval=1m&startTime=x", -1100),
    ],
)
def test_the_simulated_exchange_has_the_error_codes_of_binance(query: str, code: int) -> None:
    answer = SimulatedExchange(now=NOW).answer(f"/api/v3/klines?{query}")
    assert answer.status == 400
    assert json.loads(answer.body)["code"] == code


def test_weights_add_up_within_a_minute_and_are_enforced() -> None:
    exchange = SimulatedExchange(now=NOW, weight_limit=25)
    url = "/api/v3/klines?symbol=BTCUSDT&interval=1d&limit=1&startTime=0"
    assert exchange.answer("/api/v3/exchangeInfo").headers["X-MBX-USED-WEIGHT-1M"] == "20"
    assert [exchange.answer(url).status for _ in range(3)] == [200, 200, 429]
    refused = exchange.answer(url)
    assert refused.headers["Retry-After"] == "40"
    exchange.advance(40)
    assert exchange.answer(url).headers["X-MBX-USED-WEIGHT-1M"] == "2"


def test_the_simulated_exchange_answers_over_http_with_its_headers() -> None:
    exchange = SimulatedExchange(now=NOW)
    with exchange as url, requests.Session() as session:
        assert url == exchange.url
        assert session.get(f"{url}/api/v3/ping").json() == {}
        assert session.get(f"{url}/fapi/v1/time").json() == {"serverTime": int(NOW.timestamp() * 1000)}
        answer = session.get(f"{url}/fapi/v1/klines?symbol=BTCUSDT&interval=1d&limit=3")
        assert len(answer.json()) == 3
        assert answer.headers["X-MBX-USED-WEIGHT-1M"] == "7"
        assert session.get(f"{url}/nowhere").status_code == 404
        assert exchange.requests["/fapi/v1/klines"] == 1
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=1)


def test_a_fault_strikes_when_and_as_often_as_it_is_told() -> None:
    exchange = SimulatedExchange(now=NOW)
    exchange.faults.append(faults.error("time", 503, times=2, after=1))
    exchange.faults.append(faults.too_many("ping", 9, 418))
    assert [exchange.answer("/api/v3/time").status for _ in range(4)] == [200, 503, 503, 200]
    banned = exchange.answer("/api/v3/ping")
    assert (banned.status, banned.headers["Retry-After"]) == (418, "9")
    assert exchange.answer("/api/v3/ping").status == 200


# The archive side


def test_archive_files_are_those_rest_would_give_in_the_unit_of_their_time() -> None:
    exchange = SimulatedExchange(now=NOW)
    frames = {}
    for month in (date(2024, 12, 1), date(2025, 1, 1)):
        name = ArchiveName("BTCUSDT", "1h", "monthly", month)
        text = unzipped(exchange.answer("/" + name.path))
        frames[month] = klines.from_csv(text, "BTCUSDT", "1h")
        digits = len(text.split(b",", 1)[0])
        assert digits == (16 if month.year == 2025 else 13)
        assert text[:1].isdigit()  # spot has no header
        start, end = (int(bound.timestamp()) * 1000 for bound in (name.lo, name.hi))
        query = f"symbol=BTCUSDT&interval=1h&startTime={start}&endTime={end - 1}&limit=1000"
        rows = ask(exchange, f"/api/v3/klines?{query}")
        assert klines.from_rest(rows, "BTCUSDT", "1h").equals(frames[month])
    assert frames[date(2024, 12, 1)].height == 744
    futures = unzipped(exchange.answer("/" + ArchiveName("BTCUSDT.UM", "1h", "monthly", date(2025, 1, 1)).path))
    assert futures.startswith(b"open_time,open,high,low,close,volume,close_time,quote_volume,count,")
    assert len(futures.splitlines()[1].split(b",")[0]) == 13


@pytest.mark.parametrize(
    ("name", "appears"),
    [
        (ArchiveName("BTCUSDT", "1h", "daily", date(2025, 2, 9)), utc(2025, 2, 10, 2)),
        (ArchiveName("BTCUSDT", "1h", "monthly", date(2025, 1, 1)), utc(2025, 2, 6)),
    ],
)
def test_files_appear_some_time_after_their_period(name: ArchiveName, appears: datetime) -> None:
    exchange = SimulatedExchange(now=appears - timedelta(seconds=1))
    assert exchange.answer("/" + name.path).status == 404
    assert exchange.answer(f"/{name.path}.CHECKSUM").status == 404
    exchange.set_time(appears)
    assert exchange.answer("/" + name.path).status == 200
    assert exchange.answer(f"/{name.path}.CHECKSUM").body.endswith(f"  {name.stem}.zip\n".encode())


def test_simulated_files_of_the_future_are_never_published() -> None:
    exchange = SimulatedExchange(now=NOW)
    for name in (
        ArchiveName("BTCUSDT", "3d", "daily", date(2025, 1, 1)),
        ArchiveName("NOUSDT", "1h", "daily", date(2025, 1, 1)),
        ArchiveName("DOGEUSDT", "1h", "monthly", date(2019, 6, 1)),  # before its listing
        ArchiveName("GONEUSDT", "1h", "monthly", date(2024, 10, 1)),  # after its delisting
    ):
        assert exchange.answer("/" + name.path).status == 404


# Real candles, replayed


@needs_data
def test_real_candles_are_replayed_character_by_character() -> None:
    exchange = SimulatedExchange(ReplayedPrices(DATA / "klines"), now=utc(2023, 3, 25, 12))
    start = int(utc(2023, 3, 24, 11).timestamp() * 1000)
    rows = ask(exchange, f"/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={start}&limit=1000")
    published = pl.read_parquet(DATA / "klines/spot/BTCUSDT-1m-2023.parquet").filter(pl.col("open_time") >= start)
    assert [tuple(row) for row in rows] == published.head(1000).rows()
    name = ArchiveName("BTCUSDT", "1m", "daily", date(2023, 3, 23))
    with zipfile.ZipFile(DATA / "archive" / name.path) as archive:
        assert unzipped(exchange.answer("/" + name.path)) == archive.read(f"{name.stem}.csv")
    # Nothing of what comes after the clock.
    last = ask(exchange, "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1")
    assert last[0][0] == utc(2023, 3, 25, 12).timestamp() * 1000

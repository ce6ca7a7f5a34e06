"""REST through the real python-binance, against the simulated exchange; waiting moves the exchange's
clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import polars as pl
import pytest

from algobot_assets.errors import BadCandles, SettingsError, SourceError, SourceUnavailable
from algobot_assets.feed import klines
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.retry import Retry, Transient
from algobot_assets.feed.simulated import faults
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.simulated.faults import Answer, Fault
from algobot_assets.feed.simulated.prices import SimulatedPrices
from algobot_assets.feed.source import Fetched, floor_to_grid

PRICES = SimulatedPrices()
NOW = datetime(2024, 5, 10, 12, 34, 20, tzinfo=UTC)


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)


@pytest.fixture
def simulated() -> Iterator[SimulatedExchange]:
    server = SimulatedExchange(PRICES, now=NOW)
    with server:
        yield server


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def exchange(simulated: SimulatedExchange, waits: list[float]) -> Iterator[Exchange]:
    def sleep(seconds: float) -> None:
        waits.append(seconds)
        simulated.advance(seconds)

    retry = Retry(sleep=sleep, clock=simulated.timestamp, chance=lambda: 0.0)
    client = Exchange(simulated.url, timeout=(5.0, 30.0), retry=retry)
    yield client
    client.close()


def joined(stretches: list[Fetched]) -> pl.DataFrame:
    """The candles of stretches, once these have been found consecutive and each within a month."""
    for before, after in pairwise(stretches):
        assert before.hi == after.lo
    for stretch in stretches:
        last = stretch.hi - timedelta(microseconds=1)
        assert (stretch.lo.year, stretch.lo.month) == (last.year, last.month)
        assert stretch.frame["timestamp"].is_between(stretch.lo, stretch.hi, closed="left").all()
    return pl.concat([stretch.frame for stretch in stretches])


def expected(simulated: SimulatedExchange, symbol: str, interval: str, lo: datetime, hi: datetime) -> pl.DataFrame:
    """The simulated market's own candles in [lo, hi), without HTTP, pages or clocks."""
    prices = simulated.prices
    months = [m for m in prices.months(symbol, hi) if m >= lo.date().replace(day=1)]
    tables = [prices.candles(symbol, interval, month, utc(2030, 1, 1)) for month in months]
    frame = klines.from_published(pl.concat(tables), symbol, interval)
    return frame.filter(pl.col("timestamp").is_between(lo, hi, closed="left"))


@pytest.mark.parametrize(
    ("symbol", "interval", "lo", "hi"),
    [
        ("BTCUSDT", "1m", utc(2024, 5, 8, 23), utc(2024, 5, 10, 1)),  # two pages
        ("BTCUSDT", "1m", utc(2024, 5, 8), utc(2024, 5, 8, 16, 40)),  # exactly one page
        ("BTCUSDT", "1m", utc(2024, 5, 8), utc(2024, 5, 8, 16, 41)),  # one page and one candle
        ("ETHUSDT", "5m", utc(2024, 4, 28), utc(2024, 5, 3)),  # across a month
        ("GONEUSDT", "1h", utc(2024, 3, 30), utc(2024, 4, 2)),
        ("BTCUSDT.UM", "15m", utc(2024, 4, 20), utc(2024, 5, 2)),
        ("DOGEUSDT", "3d", utc(2024, 1, 1), utc(2024, 4, 1)),
        ("DOGEUSDT", "1w", utc(2024, 1, 1), utc(2024, 4, 1)),
        ("BTCUSDT", "1M", utc(2023, 11, 1), utc(2024, 4, 1)),
    ],
)
def test_fetched_candles_equal_those_of_the_market(
    exchange: Exchange, simulated: SimulatedExchange, symbol: str, interval: str, lo: datetime, hi: datetime
) -> None:
    stretches = list(exchange.fetch(symbol, interval, lo, hi))
    assert stretches[0].lo == lo
    assert stretches[-1].hi == hi
    frame = joined(stretches)
    assert frame.height > 0
    assert frame.equals(expected(simulated, symbol, interval, lo, hi))
    assert {s.origin.kind for s in stretches} == {"rest"}
    assert {s.origin.requested_at for s in stretches} == {NOW}


@pytest.mark.parametrize("interval", ["1m", "15m", "4h", "1d", "3d", "1w", "1M"])
def test_the_forming_candle_is_never_handed_on(exchange: Exchange, simulated: SimulatedExchange, interval: str) -> None:
    lo = NOW - timedelta(days=2 if interval in ("1m", "15m", "4h") else 70)
    # A client that takes python-binance's answer as it comes gets the forming candle as the last row.
    raw = exchange._client.get_klines(symbol="BTCUSDT", interval=interval)
    assert raw[-1][6] >= NOW.timestamp() * 1000
    stretches = list(exchange.fetch("BTCUSDT", interval, lo, NOW + timedelta(days=1)))
    last = joined(stretches)["timestamp"][-1]
    assert last.timestamp() * 1000 == raw[-2][0]
    # ... and the answer says so: it is complete up to the forming candle's open, no further.
    assert stretches[-1].hi.timestamp() * 1000 == raw[-1][0]


def test_the_clock_of_the_exchange_decides_which_candles_are_closed(
    exchange: Exchange, simulated: SimulatedExchange
) -> None:
    simulated.clock_skew = timedelta(minutes=-10)
    assert exchange.server_time() == NOW - timedelta(minutes=10)
    stretches = list(exchange.fetch("BTCUSDT", "1m", NOW - timedelta(hours=1), NOW))
    assert stretches[-1].hi == utc(2024, 5, 10, 12, 24)


def test_a_candle_is_closed_from_its_last_instant_on(exchange: Exchange, simulated: SimulatedExchange) -> None:
    lo = utc(2024, 5, 10, 12)
    for now, count in ((utc(2024, 5, 10, 12, 30), 30), (utc(2024, 5, 10, 12, 29, 59, 999000), 29)):
        simulated.set_time(now)
        assert joined(list(exchange.fetch("BTCUSDT", "1m", lo, lo + timedelta(hours=1)))).height == count
    simulated.set_time(lo + timedelta(seconds=30))
    assert list(exchange.fetch("BTCUSDT", "1m", lo, lo + timedelta(hours=1))) == []


def test_listings_delistings_and_outages_are_told_apart(simulated: SimulatedExchange, exchange: Exchange) -> None:
    assert exchange.first_open("DOGEUSDT", "1m") == utc(2019, 7, 5, 12)
    assert exchange.first_open("DOGEUSDT", "1d") == utc(2019, 7, 5)
    assert exchange.next_open("DOGEUSDT", "1m", utc(2019, 1, 1), utc(2019, 7, 1)) is None
    before = list(exchange.fetch("DOGEUSDT", "1m", utc(2019, 6, 1), utc(2019, 7, 5, 12, 5)))
    assert [s.frame.height for s in before] == [0, 5]
    simulated.set_time(utc(2024, 10, 2))
    after = list(exchange.fetch("GONEUSDT", "1h", utc(2024, 9, 8), utc(2024, 10, 1)))
    assert joined(after)["timestamp"][-1] == utc(2024, 9, 8, 8)
    assert after[-1].hi == utc(2024, 10, 1)


def test_order_rules_of_spot_and_futures_are_read(exchange: Exchange, simulated: SimulatedExchange) -> None:
    rules = exchange.rules("BTCUSDT")
    assert (rules.tick, rules.step, rules.min_notional) == (Decimal("0.01"), Decimal("0.00001"), Decimal(5))
    assert (rules.status, rules.base_asset, rules.quote_asset) == ("TRADING", "BTC", "USDT")
    perpetual = exchange.rules("BTCUSDT.UM")
    assert (perpetual.symbol, perpetual.tick, perpetual.min_notional) == (
        "BTCUSDT.UM",
        Decimal("0.1"),
        Decimal(100),
    )
    simulated.set_time(utc(2024, 10, 2))
    assert exchange.rules("GONEUSDT").status == "BREAK"
    assert "BTCUSDT" in exchange.symbols()
    assert exchange.symbols("um") == ["BTCUSDT.UM"]


def test_an_unknown_symbol_is_answered_with_the_nearest(exchange: Exchange, waits: list[float]) -> None:
    for ask in (
        lambda: exchange.rules("BTCUDST"),
        lambda: list(exchange.fetch("BTCUDST", "1m", utc(2024, 5, 1), utc(2024, 5, 2))),
    ):
        with pytest.raises(SourceError, match=r"BTCUDST is not a symbol .* did you mean BTCUSDT\?"):
            ask()
    with pytest.raises(SourceError, match=r"DOGEUSDT.UM is not a symbol"):
        exchange.rules("DOGEUSDT.UM")
    assert waits == []


def test_an_unknown_interval_is_refused_at_once(exchange: Exchange, waits: list[float]) -> None:
    with pytest.raises(SourceError, match="BTCUSDT: 7m is not an interval"):
        exchange.first_open("BTCUSDT", "7m")
    with pytest.raises(SourceError, match="BTCUSDT: 1s is not an interval"):  # known to us, not to this exchange
        exchange.first_open("BTCUSDT", "1s")
    assert waits == []


@pytest.mark.parametrize("address", ["https://testnet.binance.vision", "https://demo-api.binance.com"])
def test_the_test_network_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="test network"):
        Exchange(address)
    with pytest.raises(SettingsError, match="not the address of an exchange"):
        Exchange("data-api")


@pytest.mark.parametrize(
    "fault",
    [
        faults.error("klines", 503),
        faults.error("klines", 500, -1000, "unknown error"),
        faults.error("klines", 400, -1007, "timeout"),
        faults.truncated("klines"),
        faults.broken_off("klines"),
        Fault("klines", lambda a: faults.Answer(200, b"{}", {})),
    ],
    ids=["503", "-1000", "-1007", "half a JSON", "broken off", "no list"],
)
def test_transient_exchange_errors_are_retried(
    exchange: Exchange, simulated: SimulatedExchange, waits: list[float], fault: Fault
) -> None:
    fault.times = 2
    simulated.faults.append(fault)
    assert exchange.first_open("BTCUSDT", "1m") == utc(2017, 8, 17, 4)
    assert waits == [0.5, 1.0]
    assert fault.times == 0


def test_a_response_that_stops_half_way_is_given_up(simulated: SimulatedExchange, waits: list[float]) -> None:
    exchange = Exchange(simulated.url, timeout=(5.0, 1.0), retry=Retry(sleep=waits.append, chance=lambda: 0.0))
    exchange.server_time()
    simulated.faults.append(faults.stalled("time", 30.0))
    assert exchange.server_time() == NOW
    exchange.close()
    assert waits == [0.5]


def test_lasting_exchange_errors_are_one_sentence(
    exchange: Exchange, simulated: SimulatedExchange, waits: list[float]
) -> None:
    simulated.faults.append(faults.error("klines", 503, times=100))
    with pytest.raises(SourceUnavailable, match=r"BTCUSDT 1m from .* failed with 503, 6 times in a row"):
        exchange.first_open("BTCUSDT", "1m")
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert simulated.requests["/api/v3/klines"] == 6


def test_an_unreachable_exchange_is_one_sentence(waits: list[float]) -> None:
    exchange = Exchange("http://127.0.0.1:9", retry=Retry(attempts=2, sleep=waits.append))
    with pytest.raises(SourceUnavailable, match=r"the exchange's clock from .*127.0.0.1:9.*ConnectionError"):
        exchange.server_time()
    exchange.close()
    assert len(waits) == 1


@pytest.mark.parametrize("status", [429, 418])
def test_retry_after_is_kept_to_the_second(
    exchange: Exchange, simulated: SimulatedExchange, waits: list[float], status: int
) -> None:
    simulated.faults.append(faults.too_many("klines", 37, status))
    exchange.first_open("BTCUSDT", "1m")
    assert waits == [pytest.approx(37.0)]


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize("body", [b'{"code": 0, "msg": "banned"}', b'{"code": -1121, "msg": "Invalid symbol."}'])
def test_a_ban_is_told_by_its_status_whatever_the_body_says(
    exchange: Exchange, simulated: SimulatedExchange, waits: list[float], status: int, body: bytes
) -> None:
    ban = Answer(status, body, {"Retry-After": "37"})
    simulated.faults.append(Fault("klines", lambda _: ban))
    assert exchange.first_open("BTCUSDT", "1m") == utc(2017, 8, 17, 4)
    assert waits == [pytest.approx(37.0)]
    simulated.faults.append(Fault("klines", lambda _: Answer(status, body, {}), times=6))
    with pytest.raises(SourceUnavailable, match=rf"the exchange said too many requests \({status}\), 6 times in a row"):
        exchange.first_open("BTCUSDT", "5m")


def test_a_long_ban_is_not_waited_for_and_not_prolonged(
    exchange: Exchange, simulated: SimulatedExchange, waits: list[float]
) -> None:
    simulated.faults.append(faults.too_many("klines", 7200, 418))
    for _ in range(2):  # the second question does not even reach the exchange
        with pytest.raises(SourceUnavailable, match="refuses requests until 2024-05-10 14:34:20 UTC"):
            exchange.first_open("BTCUSDT", "1m")
    assert simulated.requests["/api/v3/klines"] == 1
    assert waits == []
    simulated.advance(7200)
    assert exchange.first_open("BTCUSDT", "1m") == utc(2017, 8, 17, 4)


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        (faults.location("klines"), SourceError, "does not serve this location.*data-api.binance.vision"),
        (faults.firewall("klines"), SourceUnavailable, "firewall"),
        (faults.error("klines", 400, -1100, "Illegal characters"), SourceError, "-1100: Illegal characters"),
        (faults.error("klines", 404), SourceError, "refused the request"),
    ],
)
def test_permanent_exchange_errors_are_not_retried(
    exchange: Exchange,
    simulated: SimulatedExchange,
    waits: list[float],
    fault: Fault,
    error: type,
    sentence: str,
) -> None:
    fault.times = 1
    simulated.faults.append(fault)
    with pytest.raises(error, match=f"BTCUSDT 1m.*{sentence}"):
        exchange.first_open("BTCUSDT", "1m")
    assert waits == []


def test_the_weight_limit_is_kept_without_being_told(waits: list[float]) -> None:
    simulated = SimulatedExchange(PRICES, now=NOW, weight_limit=30)
    with simulated:

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            simulated.advance(seconds)

        exchange = Exchange(simulated.url, retry=Retry(sleep=sleep, clock=simulated.timestamp))
        # 8 pages of weight 2, with 22 of 30 gone for the clock and the symbol
        lo = utc(2024, 5, 1)
        frame = joined(list(exchange.fetch("BTCUSDT", "1m", lo, lo + timedelta(minutes=8000))))
        exchange.close()
    assert frame.height == 8000
    # one wait, to the end of the exchange's minute, and no 429: every page was asked once
    assert waits == [pytest.approx(40.0)]
    assert simulated.requests["/api/v3/klines"] == 9


def test_rows_that_cannot_be_candles_stop_the_fetch(exchange: Exchange, simulated: SimulatedExchange) -> None:
    def spoil(answer: faults.Answer) -> faults.Answer:
        answer.body = answer.body.replace(b'"', b'"-', 1)
        return answer

    simulated.faults.append(Fault("klines", spoil))
    with pytest.raises(BadCandles, match="BTCUSDT 1m, the candle of 2024-05-10 10:00:00 UTC, column open"):
        list(exchange.fetch("BTCUSDT", "1m", utc(2024, 5, 10, 10), utc(2024, 5, 10, 11)))


def test_candles_outside_the_requested_range_are_refused(exchange: Exchange, simulated: SimulatedExchange) -> None:
    elsewhere = simulated.answer("/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime=0&limit=3").body
    simulated.faults.append(Fault("klines", lambda a: faults.Answer(200, elsewhere, {})))
    with pytest.raises(BadCandles, match="candles before the requested ones"):
        list(exchange.fetch("BTCUSDT", "1m", utc(2024, 5, 10, 10), utc(2024, 5, 10, 11)))


def test_backoff_is_jittered_and_bounded() -> None:
    waits: list[float] = []

    def fail() -> None:
        raise Transient("no luck")

    retry = Retry(attempts=50, budget=60.0, sleep=waits.append, clock=lambda: 0.0, chance=lambda: 0.5)
    with pytest.raises(SourceUnavailable, match="the question: no luck"):
        retry.call(fail, "the question")
    assert waits[:4] == [0.375, 0.75, 1.5, 3.0]
    assert max(waits) == 15.0
    assert sum(waits) <= 60.0


def test_the_forming_candle_is_found_on_the_grid() -> None:
    assert floor_to_grid("1m", NOW) == utc(2024, 5, 10, 12, 34)
    assert floor_to_grid("4h", NOW) == utc(2024, 5, 10, 12)
    assert floor_to_grid("1w", NOW) == utc(2024, 5, 6)
    assert floor_to_grid("1M", NOW) == utc(2024, 5, 1)

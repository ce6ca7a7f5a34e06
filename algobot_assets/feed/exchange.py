"""Fetch candles and symbol rules from Binance's REST API, through python-binance.

A candle counts as closed by the exchange's clock only. The forming candle, which REST delivers as its last row, is
never returned.
"""

from __future__ import annotations

import difflib
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

import requests

from algobot_assets.errors import BadCandles, SourceError, SourceUnavailable
from algobot_assets.feed import klines
from algobot_assets.feed.binance_client import (
    FUTURES_URL,
    SPOT_URL,
    BinanceAPIException,
    BinanceRequestException,
    public_client,
    refuse_testnet,
)
from algobot_assets.feed.retry import Retry, Transient, retry_after
from algobot_assets.feed.source import Fetched, Origin, SymbolRules, floor_to_grid, market_of, symbol_of
from algobot_assets.schema.intervals import INTERVALS, midnight, next_month, phase_of
from algobot_assets.schema.symbols import delivery_of, suggest_interval

PAGE = 1000
_MILLISECOND = timedelta(milliseconds=1)
_CLOCK_KEPT = 60.0  # seconds
_TRANSIENT_CODES = {-1000, -1001, -1003, -1006, -1007, -1008}
_UNKNOWN_INTERVAL = -1120
_UNKNOWN_SYMBOL = -1121
#: Weight of one page of 1000 klines, and the limit per minute assumed until exchangeInfo states it.
_PAGE_WEIGHT = {"spot": 2, "um": 5}
_ASSUMED_LIMIT = {"spot": 6000, "um": 2400}


class Exchange:
    """Binance's REST API as a `Source`; not safe for several threads.

    url: base URL of the spot API; the default serves public market data without a key or a location check.
    futures_url: base URL of the USD-M API, used only for symbols ending in .UM; defaults to ``url`` if
    that is not one of Binance's own hosts. timeout: seconds to connect and between two bytes of an answer.
    """

    def __init__(
        self,
        url: str = SPOT_URL,
        futures_url: str | None = None,
        *,
        timeout: tuple[float, float] = (5.0, 20.0),
        retry: Retry | None = None,
    ) -> None:
        url = url.rstrip("/")
        own_host = "binance" in (urlsplit(url).hostname or "")
        futures_url = (futures_url or (FUTURES_URL if own_host else url)).rstrip("/")
        for address in (url, futures_url):
            refuse_testnet(address)
        self._host = urlsplit(url).netloc
        self._retry = retry or Retry()
        self._client = public_client(url, futures_url, timeout)
        self._clock_ahead = 0.0  # the exchange's clock minus ours, seconds
        self._told: tuple[float, datetime] | None = None  # our time and the exchange's at the last answer
        self._limits: dict[str, int] = {}
        self._used: dict[str, tuple[int, int]] = {}  # market -> (minute, weight used in it)
        self._infos: dict[str, dict[str, Any]] = {}
        self._first_opens: dict[tuple[str, str], datetime] = {}

    @property
    def name(self) -> str:
        """The API and its host."""
        return f"Binance REST ({self._host})"

    def close(self) -> None:
        """Close the connections."""
        self._client.close_connection()

    def server_time(self) -> datetime:
        """Return the exchange's clock, UTC, to the millisecond."""
        answer = self._ask("spot", self._client.get_server_time, "the exchange's clock", 1)
        moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(answer["serverTime"]))
        self._clock_ahead = moment.timestamp() - self._retry.clock()
        self._told = (time.monotonic(), moment)
        return moment

    def known_through(self, symbol: str, interval: str) -> datetime:
        """Return the exchange's clock as of at most a minute ago: the exchange knows every market up to then. All
        markets of a run share one request, and an older answer only promises less."""
        told = self._told
        return told[1] if told and time.monotonic() - told[0] < _CLOCK_KEPT else self.server_time()

    def first_open(self, symbol: str, interval: str) -> datetime | None:
        """Return the open of the market's first candle; None before its first trade."""
        key = (symbol, interval)
        if key not in self._first_opens:
            page = self._page(symbol, interval, 0, None, 1)
            if not page:
                return None
            self._first_opens[key] = datetime.fromtimestamp(page[0][0] / 1000, UTC)
        return self._first_opens[key]

    def next_open(self, symbol: str, interval: str, lo: datetime, hi: datetime) -> datetime | None:
        """Return the open of the first candle in [lo, hi), None if there is none: one request for any range."""
        page = self._page(symbol, interval, _ms(lo), _ms(hi) - 1, 1)
        return datetime.fromtimestamp(page[0][0] / 1000, UTC) if page else None

    def symbols(self, market: str = "spot") -> list[str]:
        """Return every symbol of the market ('spot' or 'um'), whatever its status."""
        return sorted(symbol_of(market, entry["symbol"]) for entry in self._info(market)["symbols"])

    def rules(self, symbol: str) -> SymbolRules:
        """Return today's trading rules of ``symbol``. SourceError with the nearest name if there is no such
        symbol."""
        market, name = market_of(symbol)
        for entry in self._info(market, name)["symbols"]:
            if entry["symbol"] == name:
                return _rules(symbol, entry)
        raise self._unknown(symbol)

    def checksums(self, symbol: str, interval: str, files: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return None for each: REST publishes no files."""
        return [None] * len(files)

    def fetch(self, symbol: str, interval: str, lo: datetime, hi: datetime) -> Iterator[Fetched]:
        """Yield the closed candles that open in [lo, hi), a stretch per calendar month; see `Source.fetch`."""
        now = self.server_time()
        end = min(hi, self.closed_before(symbol, interval, now))
        return self.fetch_closed(symbol, interval, lo, end, now)

    def closed_before(self, symbol: str, interval: str, now: datetime) -> datetime:
        """Return the open of the candle forming at ``now``: earlier candles are final."""
        first = self.first_open(symbol, interval) if interval == "3d" else None
        return floor_to_grid(interval, now, phase_of(first) if first else 0)

    def fetch_closed(
        self, symbol: str, interval: str, lo: datetime, end: datetime, asked: datetime
    ) -> Iterator[Fetched]:
        """Fetch a range known to be closed at ``asked``, a time taken from this exchange's clock."""
        endpoint = "fapi/v1/klines" if market_of(symbol)[0] == "um" else "api/v3/klines"
        origin = Origin("rest", endpoint, requested_at=asked)
        pages = self._pages(symbol, interval, _ms(lo), _ms(end))
        rows: list[list[Any]] = []
        more = True
        while lo < end:
            stop = min(end, midnight(next_month(lo.date())))
            while more and (not rows or rows[-1][0] < _ms(stop)):
                page = next(pages, None)
                more = page is not None
                rows.extend(page or ())
            cut = bisect_left(rows, _ms(stop), key=itemgetter(0))
            frame = klines.from_rest(rows[:cut], symbol, interval, lo=lo, hi=stop, where="REST's answer")
            del rows[:cut]
            yield Fetched(frame, origin, lo, stop)
            lo = stop

    def _pages(self, symbol: str, interval: str, lo: int, end: int) -> Iterator[list[list[Any]]]:
        """Yield pages of the klines that open in [lo, end), milliseconds."""
        while lo < end:
            page = self._page(symbol, interval, lo, end - 1, PAGE)
            full = len(page) == PAGE
            if page and page[0][0] < lo:
                raise BadCandles(
                    f"{symbol} {interval}: REST answered with candles before the requested ones ({lo} ms), so its"
                    " pages cannot be joined. Run again; if it happens again, check the address of the exchange."
                )
            page = [row for row in page if row[0] < end]
            if page:
                yield page
                lo = page[-1][0] + 1
            if not full or not page:
                return

    def _page(self, symbol: str, interval: str, start: int, end: int | None, limit: int) -> list[list[Any]]:
        market, name = market_of(symbol)
        if interval not in INTERVALS:
            raise _unknown_interval(symbol, interval)
        if market not in self._limits:
            self._info(market, name)
        asked: dict[str, Any] = {"symbol": name, "interval": interval, "startTime": start, "limit": limit}
        if end is not None:
            asked["endTime"] = end
        request = self._client.futures_klines if market == "um" else self._client.get_klines

        def page() -> list[list[Any]]:
            rows: Any = request(**asked)
            if not isinstance(rows, list) or not all(isinstance(r, list) and type(r[0]) is int for r in rows if r):
                raise Transient("the answer was not a list of klines")
            return [row for row in rows if row]

        rows: list[list[Any]] = self._ask(market, page, f"{symbol} {interval}", _PAGE_WEIGHT[market], symbol, interval)
        return rows

    def _info(self, market: str, name: str | None = None) -> dict[str, Any]:
        """Return exchangeInfo of one spot symbol or of a whole market, requested once per object."""
        key = f"{market} {name}" if market == "spot" and name else market
        if key not in self._infos:
            if market == "um":
                request: Callable[[], Any] = self._client.futures_exchange_info
            elif name:
                request = lambda: self._client._get("exchangeInfo", data={"symbol": name})  # noqa: E731
            else:
                request = self._client.get_exchange_info
            symbol = symbol_of(market, name) if name else None
            info = self._ask(market, request, symbol or f"the symbols of {market}", 20, symbol)
            for rate in info.get("rateLimits", ()):
                if rate["rateLimitType"] == "REQUEST_WEIGHT" and rate["interval"] == "MINUTE":
                    self._limits[market] = int(rate["limit"]) // int(rate.get("intervalNum", 1))
            self._limits.setdefault(market, _ASSUMED_LIMIT[market])
            self._infos[key] = info
        return self._infos[key]

    def _ask(
        self,
        market: str,
        request: Callable[[], Any],
        what: str,
        weight: int,
        symbol: str | None = None,
        interval: str | None = None,
    ) -> Any:
        """Return the answer to ``request``: throttled, retried, and with readable errors."""

        def once() -> Any:
            self._throttle(market, weight)
            self._client.response = None
            try:
                return request()
            except BinanceRequestException as error:
                raise Transient("the answer was not JSON") from error
            except requests.exceptions.RequestException as error:
                raise Transient(f"no answer from the exchange ({type(error).__name__})") from error
            except BinanceAPIException as error:
                raise self._meaning(error, what, symbol, interval) from error
            finally:
                self._note_weight(market)

        return self._retry.call(once, f"{what} from {self.name}")

    def _throttle(self, market: str, weight: int) -> None:
        """Wait for the next minute of the exchange's clock if the current one has no room for ``weight``."""
        now = self._retry.clock() + self._clock_ahead
        minute, used = self._used.get(market, (0, 0))
        limit = self._limits.get(market, _ASSUMED_LIMIT[market])
        if minute == int(now // 60) and used + weight > limit:
            self._retry.sleep((minute + 1) * 60 - now)

    def _note_weight(self, market: str) -> None:
        answer = self._client.response
        used = "" if answer is None else answer.headers.get("X-MBX-USED-WEIGHT-1M", "")
        if used.isdigit():
            self._used[market] = (int((self._retry.clock() + self._clock_ahead) // 60), int(used))

    def _meaning(self, error: BinanceAPIException, what: str, symbol: str | None, interval: str | None) -> Exception:
        """Translate an error answer: `Transient`, or the error to stop with."""
        status, code, text = error.status_code, error.code, str(error.message)
        if status in (418, 429):
            return Transient(f"the exchange said too many requests ({status})", retry_after(error.response.headers))
        if status == 451:
            return SourceError(
                f"{what}: {self._host} does not serve this location (HTTP 451). Set the exchange's address to"
                f" {SPOT_URL}, which serves public candles everywhere, or use the archive or a folder as the"
                " source."
            )
        if status == 403:
            return SourceUnavailable(
                f"{what}: the firewall of {self._host} refused the request (HTTP 403). Wait some minutes,"
                " then run again with fewer markets at once; a proxy in between can also be the cause."
            )
        if status >= 500 or code in _TRANSIENT_CODES:
            return Transient(f"the exchange failed with {code or status}", retry_after(error.response.headers))
        if code == _UNKNOWN_SYMBOL and symbol:
            return self._unknown(symbol)
        if code == _UNKNOWN_INTERVAL and symbol:
            return _unknown_interval(symbol, str(interval))
        return SourceError(
            f"{what}: {self.name} refused the request ({code or f'HTTP {status}'}: {text[:200]}). Retrying"
            " will not help; check the market's symbol, interval and start."
        )

    def _unknown(self, symbol: str) -> SourceError:
        market, _ = market_of(symbol)
        near = difflib.get_close_matches(symbol, self.symbols(market), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else "; see the exchange's list of symbols."
        return SourceError(f"{symbol} is not a symbol of {self.name}{hint} Correct it in the declared markets.")


def _unknown_interval(symbol: str, interval: str) -> SourceError:
    near = suggest_interval(interval)
    hint = f"did you mean {near}? Use" if near else "use"
    return SourceError(
        f"{symbol}: {interval} is not an interval of Binance; {hint} one of {', '.join(INTERVALS)} (1m is a minute,"
        " 1M a month)."
    )


def _rules(symbol: str, entry: dict[str, Any]) -> SymbolRules:
    filters = {f["filterType"]: f for f in entry.get("filters", ())}

    def number(kind: str, *fields: str) -> Decimal | None:
        for field in fields:
            value = filters.get(kind, {}).get(field)
            if value is not None and Decimal(value) > 0:
                return Decimal(value)
        return None

    return SymbolRules(
        symbol=symbol,
        status=entry.get("status", ""),
        base_asset=entry["baseAsset"],
        quote_asset=entry["quoteAsset"],
        tick=number("PRICE_FILTER", "tickSize"),
        step=number("LOT_SIZE", "stepSize"),
        min_notional=number("NOTIONAL", "minNotional") or number("MIN_NOTIONAL", "minNotional", "notional"),
        delivery=_delivery(symbol, entry),
    )


def _delivery(symbol: str, entry: dict[str, Any]) -> datetime | None:
    """Return the delivery of a dated contract; perpetuals carry a date too, in the year 2100."""
    named = delivery_of(symbol)
    told = entry.get("deliveryDate")
    if named is None or not isinstance(told, int):
        return named
    return datetime(1970, 1, 1, tzinfo=UTC) + told * _MILLISECOND


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND

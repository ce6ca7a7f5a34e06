"""A simulated Binance on loopback: its REST API and its archive, over real HTTP.

For demos without a network and for tests; never used when real candles are fetched. Candles come from
`SimulatedPrices`, or from a folder of real candles through `ReplayedPrices`.

It behaves like the real exchange in: pages of 500 (default) to 1000 candles, end inclusive by open; the
forming candle as the last row; request weights with 429 beyond the limit; error codes; archive files that
appear some time after their period, with their CHECKSUM; spot archives in microseconds from 2025 on; a
header in those of futures."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import polars as pl

from algobot_assets.feed.archive_files import ArchiveName, is_published, name_of
from algobot_assets.feed.klines import PUBLISHED
from algobot_assets.feed.simulated.faults import Answer, Fault, zipped
from algobot_assets.feed.simulated.listings import Listing
from algobot_assets.feed.simulated.loopback import LoopbackServer
from algobot_assets.feed.simulated.prices import SimulatedPrices
from algobot_assets.feed.source import market_of, symbol_of
from algobot_assets.schema.intervals import INTERVALS, midnight, month_start, next_month
from algobot_assets.schema.symbols import delivery_of

_DEFAULT_PAGE, _LARGEST_PAGE = 500, 1000
_MICROSECONDS_SINCE = date(2025, 1, 1)
_KEPT_FILES = 16
_PERPETUAL = datetime(2100, 12, 25, 8, tzinfo=UTC)


class Prices(Protocol):
    """The candles behind the simulated exchange."""

    listings: dict[str, Listing]

    def ended(self, symbol: str, now: datetime) -> bool:
        """Return whether the symbol has stopped trading by ``now``."""
        ...

    def months(self, symbol: str, now: datetime) -> list[date]:
        """Return the months, ascending, in which the symbol may have candles up to ``now``."""
        ...

    def candles(self, symbol: str, interval: str, month: date, now: datetime) -> pl.DataFrame:
        """Return the rows that open in ``month`` as published at ``now``: Binance's 12 columns, values as text."""
        ...


class SimulatedExchange:
    """The simulated exchange; `start` returns its base URL, for REST and archive alike.

    prices: its candles. now: its clock, which stands still until `set_time` or `advance`; None: the real time.
    daily_after, monthly_after: delay between the end of a period and the publication of its file. weight_limit: per
    minute of its clock. faults: see faults; clock_skew: added to the answer of /time. requests: number of requests by
    path."""

    def __init__(
        self,
        prices: Prices | None = None,
        *,
        now: datetime | None = None,
        daily_after: timedelta = timedelta(hours=2),
        monthly_after: timedelta = timedelta(days=5),
        weight_limit: int = 6000,
    ) -> None:
        self.prices = prices or SimulatedPrices()
        self.faults: list[Fault] = []
        self.clock_skew = timedelta()
        self.requests: Counter[str] = Counter()
        self.weight_limit = weight_limit
        self.url = ""
        self._now = now
        self._daily_after = daily_after
        self._monthly_after = monthly_after
        self._used = (0, 0)  # minute of the clock, weight used in it
        self._edits: dict[str, tuple[Callable[[bytes], bytes], datetime]] = {}
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.RLock()
        self._server: LoopbackServer | None = None

    # The clock and the content

    def now(self) -> datetime:
        """Return the exchange's time, UTC."""
        return self._now or datetime.now(UTC)

    def set_time(self, moment: datetime) -> None:
        """Stop the clock at ``moment``."""
        self._now = moment

    def advance(self, seconds: float) -> None:
        """Advance a stopped clock; as the ``sleep`` of a client, it makes waiting free."""
        self._now = self.now() + timedelta(seconds=seconds)

    def timestamp(self) -> float:
        """Return the exchange's time in seconds since 1970, as the ``clock`` of a client."""
        return self.now().timestamp()

    def republish(self, path: str, edit: Callable[[bytes], bytes], made: datetime | None = None) -> None:
        """Replace an archive file: its CSV becomes ``edit`` of the true one, with a matching CHECKSUM.
        made: the time stamp inside the zip, now by default; a time within the period makes it a file
        published early."""
        with self._lock:
            self._edits[path.lstrip("/")] = edit, made or self.now()
            self._files.pop(path.lstrip("/"), None)

    # The server

    def start(self) -> str:
        """Listen on a free port of loopback and return the base URL."""
        self._server = LoopbackServer(self.answer)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self.url

    def stop(self) -> None:
        """Stop listening and end open connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_connections()
            self._server = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, target: str) -> Answer:
        """Answer a GET of ``target`` (path and query), faults included."""
        parts = urlsplit(target)
        path = unquote(parts.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self._lock:
            self.requests[path] += 1
            try:
                answer = self._route(path, query)
            except _Refusal as refusal:
                answer = _json({"code": refusal.code, "msg": refusal.message}, refusal.status)
                if refusal.status == 429:
                    answer.headers["Retry-After"] = str(60 - self.now().second)
            if not path.startswith("/data/"):
                answer.headers["X-MBX-USED-WEIGHT-1M"] = str(self._used[1])
            for fault in self.faults:
                if fault.strikes(target):
                    return fault.change(answer)
            return answer

    def _route(self, path: str, query: dict[str, str]) -> Answer:
        if path.startswith("/data/"):
            return self._archived(path[1:])
        for prefix, market in (("/api/v3/", "spot"), ("/fapi/v1/", "um")):
            if path.startswith(prefix):
                name = path[len(prefix) :]
                route = {
                    "ping": _ping,
                    "time": self._time,
                    "exchangeInfo": self._info,
                    "klines": self._klines,
                }.get(name)
                if route is not None:
                    self._weigh({"exchangeInfo": 20, "klines": 2 if market == "spot" else 5}.get(name, 1))
                    return route(market, query)
        return Answer(404, b"<html>404 Not Found</html>", {"Content-Type": "text/html"})

    def _weigh(self, weight: int) -> None:
        minute = int(self.timestamp() // 60)
        used = self._used[1] if self._used[0] == minute else 0
        self._used = minute, used + weight
        if used + weight > self.weight_limit:
            raise _Refusal(-1003, "Too much request weight used.", 429)

    def _time(self, market: str, query: dict[str, str]) -> Answer:
        return _json({"serverTime": _ms(self.now() + self.clock_skew)})

    def _info(self, market: str, query: dict[str, str]) -> Answer:
        listings = [entry for name, entry in sorted(self.prices.listings.items()) if market_of(name)[0] == market]
        if "symbol" in query and market == "spot":
            listings = [self._listing(market, query)]
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": self.weight_limit,
        }
        return _json(
            {
                "timezone": "UTC",
                "serverTime": _ms(self.now()),
                "rateLimits": [limit],
                "symbols": [self._described(listing) for listing in listings if self._lists(listing)],
            }
        )

    def _lists(self, listing: Listing) -> bool:
        """Return whether REST lists the symbol: from its listing on, and a dated contract until its delivery."""
        delivery = delivery_of(listing.symbol)
        return listing.listed <= self.now() and (delivery is None or self.now() < delivery)

    def _described(self, listing: Listing) -> dict[str, Any]:
        market, name = market_of(listing.symbol)
        notional = {"filterType": "NOTIONAL", "minNotional": f"{listing.min_notional:.8f}"}
        if market == "um":
            notional = {"filterType": "MIN_NOTIONAL", "notional": str(listing.min_notional)}
        dates = {"deliveryDate": _ms(delivery_of(listing.symbol) or _PERPETUAL)} if market == "um" else {}
        return {
            **dates,
            "symbol": name,
            "status": "BREAK" if self.prices.ended(listing.symbol, self.now()) else "TRADING",
            "baseAsset": listing.base_asset,
            "quoteAsset": listing.quote_asset,
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": f"{listing.tick:.8f}"},
                {"filterType": "LOT_SIZE", "stepSize": f"{listing.step:.8f}"},
                notional,
            ],
        }

    def _listing(self, market: str, query: dict[str, str]) -> Listing:
        if "symbol" not in query:
            raise _Refusal(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        listing = self.prices.listings.get(symbol_of(market, query["symbol"]))
        if listing is None or not self._lists(listing):
            raise _Refusal(-1121, "Invalid symbol.")
        return listing

    def _klines(self, market: str, query: dict[str, str]) -> Answer:
        symbol = self._listing(market, query).symbol
        interval = query.get("interval", "")
        if interval not in INTERVALS or interval == "1s":
            raise _Refusal(-1120, "Invalid interval.")
        try:
            limit = min(int(query.get("limit", _DEFAULT_PAGE)), _LARGEST_PAGE)
            start, end = (int(query[name]) if name in query else None for name in ("startTime", "endTime"))
        except ValueError:
            raise _Refusal(-1100, "Illegal characters found in a parameter.") from None
        return _json(self._page(symbol, interval, start, end, limit).rows())

    def _page(self, symbol: str, interval: str, start: int | None, end: int | None, limit: int) -> pl.DataFrame:
        """Return a page from ``start`` on, or without it the last one; both bounds inclusive, by open."""
        now = self.now()
        lo = start or 0
        hi = _ms(now) if end is None else min(end, _ms(now))
        months = [
            m for m in self.prices.months(symbol, now) if _ms(midnight(next_month(m))) > lo and _ms(midnight(m)) <= hi
        ]
        pages: list[pl.DataFrame] = []
        count = 0
        for month in months if start is not None else reversed(months):
            candles = self.prices.candles(symbol, interval, month, now)
            candles = candles.filter(pl.col("open_time").is_between(lo, hi))
            pages.append(candles)
            count += candles.height
            if count >= limit:
                break
        if not pages:
            return pl.DataFrame(schema=list(PUBLISHED))
        if start is None:
            return pl.concat(reversed(pages)).tail(limit)
        return pl.concat(pages).head(limit)

    def _archived(self, path: str) -> Answer:
        wanted = path.removesuffix(".CHECKSUM")
        name = name_of(wanted)
        data = self._file(name) if name is not None and name.path == wanted else None
        if name is None or data is None:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>", {"Content-Type": "application/xml"})
        if path == wanted:
            return Answer(200, data, {"Content-Type": "application/zip"})
        line = f"{hashlib.sha256(data).hexdigest()}  {name.stem}.zip\n"
        return Answer(200, line.encode(), {"Content-Type": "text/plain"})

    def _file(self, name: ArchiveName) -> bytes | None:
        """Return the zip's bytes; None if it is not published yet or its period has no candles."""
        wait = self._daily_after if name.period == "daily" else self._monthly_after
        edit, made = self._edits.get(name.path, (None, name.hi + wait))
        listed = name.symbol in self.prices.listings and is_published(name.interval, name.period)
        if not listed or made > self.now():
            return None
        if name.path not in self._files:
            table = self._table(name)
            if table.is_empty():
                return None
            futures = market_of(name.symbol)[0] == "um"
            text = table.write_csv(include_header=futures).encode()
            if edit is not None:
                text = edit(text)
            self._files[name.path] = zipped(f"{name.stem}.csv", text, made.timetuple()[:6])
            while len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
        return self._files[name.path]

    def _table(self, name: ArchiveName) -> pl.DataFrame:
        closed = max(name.hi, self.now())
        candles = self.prices.candles(name.symbol, name.interval, month_start(name.first), closed)
        candles = candles.filter(pl.col("open_time").is_between(_ms(name.lo), _ms(name.hi) - 1))
        candles = candles.filter(pl.col("close_time") < _ms(closed))
        if market_of(name.symbol)[0] == "spot" and name.first >= _MICROSECONDS_SINCE:
            candles = candles.with_columns(pl.col("open_time") * 1000, pl.col("close_time") * 1000 + 999)
        return candles


class _Refusal(Exception):
    """An error answer with one of Binance's codes."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def _ping(market: str, query: dict[str, str]) -> Answer:
    return _json({})


def _json(content: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

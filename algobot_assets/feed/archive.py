"""Candles from Binance's public archive: zipped CSVs per day and per month, each with its checksum.

Here belong the archive's layout, the safe opening of its files and their download. Which file to take for
which stretch belongs to planner; the columns belong to klines.

A file is used only if its bytes have the published SHA-256, it holds exactly the one CSV its name promises,
and that CSV is no larger than its period can be. Files are published late, replaced, and sometimes too
early, with only a part of their day; the time stamp inside the zip tells that a file was made before its
period had ended."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from algobot_assets.errors import BadCandles, SourceError, SourceUnavailable
from algobot_assets.feed import klines
from algobot_assets.feed.bounded_read import TooSlow, arriving
from algobot_assets.feed.retry import Retry, Transient, retry_after
from algobot_assets.feed.source import Fetched, Origin, market_of, symbol_of
from algobot_assets.schema.intervals import candle_end, interval_ms, midnight, next_month

ARCHIVE_URL = "https://data.binance.vision"
Period = Literal["daily", "monthly"]
#: The month interval has a spelling of its own here, since 1M and 1m are one name on some disks.
_ARCHIVE_INTERVAL = {"1M": "1mo"}
_FROM_ARCHIVE = {spelling: interval for interval, spelling in _ARCHIVE_INTERVAL.items()}
_PATH = re.compile(
    r"(?:.*/)?(?P<market>spot|futures/um)/(?P<period>daily|monthly)/klines/(?P<folder>[^/]+)/(?P<spelling>[^/]+)/"
    r"(?P<symbol>[^/-]+)-(?P<interval>[^/-]+)-(?P<label>\d{4}-\d\d(?:-\d\d)?)\.zip"
)
_LONGEST_DAILY_MS = 24 * 3_600_000
_ROW_BYTES = 400  # a kline is about 150 bytes long; 400 leaves room for the longest numbers
_CHECKSUM = re.compile(r"\s*([0-9a-fA-F]{64})\s+\*?(\S+)\s*")


@dataclass(frozen=True, slots=True)
class ArchiveName:
    """One file of the archive: a market and the day or month (``first`` is its first day) it covers."""

    symbol: str
    interval: str
    period: Period
    first: date

    @property
    def stem(self) -> str:
        """File name without suffix, as 'BTCUSDT-1m-2023-03' or 'BTCUSDT-1m-2023-03-24'."""
        label = f"{self.first:%Y-%m}" if self.period == "monthly" else f"{self.first:%Y-%m-%d}"
        return f"{market_of(self.symbol)[1]}-{archive_interval(self.interval)}-{label}"

    @property
    def path(self) -> str:
        """Path of the zip below the archive's base address."""
        market, name = market_of(self.symbol)
        root = "futures/um" if market == "um" else "spot"
        folder = f"data/{root}/{self.period}/klines/{name}/{archive_interval(self.interval)}"
        return f"{folder}/{self.stem}.zip"

    @property
    def lo(self) -> datetime:
        """The first instant of the period."""
        return midnight(self.first)

    @property
    def hi(self) -> datetime:
        """The end of the period, exclusive."""
        return midnight(next_month(self.first) if self.period == "monthly" else self.first + timedelta(days=1))

    @property
    def most_bytes(self) -> int:
        """The size above which the file cannot be what it claims: a bound against bombs."""
        length = interval_ms(self.interval) or 28 * _LONGEST_DAILY_MS
        rows = (self.hi - self.lo) // timedelta(milliseconds=length) + 2
        return (rows + 1) * _ROW_BYTES


def name_of(path: str) -> ArchiveName | None:
    """The archive file that ``path`` ends in, None if it is no path of the archive."""
    found = _PATH.fullmatch(path)
    if found is None or found["symbol"] != found["folder"] or found["interval"] != found["spelling"]:
        return None
    interval = interval_of(found["interval"])
    period: Period = "monthly" if found["period"] == "monthly" else "daily"
    label = found["label"] if period == "daily" else found["label"] + "-01"
    try:
        first = date.fromisoformat(label)
        interval_ms(interval)
    except (ValueError, KeyError):
        return None
    return ArchiveName(
        symbol_of("spot" if found["market"] == "spot" else "um", found["symbol"]), interval, period, first
    )


def file_named(symbol: str, interval: str, stem: str) -> ArchiveName | None:
    """The market's archive file of that name (without suffix), None if it is no such name."""
    for period, pattern in (("daily", "%Y-%m-%d"), ("monthly", "%Y-%m")):
        label = stem.removeprefix(f"{market_of(symbol)[1]}-{archive_interval(interval)}-")
        try:
            first = datetime.strptime(label, pattern).date()
        except ValueError:
            continue
        return ArchiveName(symbol, interval, period, first)
    return None


def archive_interval(interval: str) -> str:
    """The archive's spelling of an interval: '1mo' for '1M'."""
    return _ARCHIVE_INTERVAL.get(interval, interval)


def interval_of(spelling: str) -> str:
    """The interval of an archive's spelling: '1M' for '1mo'."""
    return _FROM_ARCHIVE.get(spelling, spelling)


def is_published(interval: str, period: Period) -> bool:
    """Whether the archive has files of this kind: 3d, 1w and 1M exist monthly only."""
    length = interval_ms(interval)
    return period == "monthly" or (length is not None and length <= _LONGEST_DAILY_MS)


def read_zip(data: bytes, name: ArchiveName, sha256: str, notes: tuple[str, ...] = ()) -> Fetched:
    """The candles of one archive file's bytes, and the range they answer completely.

    That range is the file's period, if the file was made after its end; a file made earlier answers through
    its last candle. BadCandles if the zip is not exactly the one CSV that ``name`` promises or the rows are
    wrong."""
    text, made = _unzip(data, name)
    where = f"{name.stem}.zip"
    frame = klines.from_csv(text, name.symbol, name.interval, lo=name.lo, hi=name.hi, where=where)
    hi = name.hi
    if made < hi:
        hi = candle_end(name.interval, frame["timestamp"][-1]) if frame.height else name.lo
        hi = min(hi, name.hi)
    kind = "monthly archive" if name.period == "monthly" else "daily archive"
    return Fetched(frame, Origin(kind, where, sha256=sha256), name.lo, hi, notes)


def check_sum(data: bytes, published: str | None, name: ArchiveName) -> str:
    """The SHA-256 of ``data``, once it equals the published line; BadCandles if it does not."""
    found = hashlib.sha256(data).hexdigest()
    line = _CHECKSUM.fullmatch(published or "")
    if published is None or line is None or line[2] != f"{name.stem}.zip":
        problem = "has no checksum" if published is None else "has a checksum that cannot be read"
        raise BadCandles(f"{_file(name)} {problem}, so its bytes cannot be trusted; nothing of it is used.")
    if line[1].lower() != found:
        raise BadCandles(
            f"{_file(name)} does not have its published checksum (it is {found[:12]}, published is"
            f" {line[1][:12].lower()}): truncated, corrupt or just replaced. Nothing of it is used; run"
            " again."
        )
    return found


def _file(name: ArchiveName) -> str:
    return f"{name.symbol} {name.interval}: the {name.period} archive {name.stem}.zip"


def _unzip(data: bytes, name: ArchiveName) -> tuple[bytes, datetime]:
    """The CSV inside and the time (taken as UTC) at which it was put there."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if [m.filename for m in members] != [f"{name.stem}.csv"]:
                shown = ", ".join(m.filename for m in members[:3]) or "nothing"
                raise BadCandles(
                    f"{_file(name)} holds {shown} where {name.stem}.csv alone belongs; nothing of it is used."
                )
            with archive.open(members[0]) as member:
                # The size in the zip's directory can lie, so it is the bytes that are counted.
                text = member.read(name.most_bytes + 1)
            if len(text) > name.most_bytes:
                raise BadCandles(
                    f"{_file(name)} unpacks to more than {name.most_bytes:,} bytes, which its period cannot"
                    " hold; nothing of it is used."
                )
            return text, datetime(*members[0].date_time, tzinfo=UTC)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BadCandles(f"{_file(name)} cannot be unpacked ({error}); nothing of it is used.") from error


class Archive:
    """The archive over HTTP.

    url: base address; files lie below its data/. workers: how many files are fetched at a time at most.
    timeout: seconds to connect and between two bytes; deadline: seconds a whole file may take.
    """

    def __init__(
        self,
        url: str = ARCHIVE_URL,
        *,
        workers: int = 4,
        timeout: tuple[float, float] = (5.0, 20.0),
        deadline: float = 300.0,
        retry: Retry | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._host = urlsplit(url).netloc
        self._workers = workers
        self._timeout = timeout
        self._deadline = deadline
        self._retry = retry or Retry()
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"  # a checksum is over the bytes as they are stored
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=workers))

    def close(self) -> None:
        self._session.close()

    def read(self, name: ArchiveName) -> Fetched | None:
        """The candles of one file; None if it is not published.

        A checksum that does not fit is asked once more together with the file, since files are replaced while
        they are read. Errors: BadCandles, SourceUnavailable, SourceError.
        """
        for last in (False, True):
            data = self._get(name.path, name.most_bytes, _file(name))
            if data is None:
                return None
            published = self._get(f"{name.path}.CHECKSUM", 1024, _file(name))
            try:
                digest = check_sum(data, None if published is None else published.decode("ascii", "replace"), name)
            except BadCandles:
                if last:
                    raise
                continue
            return read_zip(data, name, digest)
        raise AssertionError("the loop above returns or raises")

    def read_all(self, names: Iterable[ArchiveName]) -> Iterator[tuple[ArchiveName, Fetched | BadCandles | None]]:
        """`read` of several files, a bounded number at a time, in the order given; a file that cannot be used
        comes as its error."""

        def one(name: ArchiveName) -> Fetched | BadCandles | None:
            try:
                return self.read(name)
            except BadCandles as error:
                return error

        names = list(names)
        with ThreadPoolExecutor(self._workers) as pool:
            yield from zip(names, pool.map(one, names), strict=True)

    def checksums(self, symbol: str, interval: str, files: Sequence[tuple[str, str]]) -> list[str | None]:
        """`checksum` of several files of one market, a bounded number at a time; see `Source.checksums`."""

        def one(file: tuple[str, str]) -> str | None:
            name = file_named(symbol, interval, file[1].removesuffix(".zip"))
            return self.checksum(name) if name is not None else None

        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(one, files))

    def checksum(self, name: ArchiveName) -> str | None:
        """The SHA-256 published for a file now, None if there is none: tells whether it has been replaced."""
        line = self._get(f"{name.path}.CHECKSUM", 1024, _file(name))
        match = _CHECKSUM.fullmatch(line.decode("ascii", "replace")) if line else None
        return match[1].lower() if match else None

    def _get(self, path: str, limit: int, what: str) -> bytes | None:
        return self._retry.call(self._download(path, limit, what), f"{what} from {self._host}")

    def _download(self, path: str, limit: int, what: str) -> Callable[[], bytes | None]:
        def once() -> bytes | None:
            try:
                with self._session.get(f"{self._url}/{path}", timeout=self._timeout, stream=True) as answer:
                    if answer.status_code == 404:
                        return None
                    if answer.status_code != 200:
                        raise self._meaning(answer, what)
                    body = bytearray()
                    for part in arriving(answer, self._deadline):
                        body += part
                        if len(body) > limit:
                            raise BadCandles(
                                f"{what} is larger than {limit:,} bytes, which its period cannot hold;"
                                " nothing of it is used."
                            )
                    return bytes(body)
            except TooSlow as error:
                raise Transient(f"the file did not arrive within {self._deadline:.0f} seconds") from error
            except requests.exceptions.RequestException as error:
                raise Transient(f"no answer from the archive ({type(error).__name__})") from error

        return once

    def _meaning(self, answer: requests.Response, what: str) -> Exception:
        status = answer.status_code
        if status in (418, 429) or status >= 500:
            return Transient(f"the archive answered HTTP {status}", retry_after(answer.headers))
        if status == 403:
            return SourceUnavailable(
                f"{what}: {self._host} refused the request (HTTP 403, a firewall or proxy). Nothing was"
                " changed; wait some minutes and run again."
            )
        return SourceError(
            f"{what}: {self._host} answered HTTP {status}, which repeating will not change; check the"
            " archive's address, or take the candles from REST or a folder."
        )

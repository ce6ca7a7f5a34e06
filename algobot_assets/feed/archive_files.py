"""Name and read the files of Binance's public archive: a zipped CSV per day and per month, and its checksum.

A file is used only if its bytes have the published SHA-256, it holds exactly the one CSV its name promises, and that
CSV is no larger than its period allows. Binance publishes files late, replaces them, and sometimes publishes them too
early with only part of their day; the time stamp inside the zip shows that a file was made before its period had ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from algobot_assets.errors import BadCandles
from algobot_assets.feed import klines
from algobot_assets.feed.source import Fetched, Kind, Origin, market_of, symbol_of
from algobot_assets.schema.intervals import candle_end, interval_ms, midnight, next_month

Period = Literal["daily", "monthly"]
#: The archive's own spelling of the month interval, because 1M and 1m are the same name on some disks.
_ARCHIVE_INTERVAL = {"1M": "1mo"}
_FROM_ARCHIVE = {spelling: interval for interval, spelling in _ARCHIVE_INTERVAL.items()}
_PATH = re.compile(
    r"(?:.*/)?(?P<market>spot|futures/um)/(?P<period>daily|monthly)/klines/(?P<folder>[^/]+)/(?P<spelling>[^/]+)/"
    r"(?P<symbol>[^/-]+)-(?P<interval>[^/-]+)-(?P<label>\d{4}-\d\d(?:-\d\d)?)\.zip"
)
_LONGEST_DAILY_MS = 24 * 3_600_000
_ROW_BYTES = 400  # a kline takes about 150 bytes; 400 leaves room for the longest numbers
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
        """File name without suffix: 'BTCUSDT-1m-2023-03' or 'BTCUSDT-1m-2023-03-24'."""
        label = f"{self.first:%Y-%m}" if self.period == "monthly" else f"{self.first:%Y-%m-%d}"
        return f"{market_of(self.symbol)[1]}-{archive_interval(self.interval)}-{label}"

    @property
    def described(self) -> str:
        """The file's name in error messages."""
        return f"{self.symbol} {self.interval}: the {self.period} archive {self.stem}.zip"

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
        """The largest plausible size of the CSV, which bounds the damage of a zip bomb."""
        length = interval_ms(self.interval) or 28 * _LONGEST_DAILY_MS
        rows = (self.hi - self.lo) // timedelta(milliseconds=length) + 2
        return (rows + 1) * _ROW_BYTES


def name_of(path: str) -> ArchiveName | None:
    """Return the archive file that ``path`` ends in; None if it is not a path of the archive."""
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
    """Return the market's archive file of that name (without suffix); None if it is not such a name."""
    patterns: tuple[tuple[Period, str], ...] = (("daily", "%Y-%m-%d"), ("monthly", "%Y-%m"))
    for period, pattern in patterns:
        label = stem.removeprefix(f"{market_of(symbol)[1]}-{archive_interval(interval)}-")
        try:
            first = datetime.strptime(label, pattern).date()
        except ValueError:
            continue
        return ArchiveName(symbol, interval, period, first)
    return None


def archive_interval(interval: str) -> str:
    """Return the archive's spelling of an interval: '1mo' for '1M'."""
    return _ARCHIVE_INTERVAL.get(interval, interval)


def interval_of(spelling: str) -> str:
    """Return the interval behind an archive's spelling: '1M' for '1mo'."""
    return _FROM_ARCHIVE.get(spelling, spelling)


def is_published(interval: str, period: Period) -> bool:
    """Return whether the archive has files of this kind: 3d, 1w and 1M exist monthly only."""
    length = interval_ms(interval)
    return period == "monthly" or (length is not None and length <= _LONGEST_DAILY_MS)


def read_zip(data: bytes, name: ArchiveName, sha256: str, notes: tuple[str, ...] = ()) -> Fetched:
    """Read the candles of one archive file, and the range it covers completely.

    That range is the file's period if the file was made after its end; a file made earlier covers it through
    its last candle. BadCandles if the zip is not exactly the one CSV that ``name`` promises, or its rows are wrong."""
    text, made = _unzip(data, name)
    where = f"{name.stem}.zip"
    frame = klines.from_csv(text, name.symbol, name.interval, lo=name.lo, hi=name.hi, where=where)
    hi = name.hi
    if made < hi:
        hi = candle_end(name.interval, frame["timestamp"][-1]) if frame.height else name.lo
        hi = min(hi, name.hi)
    kind: Kind = "monthly archive" if name.period == "monthly" else "daily archive"
    return Fetched(frame, Origin(kind, where, sha256=sha256), name.lo, hi, notes)


def check_sum(data: bytes, published: str | None, name: ArchiveName) -> str:
    """Return the SHA-256 of ``data``. BadCandles unless it equals the published line."""
    found = hashlib.sha256(data).hexdigest()
    line = _CHECKSUM.fullmatch(published or "")
    if published is None or line is None or unicodedata.normalize("NFC", line[2]) != f"{name.stem}.zip":
        problem = "has no checksum" if published is None else "has a checksum that cannot be read"
        raise BadCandles(f"{name.described} {problem}, so its bytes cannot be trusted; nothing of it is used.")
    if line[1].lower() != found:
        raise BadCandles(
            f"{name.described} does not have its published checksum (it is {found[:12]}, published is"
            f" {line[1][:12].lower()}): truncated, corrupt or just replaced. Nothing of it is used; run"
            " again."
        )
    return found


def published_sum(line: str) -> str | None:
    """Return the SHA-256 of a published checksum line; None if it is not one."""
    match = _CHECKSUM.fullmatch(line)
    return match[1].lower() if match else None


def _member_name(member: zipfile.ZipInfo) -> str:
    """Return a member's name; a name without the flag for UTF-8 was read as code page 437 and is read again."""
    name = member.filename
    if not member.flag_bits & 0x800 and not name.isascii():
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return unicodedata.normalize("NFC", name)


def _unzip(data: bytes, name: ArchiveName) -> tuple[bytes, datetime]:
    """Return the CSV inside and the time (read as UTC) at which it was added."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if [_member_name(m) for m in members] != [f"{name.stem}.csv"]:
                shown = ", ".join(m.filename for m in members[:3]) or "nothing"
                raise BadCandles(
                    f"{name.described} holds {shown} instead of {name.stem}.csv alone; nothing of it is used."
                )
            with archive.open(members[0]) as member:
                # The size in the zip's directory can lie, so the bytes are counted.
                text = member.read(name.most_bytes + 1)
            if len(text) > name.most_bytes:
                raise BadCandles(
                    f"{name.described} unpacks to more than {name.most_bytes:,} bytes, which its period cannot"
                    " hold; nothing of it is used."
                )
            return text, datetime(*members[0].date_time, tzinfo=UTC)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BadCandles(f"{name.described} cannot be unpacked ({error}); nothing of it is used.") from error

"""Recognise and read the files of a folder of klines: archive zips, their unpacked or gzipped CSVs, and Parquet.

A file is recognised by its name, SYMBOL-INTERVAL-PERIOD with the suffix .zip, .csv, .csv.gz, .gz or .parquet, at any
depth. It holds USD-M futures if a folder above it is named futures-um, or um below futures, else spot. Parquet needs
no period, and must be directly in a folder named spot or futures-um, or in the folder that was given.

A CSV is read like the zip of the same name. It lacks the time stamp of the zip, so it covers its period only through
its last candle.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal

from algobot_assets.errors import BadCandles
from algobot_assets.feed import klines
from algobot_assets.feed.archive_files import ArchiveName, check_sum, file_named, interval_of, read_zip
from algobot_assets.feed.source import Fetched, Origin, symbol_of
from algobot_assets.schema.intervals import INTERVALS, candle_end
from algobot_assets.schema.symbols import is_symbol, suggest_interval, suggest_symbol

Form = Literal["zip", "csv", "csv.gz", "gz", "parquet"]
#: Preferred forms of files with one name, best first.
FORMS: tuple[Form, ...] = ("zip", "csv", "csv.gz", "gz", "parquet")
_FILE = re.compile(
    r"(?P<symbol>[^/]+?)-(?P<interval>[^/-]+)(?:-(?P<period>[^/]*?))?\.(?P<form>zip|csv\.gz|csv|gz|parquet)", re.I
)
#: Tried first, so that a symbol written with a dash can be named in the remedy.
_FILE_OF_PERIOD = re.compile(
    r"(?P<symbol>[^/]+)-(?P<interval>[^/-]+)-(?P<period>\d{4}-\d\d(?:-\d\d)?)"
    r"\.(?P<form>zip|csv\.gz|csv|gz|parquet)",
    re.I,
)
_PERIOD = re.compile(r"\d{4}-\d\d(-\d\d)?")


@dataclass(frozen=True, slots=True)
class CandleFile:
    """A recognised file. ``relative``: its path below the folder; ``name``: its name in the archive, None for
    Parquet."""

    path: Path
    relative: str
    symbol: str
    interval: str
    form: Form
    name: ArchiveName | None

    @property
    def origin_name(self) -> str:
        """The name kept with its candles: a zip's own, else the path below the folder."""
        return f"{self.name.stem}.zip" if self.name and self.form == "zip" else self.relative

    @property
    def preference(self) -> tuple[int, int, bool, str]:
        """The sort key of files that cover one candle, best first: a daily file, then Parquet, then a monthly file.

        Files of one name sort by `FORMS`, a zip with its checksum first."""
        period = 1 if self.name is None else {"daily": 0, "monthly": 2}[self.name.period]
        return period, FORMS.index(self.form), not _checksum_file(self.path).exists(), self.relative


def recognise(path: Path, root: Path) -> CandleFile | str | None:
    """Return the candle file at ``path``; a sentence if its name is almost right; None for anything else."""
    relative = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
    last = relative.rpartition("/")[2]
    found = _FILE_OF_PERIOD.fullmatch(last) or _FILE.fullmatch(last)
    if found is None:
        return None
    form: Form = next(form for form in FORMS if form == found["form"].lower())
    above = "/".join(["", *root.resolve().parts[1:], *relative.split("/")[:-1], ""])
    if "/futures-cm/" in above or "/futures/cm/" in above:
        return f"{relative} holds COIN-M contracts, which are not supported"
    futures = "/futures-um/" in above or "/futures/um/" in above
    symbol, interval = symbol_of("um" if futures else "spot", found["symbol"]), interval_of(found["interval"])
    if form == "parquet" and "/" in relative and not above.endswith(("/spot/", "/futures-um/")):
        return f"{relative} must be in a folder named spot or futures-um"
    if not is_symbol(symbol) and is_symbol(f"{found['symbol']}.UM"):
        symbol = f"{found['symbol']}.UM"  # a dated contract, in any folder
    if not is_symbol(symbol) or interval not in INTERVALS:
        right = symbol if is_symbol(symbol) else suggest_symbol(symbol)
        length = interval if interval in INTERVALS else suggest_interval(interval)
        if right is None or length is None:
            return None
        name = right.removesuffix(".UM") + last.removeprefix(found["symbol"])
        return f"rename {relative} to " + name.replace(f"-{found['interval']}", f"-{length}", 1)
    if form == "parquet":
        return CandleFile(path, relative, symbol, interval, form, None)
    period = found["period"] or ""
    name_ = file_named(symbol, interval, f"{found['symbol']}-{found['interval']}-{period}")
    if name_ is None or not _PERIOD.fullmatch(period):
        return f"{relative} needs its month or day in its name, as in {found['symbol']}-{interval}-2024-01.{form}"
    return CandleFile(path, relative, symbol, interval, form, name_)


def read(file: CandleFile) -> Fetched:
    """Read the candles of a zip or CSV, and the range it covers. BadCandles if it cannot be used."""
    assert file.name is not None
    if file.form == "zip":
        return _read_zip(file.path, file.name)
    data = file.path.read_bytes() if file.form == "csv" else _decompressed(file, file.name)
    where = file.path.name
    frame = klines.from_csv(data, file.symbol, file.interval, lo=file.name.lo, hi=file.name.hi, where=where)
    hi = candle_end(file.interval, frame["timestamp"][-1]) if frame.height else file.name.lo
    origin = Origin("file", file.relative, sha256=sha256_of(file.path))
    return Fetched(frame, origin, file.name.lo, min(hi, file.name.hi))


def covers_period(file: CandleFile) -> bool:
    """Return whether the file is a zip whose content was made after its period; False if that is unknown."""
    if file.name is None or file.form != "zip":
        return False
    try:
        with zipfile.ZipFile(file.path) as archive:
            return all(datetime(*member.date_time, tzinfo=UTC) >= file.name.hi for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _read_zip(path: Path, name: ArchiveName) -> Fetched:
    data = path.read_bytes()
    line = _checksum_file(path)
    if line.exists():
        return read_zip(data, name, check_sum(data, line.read_text("utf-8", "replace"), name))
    note = f"{name.symbol} {name.interval}: {path.name} has no CHECKSUM beside it and was used unverified."
    return read_zip(data, name, hashlib.sha256(data).hexdigest(), (note,))


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".CHECKSUM")


def _decompressed(file: CandleFile, name: ArchiveName) -> bytes:
    who = f"{file.symbol} {file.interval}: {file.path.name}"
    try:
        with gzip.open(file.path) as opened:
            data = opened.read(name.most_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadCandles(f"{who} cannot be unpacked ({error}); nothing of it is used.") from error
    if len(data) > name.most_bytes:
        raise BadCandles(f"{who} unpacks to more than {name.most_bytes:,} bytes; nothing of it is used.")
    return data


def nothing_usable(root: Path, others: Sequence[Path], nearly: Sequence[str]) -> str:
    """Return the error for a folder without candle files: the files found and the names expected."""
    names = [unicodedata.normalize("NFC", path.relative_to(root).as_posix()) for path in others]
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    found = f"it holds {', '.join(names[:5])}{more}" if names else "it is empty"
    hints = f" In particular: {'; '.join(nearly[:3])}." if nearly else ""
    return (
        f"{root} holds no candle files: {found}.{hints} Expected are names like BTCUSDT-1h-2024-01.zip,"
        " .csv or .csv.gz at any depth, as on Binance's archive (data/spot/monthly/klines/SYMBOL/INTERVAL/*.zip), or"
        " spot/SYMBOL-INTERVAL-PERIOD.parquet; USD-M futures below futures-um or futures/um."
    )


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, computed again only if its size or time has changed."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)

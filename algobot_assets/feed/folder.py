"""Candles from a local folder: archive zips in the archive's tree, or Parquet files with the same 12 columns.

Here belongs finding and reading such files. The folder is taken at its word: each file answers for its own
stretch, and what no file covers is unknown, not absent. Its clock is the end of what its files cover.

Recognised below the root, at any depth:
  data/{spot|futures/um}/{daily|monthly}/klines/SYMBOL/INTERVAL/SYMBOL-INTERVAL-PERIOD.zip (and .CHECKSUM)
  {spot|futures-um}/SYMBOL-INTERVAL-PERIOD.parquet
Where files overlap, a daily zip is taken before a Parquet file, and that before a monthly zip.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from algobot_assets.errors import BadCandles, SettingsError, SourceError
from algobot_assets.feed import klines
from algobot_assets.feed.archive_files import ArchiveName, check_sum, interval_of, name_of, read_zip
from algobot_assets.feed.source import Fetched, Origin, market_of, symbol_of
from algobot_assets.schema.intervals import INTERVALS, candle_end, midnight, next_month

_PARQUET = re.compile(
    r"(?:.*/)?(?P<market>spot|futures-um)/(?P<symbol>[^/-]+)-(?P<interval>[^/-]+)(?:-[^/]*)?\.parquet"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PREFERENCE = {"daily": 0, "parquet": 1, "monthly": 2}


@dataclass(frozen=True, slots=True)
class _Piece:
    """One file and the range [lo, hi) it answers."""

    path: Path
    lo: datetime
    hi: datetime
    archive: ArchiveName | None

    @property
    def preference(self) -> tuple[int, str]:
        return _PREFERENCE[self.archive.period if self.archive else "parquet"], self.path.name


class Folder:
    """A folder of candle files as a `Source`. The files are listed once, when the object is made."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).expanduser()
        if not self._root.is_dir():
            raise SettingsError(f"{self._root} is no folder; name the folder that holds the candle files.")
        self._files: dict[tuple[str, str], list[tuple[Path, ArchiveName | None]]] = {}
        for path in sorted(self._root.rglob("*")):
            self._enter(path)
        if not self._files:
            raise SettingsError(
                f"{self._root} holds no candle files. Expected are"
                " data/spot/daily/klines/SYMBOL/INTERVAL/*.zip as on Binance's archive, or"
                " spot/SYMBOL-INTERVAL-PERIOD.parquet."
            )
        self._pieces: dict[tuple[str, str], list[_Piece]] = {}

    def _enter(self, path: Path) -> None:
        relative = path.relative_to(self._root).as_posix()
        name = name_of(relative)
        if name is not None:
            market = name.symbol, name.interval
        elif found := _PARQUET.fullmatch(relative):
            symbol = symbol_of("spot" if found["market"] == "spot" else "um", found["symbol"])
            market = symbol, interval_of(found["interval"])
        else:
            return
        if market[1] in INTERVALS:
            self._files.setdefault(market, []).append((path, name))

    @property
    def name(self) -> str:
        return f"the folder {self._root}"

    def close(self) -> None:
        """Nothing is held open."""

    def server_time(self) -> datetime:
        """The end of the latest candle file."""
        return max(self.known_through(*market) for market in self._files)

    def known_through(self, symbol: str, interval: str) -> datetime:
        """The end of what the market's files cover."""
        return self._market(symbol, interval)[-1].hi

    def first_open(self, symbol: str, interval: str) -> datetime | None:
        """The open of the market's first candle in the folder."""
        for stretch in self.fetch(symbol, interval, *self._extent(symbol, interval)):
            if stretch.frame.height:
                first: datetime = stretch.frame["timestamp"][0]
                return first
        return None

    def symbols(self, market: str = "spot") -> list[str]:
        """The symbols with files, of one market."""
        return sorted({symbol for symbol, _ in self._files if market_of(symbol)[0] == market})

    def intervals(self, symbol: str) -> list[str]:
        """The intervals with files for ``symbol``, shortest first."""
        return [interval for interval in INTERVALS if (symbol, interval) in self._files]

    def rules(self, symbol: str) -> None:
        """Files hold no trading rules: None for a symbol with files, SourceError for any other."""
        if not self.intervals(symbol):
            raise self._unknown(symbol, None)

    def checksums(self, symbol: str, interval: str, files: Sequence[tuple[str, str]]) -> list[str | None]:
        """The SHA-256 of the files as they are now; None for one that is gone."""
        paths = {
            (path.name if archive else path.relative_to(self._root).as_posix()): path
            for path, archive in self._files.get((symbol, interval), ())
        }
        return [_sha256(paths[name]) if name in paths else None for _, name in files]

    def fetch(self, symbol: str, interval: str, lo: datetime, hi: datetime) -> Iterator[Fetched]:
        """Candles that open in [lo, hi), as far as files cover it; see `Source.fetch`."""
        for start, stop, piece in _best(self._market(symbol, interval), lo, hi):
            while start < stop:
                end = min(stop, midnight(next_month(start.date())))
                yield self._read(piece, symbol, interval, start, end)
                start = end

    def _extent(self, symbol: str, interval: str) -> tuple[datetime, datetime]:
        pieces = self._market(symbol, interval)
        return min(piece.lo for piece in pieces), pieces[-1].hi

    def _market(self, symbol: str, interval: str) -> list[_Piece]:
        """The market's files with the ranges they answer, by end."""
        key = (symbol, interval)
        if key not in self._files:
            raise self._unknown(symbol, interval)
        if key not in self._pieces:
            pieces = [self._measure(symbol, interval, *file) for file in self._files[key]]
            self._pieces[key] = sorted(pieces, key=lambda piece: (piece.hi, piece.lo))
        return self._pieces[key]

    def _measure(self, symbol: str, interval: str, path: Path, name: ArchiveName | None) -> _Piece:
        if name is not None:
            if _made_after(path, name.hi):
                return _Piece(path, name.lo, name.hi, name)
            stretch = _read_archive(path, name)
            return _Piece(path, stretch.lo, stretch.hi, name)
        table = _parquet(path, symbol, interval)
        names = table.collect_schema().names()
        if tuple(names) != klines.PUBLISHED:
            raise BadCandles(klines.columns_sentence(symbol, interval, path.name, len(names)))
        first, last = table.select(_OPEN_MS.min().alias("first"), _OPEN_MS.max().alias("last")).collect().row(0)
        if first is None:
            raise BadCandles(f"{symbol} {interval}: {path.name} holds no candles; remove it or replace it.")
        return _Piece(path, _moment(first), candle_end(interval, _moment(last)), None)

    def _read(self, piece: _Piece, symbol: str, interval: str, lo: datetime, hi: datetime) -> Fetched:
        if piece.archive is not None:
            whole = _read_archive(piece.path, piece.archive)
            frame = whole.frame.filter(pl.col("timestamp").is_between(lo, hi, closed="left"))
            return Fetched(frame, whole.origin, lo, hi, whole.notes)
        table = _parquet(piece.path, symbol, interval)
        rows = table.filter(_OPEN_MS.is_between(_ms(lo), _ms(hi), closed="left")).collect()
        frame = klines.from_published(rows, symbol, interval, lo=lo, hi=hi, where=piece.path.name)
        origin = Origin("file", piece.path.relative_to(self._root).as_posix(), sha256=_sha256(piece.path))
        return Fetched(frame, origin, lo, hi)

    def _unknown(self, symbol: str, interval: str | None) -> SourceError:
        known = self.intervals(symbol)
        if known:
            return SourceError(
                f"{symbol}: {self.name} has no {interval} candles, only {', '.join(known)}. Declare one of"
                " those, or add the files."
            )
        names = sorted({name for name, _ in self._files})
        near = difflib.get_close_matches(symbol, names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(names[:8])}."
        return SourceError(f"{self.name} has no candles of {symbol}{hint} Correct the declared markets.")


#: The open of a published row in milliseconds, whichever unit it is in.
_OPEN_MS = (
    pl.when(pl.col("open_time").cast(pl.Int64) > klines.MICROSECONDS_FROM)
    .then(pl.col("open_time").cast(pl.Int64) // 1000)
    .otherwise(pl.col("open_time").cast(pl.Int64))
)


def _best(pieces: list[_Piece], lo: datetime, hi: datetime) -> Iterator[tuple[datetime, datetime, _Piece]]:
    """The ranges within [lo, hi) that files cover, ascending, each with the file to take."""
    edges = sorted({min(max(edge, lo), hi) for piece in pieces for edge in (piece.lo, piece.hi)})
    held: tuple[datetime, datetime, _Piece] | None = None
    for start, stop in itertools.pairwise(edges):
        covering = [piece for piece in pieces if piece.lo <= start and piece.hi >= stop]
        if not covering:
            continue
        piece = min(covering, key=lambda piece: piece.preference)
        if held and held[1] == start and held[2] is piece:
            held = (held[0], stop, piece)
            continue
        if held:
            yield held
        held = (start, stop, piece)
    if held:
        yield held


def _parquet(path: Path, symbol: str, interval: str) -> pl.LazyFrame:
    try:
        table = pl.scan_parquet(path)
        table.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadCandles(
            f"{symbol} {interval}: {path.name} is no readable Parquet file; replace it ({_line(error)})."
        ) from error
    return table


def _made_after(path: Path, moment: datetime) -> bool:
    """Whether the zip's content was made at or after ``moment``; False, too, if that cannot be told."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(datetime(*member.date_time, tzinfo=UTC) >= moment for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _read_archive(path: Path, name: ArchiveName) -> Fetched:
    data = path.read_bytes()
    line = path.with_name(path.name + ".CHECKSUM")
    if line.exists():
        return read_zip(data, name, check_sum(data, line.read_text("ascii", "replace"), name))
    note = f"{name.symbol} {name.interval}: {path.name} has no CHECKSUM beside it, so it was taken as it is."
    return read_zip(data, name, hashlib.sha256(data).hexdigest(), (note,))


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(path: Path) -> str:
    """The SHA-256 of a file, worked out again only if its size or time has changed."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


def _line(error: Exception) -> str:
    return str(error).split("\n")[0][:200]


def _moment(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)

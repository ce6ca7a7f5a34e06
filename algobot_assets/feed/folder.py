"""Serve candles from a local folder as a `Source`: files of Binance's archive, packed or not, or Parquet like them.

Each file covers its own stretch; anything that no file covers is unknown, not absent. The folder's clock is the end of
its files. folder_files.py defines the recognised names. If files overlap, a daily file is preferred to a Parquet file,
and that to a monthly file; among files with one name, the zip with its CHECKSUM comes first, then the zip, .csv,
.csv.gz and .gz.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from algobot_assets.errors import BadCandles, SettingsError, SourceError
from algobot_assets.feed import klines
from algobot_assets.feed.folder_files import CandleFile, covers_period, nothing_usable, read, recognise, sha256_of
from algobot_assets.feed.source import Fetched, Origin, market_of
from algobot_assets.schema.intervals import INTERVALS, candle_end, midnight, next_month

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One file and the range [lo, hi) it covers."""

    file: CandleFile
    lo: datetime
    hi: datetime


class Folder:
    """A folder of candle files as a `Source`. The files are listed once, when the object is made."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).expanduser()
        if not self._root.is_dir():
            raise SettingsError(f"{self._root} is not a folder. Name the folder that holds the candle files.")
        self._files: dict[tuple[str, str], list[CandleFile]] = {}
        others: list[Path] = []
        nearly: list[str] = []
        for path in sorted(self._root.rglob("*")):
            file = recognise(path, self._root)
            if isinstance(file, CandleFile):
                self._files.setdefault((file.symbol, file.interval), []).append(file)
            elif path.is_file():
                others += [path] if not self._files else []
                nearly += [file] if file else []
        if not self._files:
            raise SettingsError(nothing_usable(self._root, others, nearly))
        self._pieces: dict[tuple[str, str], list[_Piece]] = {}
        self._nearly = nearly

    @property
    def name(self) -> str:
        """The folder's path."""
        return f"the folder {self._root}"

    def close(self) -> None:
        """Do nothing: no file is held open."""

    def server_time(self) -> datetime:
        """Return the end of the latest candle file."""
        return max(self.known_through(*market) for market in self._files)

    def known_through(self, symbol: str, interval: str) -> datetime:
        """Return the end of the range that the market's files cover."""
        return self._market(symbol, interval)[-1].hi

    def first_open(self, symbol: str, interval: str) -> datetime | None:
        """Return the open of the market's first candle in the folder."""
        earliest = min(self._market(symbol, interval), key=lambda piece: piece.lo)
        if earliest.file.name is None:  # measured by its candles, not named after a period
            return earliest.lo
        for stretch in self.fetch(symbol, interval, *self._extent(symbol, interval)):
            if stretch.frame.height:
                first: datetime = stretch.frame["timestamp"][0]
                return first
        return None

    def symbols(self, market: str = "spot") -> list[str]:
        """Return the symbols with files, of one market."""
        return sorted({symbol for symbol, _ in self._files if market_of(symbol)[0] == market})

    def intervals(self, symbol: str) -> list[str]:
        """Return the intervals with files for ``symbol``, shortest first."""
        return [interval for interval in INTERVALS if (symbol, interval) in self._files]

    def rules(self, symbol: str) -> None:
        """Return None, because files hold no trading rules. SourceError for a symbol without files."""
        if not self.intervals(symbol):
            raise self._unknown(symbol, None)

    def checksums(self, symbol: str, interval: str, files: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return the SHA-256 of the files as they are now; None for a missing file."""
        paths = {file.origin_name: file.path for file in self._files.get((symbol, interval), ())}
        return [sha256_of(paths[name]) if name in paths else None for _, name in files]

    def fetch(self, symbol: str, interval: str, lo: datetime, hi: datetime) -> Iterator[Fetched]:
        """Yield the candles that open in [lo, hi), as far as files cover it; see `Source.fetch`."""
        for start, stop, piece in _best(self._market(symbol, interval), lo, hi):
            while start < stop:
                end = min(stop, midnight(next_month(start.date())))
                yield self._read(piece.file, start, end)
                start = end

    def _extent(self, symbol: str, interval: str) -> tuple[datetime, datetime]:
        pieces = self._market(symbol, interval)
        return min(piece.lo for piece in pieces), pieces[-1].hi

    def _market(self, symbol: str, interval: str) -> list[_Piece]:
        """Return the market's files with the ranges they cover, by end."""
        key = (symbol, interval)
        if key not in self._files:
            raise self._unknown(symbol, interval)
        if key not in self._pieces:
            pieces = [self._measure(file) for file in self._files[key]]
            self._pieces[key] = sorted(pieces, key=lambda piece: (piece.hi, piece.lo))
        return self._pieces[key]

    def _measure(self, file: CandleFile) -> _Piece:
        if file.name is not None:
            if covers_period(file):
                return _Piece(file, file.name.lo, file.name.hi)
            stretch = read(file)
            return _Piece(file, stretch.lo, stretch.hi)
        market = file.symbol, file.interval
        table = _parquet(file)
        names = table.collect_schema().names()
        if tuple(names) != klines.PUBLISHED:
            raise BadCandles(klines.columns_sentence(*market, file.path.name, len(names)))
        first, last = table.select(_OPEN_MS.min().alias("first"), _OPEN_MS.max().alias("last")).collect().row(0)
        if first is None:
            raise BadCandles(f"{file.symbol} {file.interval}: {file.path.name} holds no candles. Remove or replace it.")
        return _Piece(file, _moment(first), candle_end(file.interval, _moment(last)))

    def _read(self, file: CandleFile, lo: datetime, hi: datetime) -> Fetched:
        if file.name is not None:
            whole = read(file)
            frame = whole.frame.filter(pl.col("timestamp").is_between(lo, hi, closed="left"))
            return Fetched(frame, whole.origin, lo, hi, whole.notes)
        rows = _parquet(file).filter(_OPEN_MS.is_between(_ms(lo), _ms(hi), closed="left")).collect()
        frame = klines.from_published(rows, file.symbol, file.interval, lo=lo, hi=hi, where=file.path.name)
        return Fetched(frame, Origin("file", file.relative, sha256=sha256_of(file.path)), lo, hi)

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
        unread = [text for text in self._nearly if market_of(symbol)[1] in text.upper()]
        remedy = f"To use its files, {unread[0]}." if unread else "Correct the declared markets."
        return SourceError(f"{self.name} has no candles of {symbol}{hint} {remedy}")


#: The open of a published row in milliseconds, whichever unit it is in.
_OPEN_MS = (
    pl.when(pl.col("open_time").cast(pl.Int64) > klines.MICROSECONDS_FROM)
    .then(pl.col("open_time").cast(pl.Int64) // 1000)
    .otherwise(pl.col("open_time").cast(pl.Int64))
)


def _best(pieces: list[_Piece], lo: datetime, hi: datetime) -> Iterator[tuple[datetime, datetime, _Piece]]:
    """Yield the ranges within [lo, hi) that files cover, ascending, each with the file to take."""
    edges = sorted({min(max(edge, lo), hi) for piece in pieces for edge in (piece.lo, piece.hi)})
    held: tuple[datetime, datetime, _Piece] | None = None
    for start, stop in itertools.pairwise(edges):
        covering = [piece for piece in pieces if piece.lo <= start and piece.hi >= stop]
        if not covering:
            continue
        piece = min(covering, key=lambda piece: piece.file.preference)
        if held and held[1] == start and held[2] is piece:
            held = (held[0], stop, piece)
            continue
        if held:
            yield held
        held = (start, stop, piece)
    if held:
        yield held


def _parquet(file: CandleFile) -> pl.LazyFrame:
    try:
        table = pl.scan_parquet(file.path)
        table.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadCandles(
            f"{file.symbol} {file.interval}: {file.path.name} is not a readable Parquet file; replace it"
            f" ({_line(error)})."
        ) from error
    return table


def _line(error: Exception) -> str:
    return str(error).split("\n")[0][:200]


def _moment(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)

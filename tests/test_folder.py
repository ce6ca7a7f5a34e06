"""Folders as people keep them: unpacked and gzipped CSVs, beside zips or alone, and what is said of a useless one."""

from __future__ import annotations

import gzip
import hashlib
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from algobot_assets.errors import BadCandles, SettingsError, SourceError
from algobot_assets.feed.archive_files import ArchiveName
from algobot_assets.feed.folder import Folder
from algobot_assets.feed.klines import PUBLISHED
from algobot_assets.feed.simulated import faults
from algobot_assets.feed.simulated.prices import SimulatedPrices

MONTH = ArchiveName("BTCUSDT", "1h", "monthly", date(2024, 4, 1))
HEADER = ",".join(PUBLISHED) + "\n"
PRICES = SimulatedPrices()


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)


LO, HI = utc(2024, 4, 1), utc(2024, 5, 1)


def table(symbol: str = "BTCUSDT", micros: bool = False) -> str:
    candles = PRICES.candles(symbol, "1h", MONTH.first, utc(2024, 6, 1))
    if micros:
        candles = candles.with_columns(pl.col("open_time") * 1000, pl.col("close_time") * 1000 + 999)
    return candles.write_csv(include_header=False)


def zipped(text: str, made: datetime = HI) -> bytes:
    return faults.zipped(f"{MONTH.stem}.csv", text.encode(), made.timetuple()[:6])


def candles(root: Path, symbol: str = "BTCUSDT") -> pl.DataFrame:
    return pl.concat([stretch.frame for stretch in Folder(root).fetch(symbol, "1h", LO, HI)])


@pytest.fixture
def from_zip(tmp_path: Path) -> pl.DataFrame:
    """The candles as the zip in the archive's tree gives them."""
    path = tmp_path / "zips" / MONTH.path
    path.parent.mkdir(parents=True)
    path.write_bytes(zipped(table()))
    return candles(tmp_path / "zips")


@pytest.mark.parametrize("text", [table(), HEADER + table(), table(micros=True), HEADER + table(micros=True)])
@pytest.mark.parametrize("form", ["csv", "csv.gz", "gz"])
@pytest.mark.parametrize("under", [Path(MONTH.path).parent, Path("spot"), Path(), Path("mine/of/april")])
def test_an_unpacked_file_reads_like_its_zip(
    tmp_path: Path, from_zip: pl.DataFrame, text: str, form: str, under: Path
) -> None:
    folder = tmp_path / "mine" / under
    folder.mkdir(parents=True)
    path = folder / f"{MONTH.stem}.{form}"
    path.write_bytes(text.encode() if form == "csv" else gzip.compress(text.encode()))
    assert from_zip.height == 720 and candles(tmp_path / "mine").equals(from_zip)
    source = Folder(tmp_path / "mine")
    (stretch,) = source.fetch("BTCUSDT", "1h", LO, HI)
    assert (stretch.lo, stretch.hi, stretch.origin.kind) == (LO, HI, "file")
    assert stretch.origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.checksums("BTCUSDT", "1h", [("file", stretch.origin.name)]) == [stretch.origin.sha256]


def test_line_ends_and_byte_order_mark_of_windows_are_read(tmp_path: Path, from_zip: pl.DataFrame) -> None:
    text = b"\xef\xbb\xbf" + (HEADER + table()).replace("\n", "\r\n").encode()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / f"{MONTH.stem}.csv").write_bytes(text)
    assert candles(tmp_path / "mine").equals(from_zip)


def test_of_files_with_one_name_the_zip_with_its_checksum_is_taken_first(tmp_path: Path) -> None:
    content = {"gz": gzip.compress(table().encode()), "csv.gz": gzip.compress(table().encode(), 1),
               "csv": table().encode(), "zip": zipped(table())}  # fmt: skip
    for form, data in content.items():
        (tmp_path / f"{MONTH.stem}.{form}").write_bytes(data)
        stretch = next(Folder(tmp_path).fetch("BTCUSDT", "1h", LO, HI))
        assert stretch.origin.sha256 == hashlib.sha256(data).hexdigest(), form
    other = tmp_path / "verified"
    other.mkdir()
    data = zipped(table(), utc(2024, 5, 9))
    (other / f"{MONTH.stem}.zip").write_bytes(data)
    assert next(Folder(tmp_path).fetch("BTCUSDT", "1h", LO, HI)).notes  # no CHECKSUM is beside either of them
    (other / f"{MONTH.stem}.zip.CHECKSUM").write_text(f"{hashlib.sha256(data).hexdigest()}  {MONTH.stem}.zip")
    stretch = next(Folder(tmp_path).fetch("BTCUSDT", "1h", LO, HI))
    assert stretch.origin.sha256 == hashlib.sha256(data).hexdigest() and not stretch.notes


def test_a_csv_covers_its_period_only_through_its_last_candle(tmp_path: Path) -> None:
    (tmp_path / f"{MONTH.stem}.csv").write_text("".join(table().splitlines(keepends=True)[:30]))
    (stretch,) = Folder(tmp_path).fetch("BTCUSDT", "1h", LO, HI)
    assert (stretch.frame.height, stretch.hi) == (30, utc(2024, 4, 2, 6))


def test_a_folder_with_one_file_per_market_is_read(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT-1h-2024-04.csv").write_text(table())
    (tmp_path / "ETHUSDT-1h-2024-04.csv").write_text(table("ETHUSDT"))
    (tmp_path / "futures" / "um").mkdir(parents=True)
    (tmp_path / "futures" / "um" / "BTCUSDT-1h-2024-04.csv").write_text(table("BTCUSDT.UM"))
    folder = Folder(tmp_path)
    assert folder.symbols() == ["BTCUSDT", "ETHUSDT"] and folder.symbols("um") == ["BTCUSDT.UM"]
    assert not candles(tmp_path).equals(candles(tmp_path, "BTCUSDT.UM"))
    assert Folder(tmp_path / "futures" / "um").symbols("um") == ["BTCUSDT.UM"]


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(table().encode())[:-20], b""])
def test_a_damaged_gzip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / f"{MONTH.stem}.csv.gz").write_bytes(data)
    if data:
        with pytest.raises(BadCandles, match=r"BTCUSDT 1h: BTCUSDT-1h-2024-04.csv.gz cannot be unpacked"):
            Folder(tmp_path).known_through("BTCUSDT", "1h")
    else:
        assert Folder(tmp_path).known_through("BTCUSDT", "1h") == LO


def test_a_gzip_that_unpacks_to_more_than_its_period_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{MONTH.stem}.csv.gz").write_bytes(gzip.compress(b"1" * (MONTH.most_bytes + 5)))
    with pytest.raises(BadCandles, match="unpacks to more than"):
        Folder(tmp_path).known_through("BTCUSDT", "1h")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], ["it is empty"]),
        (["notes.txt", "prices.csv"], ["it holds notes.txt, prices.csv.", "BTCUSDT-1h-2024-01.zip"]),
        ([f"{i}.txt" for i in range(9)], ["4.txt and 4 more"]),
        (["btcusdt-1h-2024-01.csv"], ["rename btcusdt-1h-2024-01.csv to BTCUSDT-1h-2024-01.csv"]),
        (["BTCUSDT-60m-2024-01.csv"], ["rename BTCUSDT-60m-2024-01.csv to BTCUSDT-1h-2024-01.csv"]),
        (["BTC-USDT-1H-2024-01.zip"], ["rename BTC-USDT-1H-2024-01.zip to BTCUSDT-1h-2024-01.zip"]),
        (["BTCUSDT-1h.csv"], ["BTCUSDT-1h.csv needs its month or day in its name, as in BTCUSDT-1h-2024-01.csv"]),
        (["BTCUSDT-1h-2024-13.csv"], ["needs its month or day"]),
        (["mine/BTCUSDT-1h-all.parquet"], ["must be in a folder named spot or futures-um"]),
        (["futures-cm/BTCUSD_PERP-1h-2024-01.zip"], ["COIN-M contracts, which are not supported"]),
    ],
)
def test_a_folder_without_candle_files_says_what_it_holds_and_what_is_expected(
    tmp_path: Path, files: list[str], words: list[str]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    with pytest.raises(SettingsError, match="holds no candle files") as error:
        Folder(tmp_path)
    for word in words:
        assert word in str(error.value)


def test_a_market_whose_file_is_misnamed_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "ETHUSDT-1h-2024-04.csv").write_text(table("ETHUSDT"))
    (tmp_path / "btcusdt-1h-2024-04.csv").write_text(table())
    with pytest.raises(SourceError, match=r"rename btcusdt-1h-2024-04.csv to BTCUSDT-1h-2024-04.csv"):
        Folder(tmp_path).known_through("BTCUSDT", "1h")

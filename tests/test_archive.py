"""Archive files and folders of files: only what is whole, safe and exactly what its name says is read."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from algobot_assets.errors import BadCandles, SettingsError, SourceError, SourceUnavailable
from algobot_assets.feed.archive import Archive
from algobot_assets.feed.archive_files import ArchiveName, check_sum, is_published, name_of, read_zip
from algobot_assets.feed.folder import Folder
from algobot_assets.feed.retry import Retry
from algobot_assets.feed.simulated import faults
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.simulated.prices import SimulatedPrices

DATA = Path(os.environ.get("ALGOBOT_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no development candles at {DATA}")
PRICES = SimulatedPrices()
DAY = ArchiveName("ETHUSDT", "15m", "daily", date(2024, 5, 8))
MONTH = ArchiveName("ETHUSDT", "15m", "monthly", date(2024, 4, 1))


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)


@pytest.fixture
def simulated() -> Iterator[SimulatedExchange]:
    server = SimulatedExchange(PRICES, now=utc(2024, 5, 10, 12))
    with server:
        yield server


@pytest.fixture
def archive(simulated: SimulatedExchange) -> Iterator[Archive]:
    client = Archive(simulated.url, retry=Retry(sleep=simulated.advance, clock=simulated.timestamp))
    yield client
    client.close()


def zip_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (
            ArchiveName("BTCUSDT", "1m", "daily", date(2023, 3, 24)),
            "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-03-24.zip",
        ),
        (
            ArchiveName("BTCUSDT", "1M", "monthly", date(2023, 3, 1)),
            "data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2023-03.zip",
        ),
        (
            ArchiveName("1000PEPEUSDT.UM", "5m", "monthly", date(2025, 1, 1)),
            "data/futures/um/monthly/klines/1000PEPEUSDT/5m/1000PEPEUSDT-5m-2025-01.zip",
        ),
    ],
)
def test_archive_file_names_are_parsed(name: ArchiveName, path: str) -> None:
    assert name.path == path
    assert name_of(path) == name
    assert name_of("anywhere/" + path) == name


@pytest.mark.parametrize(
    "path",
    [
        "data/spot/daily/klines/BTCUSDT/1m/ETHUSDT-1m-2023-03-24.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1h-2023-03-24.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-02-30.zip",
        "data/spot/daily/klines/BTCUSDT/7m/BTCUSDT-7m-2023-02-03.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-02.zip",
        "data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-2023-02-03.zip",
    ],
)
def test_unknown_archive_file_names_are_refused(path: str) -> None:
    assert name_of(path) is None


def test_long_intervals_are_published_by_month_only() -> None:
    assert [i for i in ("1m", "12h", "1d", "3d", "1w", "1M") if is_published(i, "daily")] == [
        "1m",
        "12h",
        "1d",
    ]
    assert is_published("1M", "monthly")


# Reading one file


@needs_data
@pytest.mark.parametrize("path", sorted((DATA / "archive").rglob("*.zip")), ids=lambda p: p.stem)
def test_real_files_are_read_and_their_checksum_kept(path: Path) -> None:
    name = name_of(path.relative_to(DATA).as_posix())
    assert name is not None
    data = path.read_bytes()
    digest = check_sum(data, path.with_name(path.name + ".CHECKSUM").read_text(), name)
    stretch = read_zip(data, name, digest)
    assert stretch.origin.sha256 == hashlib.sha256(data).hexdigest()
    assert stretch.origin.name == path.name
    assert stretch.origin.kind == f"{name.period} archive"
    assert stretch.lo == name.lo
    assert stretch.frame["timestamp"].is_between(stretch.lo, stretch.hi, closed="left").all()
    if path.stem != "ARBUSDT-1m-2023-07-27":
        assert stretch.hi == name.hi


@needs_data
def test_a_file_made_before_its_day_was_over_answers_through_its_last_candle() -> None:
    path = DATA / "archive/data/spot/daily/klines/ARBUSDT/1m/ARBUSDT-1m-2023-07-27.zip"
    stretch = read_zip(path.read_bytes(), ArchiveName("ARBUSDT", "1m", "daily", date(2023, 7, 27)), "-")
    assert stretch.frame.height == 230
    assert (stretch.lo, stretch.hi) == (utc(2023, 7, 27), utc(2023, 7, 27, 3, 50))


@needs_data
def test_an_outage_in_an_archive_file_is_a_gap() -> None:
    path = DATA / "archive/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-03-24.zip"
    stretch = read_zip(path.read_bytes(), ArchiveName("BTCUSDT", "1m", "daily", date(2023, 3, 24)), "-")
    assert stretch.frame.height == 1360
    assert (stretch.lo, stretch.hi) == (utc(2023, 3, 24), utc(2023, 3, 25))
    outage = stretch.frame.filter(pl.col("timestamp").is_between(utc(2023, 3, 24, 12, 40), utc(2023, 3, 24, 13, 59)))
    assert outage.is_empty()


def test_a_zip_must_hold_the_one_csv_it_promises() -> None:
    csv = f"{DAY.stem}.csv"
    for members in (
        [],
        [("other.csv", b"")],
        [(f"../{csv}", b"")],
        [(f"/etc/{csv}", b"")],
        [(csv, b""), ("second.csv", b"")],
    ):
        with pytest.raises(BadCandles, match=f"ETHUSDT 15m: the daily archive {DAY.stem}.zip holds"):
            read_zip(zip_of(*members), DAY, "-")


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zip_of((f"{DAY.stem}.csv", b"0" * 50_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(BadCandles, match="unpacks to more than"):
        read_zip(bomb, DAY, "-")
    # A directory that lies about the size does not help the bomb.
    claimed = (50_000_000).to_bytes(4, "little")
    assert bomb.count(claimed) == 2
    with pytest.raises(BadCandles):
        read_zip(bomb.replace(claimed, (100).to_bytes(4, "little")), DAY, "-")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_zip_is_refused(share: float) -> None:
    whole = zip_of((f"{DAY.stem}.csv", os.urandom(2000)))
    with pytest.raises(BadCandles, match="cannot be unpacked"):
        read_zip(whole[: int(len(whole) * share)], DAY, "-")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (None, "has no checksum"),
        ("", "cannot be read"),
        ("0" * 64, "cannot be read"),
        ("0" * 64 + f"  {MONTH.stem}.zip", "cannot be read"),
        ("0" * 64 + f"  {DAY.stem}.zip", "does not have its published checksum"),
    ],
)
def test_a_checksum_that_does_not_fit_is_refused(line: str | None, what: str) -> None:
    with pytest.raises(BadCandles, match=what):
        check_sum(b"data", line, DAY)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_checksum_files_of_either_form_are_read(end: str) -> None:
    digest = hashlib.sha256(b"data").hexdigest()
    assert check_sum(b"data", f"{digest}  {DAY.stem}.zip{end}", DAY) == digest
    assert check_sum(b"data", f"{digest.upper()} *{DAY.stem}.zip{end}", DAY) == digest


# Over HTTP


def test_fetched_day_and_month_agree(archive: Archive) -> None:
    day = archive.read(ArchiveName("ETHUSDT", "15m", "daily", date(2024, 4, 30)))
    month = archive.read(MONTH)
    assert day is not None
    assert month is not None
    assert (month.lo, month.hi) == (utc(2024, 4, 1), utc(2024, 5, 1))
    assert day.frame.height == 96
    assert day.frame.equals(month.frame.filter(pl.col("timestamp") >= day.lo))
    assert archive.checksum(MONTH) == month.origin.sha256


def test_an_unpublished_archive_file_is_none(archive: Archive, simulated: SimulatedExchange) -> None:
    simulated.set_time(utc(2024, 5, 9, 1, 59))
    assert archive.read(DAY) is None
    assert archive.checksum(DAY) is None
    simulated.set_time(utc(2024, 5, 9, 2))
    assert archive.read(DAY) is not None
    assert archive.read(ArchiveName("NOSUCHUSDT", "15m", "daily", date(2024, 5, 8))) is None


def test_a_checksum_wrong_once_is_a_file_being_replaced(archive: Archive, simulated: SimulatedExchange) -> None:
    simulated.faults.append(faults.wrong_checksum(".CHECKSUM"))
    assert archive.read(DAY) is not None
    assert simulated.requests["/" + DAY.path] == 2


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (faults.wrong_checksum(".CHECKSUM"), "does not have its published checksum"),
        (faults.missing(".CHECKSUM"), "has no checksum"),
        (faults.truncated(".zip", 0.5), "checksum"),
    ],
)
def test_an_untrustworthy_archive_file_is_refused(
    archive: Archive, simulated: SimulatedExchange, fault: faults.Fault, what: str
) -> None:
    fault.times = 4
    simulated.faults.append(fault)
    with pytest.raises(BadCandles, match=f"ETHUSDT 15m: the daily archive {DAY.stem}.zip .*{what}"):
        archive.read(DAY)


@pytest.mark.parametrize("fault", [faults.error("", 503), faults.broken_off(".zip"), faults.too_many("", 30)])
def test_transient_archive_errors_are_retried(
    archive: Archive, simulated: SimulatedExchange, fault: faults.Fault
) -> None:
    fault.times = 1
    simulated.faults.append(fault)
    assert archive.read(DAY) is not None
    assert fault.times == 0


def test_lasting_archive_errors_are_one_sentence(archive: Archive, simulated: SimulatedExchange) -> None:
    simulated.faults.append(faults.error("", 500, times=100))
    with pytest.raises(SourceUnavailable, match=f"{DAY.stem}.zip from .* HTTP 500, 6 times"):
        archive.read(DAY)
    simulated.faults[:] = [faults.firewall("")]
    with pytest.raises(SourceUnavailable, match="HTTP 403"):
        archive.read(DAY)
    simulated.faults[:] = [faults.location("")]
    with pytest.raises(SourceError, match="HTTP 451"):
        archive.read(DAY)


def test_a_file_too_large_for_its_period_is_not_downloaded(archive: Archive, simulated: SimulatedExchange) -> None:
    huge = faults.Answer(200, bytes(DAY.most_bytes + 1), {})
    simulated.faults.append(faults.Fault(".zip", lambda _: huge))
    with pytest.raises(BadCandles, match="is larger than"):
        archive.read(DAY)


def test_many_files_come_in_order_and_a_bad_one_does_not_stop_the_rest(
    archive: Archive, simulated: SimulatedExchange
) -> None:
    names = [ArchiveName("ETHUSDT", "15m", "daily", date(2024, 5, 1) + timedelta(days=i)) for i in range(12)]
    simulated.faults.append(faults.missing("2024-05-03.zip.CHECKSUM", times=2))
    answers = list(archive.read_all(names))
    assert [name for name, _ in answers] == names
    assert isinstance(answers[2][1], BadCandles)
    assert [a is None for _, a in answers] == [False] * 9 + [True] * 3  # 9 May appears on the 10th at 02:00


def test_a_republished_file_has_other_content_and_a_checksum_that_fits(
    archive: Archive, simulated: SimulatedExchange
) -> None:
    before = archive.read(DAY)
    simulated.republish(DAY.path, faults.first_rows(40), made=utc(2024, 5, 8, 10))
    after = archive.read(DAY)
    assert before is not None
    assert after is not None
    assert after.origin.sha256 == archive.checksum(DAY) != before.origin.sha256
    assert after.frame.equals(before.frame.head(40))
    assert after.hi == utc(2024, 5, 8, 10)


# Folders


@needs_data
def test_a_folder_of_parquet_files_is_a_source() -> None:
    folder = Folder(DATA / "klines")
    assert "ARBUSDT" in folder.symbols()
    assert folder.symbols("um") == ["1000PEPEUSDT.UM", "BTCUSDT.UM", "NEARUSDT.UM"]
    assert folder.intervals("BTCUSDT") == ["1m", "15m", "1h", "2h", "4h", "1d", "3d", "1w", "1M"]
    assert folder.first_open("ARBUSDT", "1m") == utc(2023, 3, 23, 15)
    assert folder.known_through("ARBUSDT", "1m") == utc(2023, 6, 1)
    assert folder.known_through("BTCUSDT", "1M") == utc(2026, 4, 1)
    assert folder.server_time() == utc(2026, 4, 30, 4)
    assert folder.rules("BTCUSDT") is None
    stretches = list(folder.fetch("ARBUSDT", "1m", utc(2023, 3, 1), utc(2024, 1, 1)))
    assert [(s.lo, s.hi) for s in stretches] == [
        (utc(2023, 3, 23, 15), utc(2023, 4, 1)),
        (utc(2023, 4, 1), utc(2023, 5, 1)),
        (utc(2023, 5, 1), utc(2023, 6, 1)),
    ]
    assert sum(s.frame.height for s in stretches) == 99820
    path = DATA / "klines/spot/ARBUSDT-1m-2023-03-23_2023-05-31.parquet"
    assert {s.origin.name for s in stretches} == {"spot/" + path.name}
    assert {s.origin.sha256 for s in stretches} == {hashlib.sha256(path.read_bytes()).hexdigest()}


@needs_data
def test_a_folder_of_archive_files_covers_only_their_periods() -> None:
    folder = Folder(DATA / "archive")
    stretches = list(folder.fetch("ARBUSDT", "1m", utc(2023, 1, 1), utc(2024, 1, 1)))
    assert [(s.lo, s.hi, s.frame.height) for s in stretches] == [
        (utc(2023, 3, 23), utc(2023, 3, 24), 540),
        (utc(2023, 7, 27), utc(2023, 7, 27, 3, 50), 230),
    ]
    assert folder.first_open("ARBUSDT", "1m") == utc(2023, 3, 23, 15)
    assert folder.known_through("ARBUSDT", "1m") == utc(2023, 7, 27, 3, 50)
    assert [s.origin.kind for s in folder.fetch("BTCUSDT", "1h", utc(2023, 1, 1), utc(2026, 1, 1))] == [
        "daily archive",
        *["monthly archive"] * 3,
    ]


@needs_data
def test_archive_and_parquet_hold_the_same_digits(tmp_path: Path) -> None:
    lo, hi = utc(2023, 3, 23), utc(2023, 3, 26)
    zips = pl.concat([s.frame for s in Folder(DATA / "archive").fetch("BTCUSDT", "1m", lo, hi)])
    tables = pl.concat([s.frame for s in Folder(DATA / "klines").fetch("BTCUSDT", "1m", lo, hi)])
    assert zips.height == 4240
    assert zips.equals(tables)


@needs_data
def test_unknown_markets_of_a_folder_are_named() -> None:
    folder = Folder(DATA / "klines")
    with pytest.raises(SourceError, match=r"no candles of BTCUDST; did you mean BTCUSDT\?"):
        folder.first_open("BTCUDST", "1m")
    with pytest.raises(SourceError, match=r"ARBUSDT: .* has no 1h candles, only 1m"):
        folder.known_through("ARBUSDT", "1h")
    with pytest.raises(SourceError, match=r"no candles of NOUSDT"):
        folder.rules("NOUSDT")


@needs_data
def test_a_folder_reports_what_it_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        Folder(tmp_path / "absent")
    with pytest.raises(SettingsError, match="holds no candle files"):
        Folder(tmp_path)
    spot = tmp_path / "spot"
    spot.mkdir()
    shutil.copy(DATA / "klines/spot-ohlcv6/NBTUSDT-1h.parquet", spot)
    with pytest.raises(BadCandles, match=r"NBTUSDT 1h: NBTUSDT-1h.parquet has 6 columns"):
        Folder(tmp_path).known_through("NBTUSDT", "1h")
    (spot / "XUSDT-1h.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadCandles, match=r"XUSDT 1h: XUSDT-1h.parquet is not a readable Parquet file"):
        Folder(tmp_path).known_through("XUSDT", "1h")


def kline(opened: datetime, volume: int = 0) -> str:
    """A line of an archive's CSV, the price standing still at 1."""
    start = int(opened.timestamp() * 1000)
    return f"{start},1,1,1,1,{volume},{start + 3_599_999},0,0,0,0,0\n"


def write_zip(root: Path, name: ArchiveName, rows: list[int], made: datetime, checksum: bool = True) -> None:
    """An archive file with candles at these hours of its period; those of a daily file have a volume of 1."""
    text = "".join(kline(name.lo + timedelta(hours=hour), int(name.period == "daily")) for hour in rows)
    data = faults.zipped(f"{name.stem}.csv", text.encode(), made.timetuple()[:6])
    path = root / name.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if checksum:
        path.with_name(path.name + ".CHECKSUM").write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}")


def test_a_daily_file_is_taken_before_the_monthly_one(tmp_path: Path) -> None:
    month = ArchiveName("XUSDT", "1h", "monthly", date(2024, 4, 1))
    day = ArchiveName("XUSDT", "1h", "daily", date(2024, 4, 2))
    write_zip(tmp_path, month, list(range(720)), utc(2024, 5, 2))
    write_zip(tmp_path, day, list(range(24)), utc(2024, 4, 3), checksum=False)
    stretches = list(Folder(tmp_path).fetch("XUSDT", "1h", utc(2024, 1, 1), utc(2025, 1, 1)))
    assert [(s.origin.kind, s.lo.day, s.hi.day, s.frame["volume"].sum()) for s in stretches] == [
        ("monthly archive", 1, 2, 0),
        ("daily archive", 2, 3, 24),
        ("monthly archive", 3, 1, 0),
    ]
    assert [len(s.notes) for s in stretches] == [0, 1, 0]
    assert "has no CHECKSUM" in stretches[1].notes[0]


def test_a_daily_file_published_early_covers_only_its_candles(tmp_path: Path) -> None:
    write_zip(tmp_path, ArchiveName("XUSDT", "1h", "monthly", date(2024, 4, 1)), list(range(720)), utc(2024, 5, 2))
    early = ArchiveName("XUSDT", "1h", "daily", date(2024, 4, 2))
    write_zip(tmp_path, early, list(range(5)), utc(2024, 4, 2, 5))
    stretches = list(Folder(tmp_path).fetch("XUSDT", "1h", utc(2024, 4, 1), utc(2024, 5, 1)))
    assert [(s.origin.kind, s.frame.height) for s in stretches] == [
        ("monthly archive", 24),
        ("daily archive", 5),
        ("monthly archive", 691),
    ]


def test_a_file_in_a_folder_that_contradicts_its_checksum_is_refused(tmp_path: Path) -> None:
    day = ArchiveName("XUSDT", "1h", "daily", date(2024, 4, 2))
    write_zip(tmp_path, day, list(range(24)), utc(2024, 4, 3))
    path = tmp_path / day.path
    path.with_name(path.name + ".CHECKSUM").write_text("0" * 64 + f"  {path.name}")
    with pytest.raises(BadCandles, match="does not have its published checksum"):
        list(Folder(tmp_path).fetch("XUSDT", "1h", utc(2024, 4, 1), utc(2024, 5, 1)))


def test_a_row_of_another_period_is_refused() -> None:
    with pytest.raises(BadCandles, match="opens at or after 2024-05-09 00:00 UTC"):
        read_zip(zip_of((f"{DAY.stem}.csv", kline(DAY.hi).encode())), DAY, "-")

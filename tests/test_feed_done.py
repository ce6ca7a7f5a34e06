"""Every real file of development candles through the public interface, and every published digit in the database."""

from __future__ import annotations

import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import psycopg
import pytest
from conftest import Project

from algobot_assets.feed.archive_files import ArchiveName, interval_of, name_of
from algobot_assets.feed.klines import PUBLISHED
from algobot_assets.schema.intervals import day_of, phase_of

CANDLES = ("market_data",)
NUMBERS = {
    "open": "open",
    "high": "high",
    "low": "low",
    "close": "close",
    "volume": "volume",
    "quote_volume": "quote_asset_volume",
    "taker_buy_volume": "taker_buy_base",
    "taker_buy_quote_volume": "taker_buy_quote",
    "ignore": "ignored",
}
TEXTS = dict.fromkeys(["open_time", "close_time", "count", *NUMBERS], pl.String)


def published_texts(table: pl.DataFrame) -> pl.DataFrame:
    """Times in whole milliseconds and every number as its digits, zeros at the end left out, all as text."""

    def milliseconds(name: str) -> pl.Expr:
        time = pl.col(name).cast(pl.Int64)
        return pl.when(time > 10**14).then(time // 1000).otherwise(time).cast(pl.String).alias(name)

    def digits(name: str) -> pl.Expr:
        text = pl.col(name)
        return (
            pl.when(text.str.contains(".", literal=True))
            .then(text.str.strip_chars_end("0").str.strip_chars_end("."))
            .otherwise(text)
            .alias(name)
        )

    return table.select(
        milliseconds("open_time"), milliseconds("close_time"), pl.col("count").cast(pl.String), *map(digits, NUMBERS)
    )


def stored_texts(url: str, symbol: str, interval: str) -> pl.DataFrame:
    """What SELECT shows of a market, in the same spelling."""
    columns = ", ".join(f"trim_scale({column})::text" for column in NUMBERS.values())
    query = f"""COPY (SELECT (extract(epoch FROM "timestamp") * 1000)::bigint,
                             (extract(epoch FROM close_time) * 1000)::bigint, trades, {columns}
                        FROM market_data WHERE symbol = '{symbol}' AND "interval" = '{interval}'
                       ORDER BY "timestamp") TO STDOUT (FORMAT csv)"""
    with psycopg.connect(url) as connection, connection.cursor().copy(query) as copy:
        return pl.read_csv(b"".join(copy), has_header=False, schema=TEXTS)


def declare(project: Project, markets: list[tuple[str, str, date]]) -> None:
    rows = [f"  - {{symbol: {symbol}, interval: {interval}, start: {start}}}" for symbol, interval, start in markets]
    project.declare("\n".join(["markets:", *rows, "strategies: {}", "configurations: {}"]))


def test_every_archive_file_is_stored_to_the_last_digit(shared_data: Path, project: Project, database_url: str):
    project.klines = shared_data / "archive"
    files: dict[tuple[str, str], list[tuple[ArchiveName, Path]]] = {}
    for path in sorted(project.klines.rglob("*.zip")):
        name = name_of(path.relative_to(project.klines).as_posix())
        files.setdefault((name.symbol, name.interval), []).append((name, path))
    declare(project, [(*market, names[0][0].first) for market, names in files.items()])
    periods = sorted({(name.first, name.hi.date()) for names in files.values() for name, _ in names})
    for first, end in periods:
        # the other markets have no file for these days; nothing is known of them then, and nothing stored
        result = project.run(first, date.fromordinal(end.toordinal() - 1), CANDLES)
        assert result.success, result.error
    for market, names in files.items():
        tables = []
        for _, path in names:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(archive.infolist()[0])
            header = not text[:1].isdigit()
            schema = dict.fromkeys(PUBLISHED, pl.String)
            tables.append(pl.read_csv(text, has_header=False, skip_rows=int(header), schema=schema))
        wanted = published_texts(pl.concat(tables)).unique("open_time").sort("open_time")
        assert stored_texts(database_url, *market).equals(wanted), market


def ingest_parquet(
    project: Project, database_url: str, files: list[Path], first: date = date(2017, 7, 1), last: date | None = None
) -> None:
    """One run over the days of the files from ``first`` to ``last``, then every value of those days as text."""
    for old in project.klines.rglob("*.parquet"):
        old.unlink()
    markets: dict[tuple[str, str], tuple[Path, int]] = {}
    starts, ends = [], []
    for path in files:
        symbol, interval, _ = path.stem.split("-", 2)
        symbol += ".UM" if path.parent.name == "futures-um" else ""
        market = symbol, interval_of(interval)
        assert market not in markets
        link = project.klines / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
        opens = pl.scan_parquet(path).select(pl.col("open_time").cast(pl.Int64)).collect()["open_time"]
        begin, end = (datetime.fromtimestamp(edge / 1000, UTC) for edge in (opens.min(), opens.max()))
        if end.date() < first or (last is not None and begin.date() > last):
            continue
        markets[market] = path, phase_of(begin)
        starts.append((*market, max(begin.date(), first)))
        ends.append(end.date() + timedelta(days=31))  # 1M is known a month after its open at the latest
    declare(project, starts)
    begin = min(start for _, _, start in starts)
    last = min(last or max(ends), max(ends))
    result = project.run(begin, last, CANDLES)
    # the files of some markets end years before those of others, which the check of the newest candle says
    left_out = [line for line in result.skipped if "the newest stored candle ended" not in line]
    assert result.success and left_out == [], (result.error, left_out)
    for (symbol, interval), (path, phase) in markets.items():
        table = pl.read_parquet(path, columns=list(PUBLISHED))
        opens = (pl.col("open_time").cast(pl.Int64) * 1000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        days = table.select(opens).select(day_of(interval, phase, "open_time")).to_series()
        inside = days.is_between(first, last)
        wanted = published_texts(table.filter(inside))
        stored = stored_texts(database_url, symbol, interval)
        assert stored.height == wanted.height > 0 and stored.equals(wanted), (symbol, interval)


LARGE = "BTCUSDT-1m-2023.parquet"


def twelve_columns(shared_data: Path) -> list[Path]:
    files = [path for path in sorted((shared_data / "klines").glob("*/*.parquet")) if "ohlcv6" not in path.parent.name]
    assert len(files) == 20
    return files


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (date(2017, 8, 17), date(2018, 8, 31)),
        (date(2023, 1, 1), date(2023, 10, 31)),
        (date(2025, 1, 1), date(2025, 6, 30)),
    ],
    ids=["the odd first year", "2023 with its outage", "2025, and futures"],
)
def test_every_parquet_file_is_stored_to_the_last_digit(
    shared_data: Path, project: Project, database_url: str, tmp_path: Path, first: date, last: date
):
    month = tmp_path / "spot" / "BTCUSDT-1m-2023-03.parquet"  # of the large one the month with the outage
    month.parent.mkdir()
    files = twelve_columns(shared_data)
    large = next(path for path in files if path.name == LARGE)
    bounds = [round(datetime(2023, m, 1, tzinfo=UTC).timestamp() * 1000) for m in (3, 4)]
    pl.scan_parquet(large).filter(pl.col("open_time").is_between(*bounds, closed="left")).sink_parquet(month)
    ingest_parquet(project, database_url, [month, *(path for path in files if path != large)], first, last)


@pytest.mark.slow
def test_every_parquet_file_is_stored_whole(shared_data: Path, project: Project, database_url: str):
    ingest_parquet(project, database_url, [path for path in twelve_columns(shared_data) if path.name != LARGE])


@pytest.mark.slow
def test_a_year_of_minutes_is_stored_to_the_last_digit(shared_data: Path, project: Project, database_url: str):
    ingest_parquet(project, database_url, [shared_data / "klines" / "spot" / LARGE])


def test_candles_of_six_columns_are_refused_in_one_sentence(shared_data: Path, project: Project, database_url: str):
    for path in sorted((shared_data / "klines" / "spot-ohlcv6").glob("*.parquet")):
        for old in project.klines.rglob("*.parquet"):
            old.unlink()
        symbol, interval, _ = f"{path.stem}-all".split("-", 2)
        (project.klines / "spot" / path.name).symlink_to(path)
        declare(project, [(symbol, interval, date(2022, 1, 1))])
        result = project.run(date(2022, 1, 1), tables=CANDLES)
        assert not result.success
        assert f"{symbol} {interval}: {path.name} has 6 columns (prices and volume only)" in result.error
        assert "Binance's archive or REST" in result.error

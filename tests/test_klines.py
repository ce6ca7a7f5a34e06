"""Published klines become exact candles, or a sentence that says which row cannot be one."""

from __future__ import annotations

import os
import random
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algobot_assets.errors import BadCandles
from algobot_assets.feed import klines

DATA = Path(os.environ.get("ALGOBOT_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no development candles at {DATA}")

ROW = [
    1672531200000,
    "100.5",
    "101.0",
    "99.25",
    "100.75",
    "12.5",
    1672531259999,
    "1255.5",
    42,
    "6.1",
    "612.3",
    "0",
]
PUBLISHED_VALUES = {
    "open": "open", "high": "high", "low": "low", "close": "close", "volume": "volume",
    "quote_volume": "quote_asset_volume", "taker_buy_volume": "taker_buy_base",
    "taker_buy_quote_volume": "taker_buy_quote", "ignore": "ignored",
}  # fmt: skip


def row(minute: int = 0, **changes: object) -> list[object]:
    """A kline of a minute of 2023-01-01, with some columns changed."""
    values = dict(zip(klines.PUBLISHED, ROW, strict=True))
    values["open_time"] += 60_000 * minute
    values["close_time"] += 60_000 * minute
    return list({**values, **changes}.values())


def as_csv(*rows: list[object]) -> bytes:
    return b"".join(",".join(str(v) for v in r).encode() + b"\n" for r in rows)


def read(*rows: list[object], **context: object) -> pl.DataFrame:
    return klines.from_rest(list(rows), "BTCUSDT", "1m", **context)


def assert_digits(published: pl.DataFrame, frame: pl.DataFrame) -> None:
    """Every value equals what its published text says, compared by Python's own decimals."""
    assert frame.height == published.height
    for name, column in PUBLISHED_VALUES.items():
        texts, values = published[name].to_list(), frame[column].to_list()
        wrong = [(t, v) for t, v in zip(texts, values, strict=True) if Decimal(t) != v]
        assert not wrong, (name, wrong[:3])
    assert frame["trades"].to_list() == published["count"].to_list()
    assert frame["timestamp"].dt.epoch("ms").to_list() == published["open_time"].to_list()
    assert frame["close_time"].dt.epoch("us").to_list() == [t * 1000 for t in published["close_time"].to_list()]


def parquet_files() -> list[Path]:
    return sorted(p for folder in ("spot", "futures-um") for p in (DATA / "klines" / folder).glob("*.parquet"))


@needs_data
@pytest.mark.parametrize("path", parquet_files(), ids=lambda p: p.stem)
def test_every_published_file_is_read_to_the_last_digit(path: Path) -> None:
    published = pl.read_parquet(path)
    symbol, interval = path.stem.split("-")[:2]
    frame = klines.from_published(published, symbol, interval)
    assert dict(frame.schema) == klines.SCHEMA
    assert frame.height == published.height
    rows = sorted(random.Random(1).sample(range(frame.height), min(2000, frame.height)))
    assert_digits(published[rows], frame[rows])


@needs_data
@pytest.mark.parametrize("path", sorted((DATA / "archive").rglob("*.zip")), ids=lambda p: p.stem)
def test_archive_csv_keeps_digits_units_and_header_aside(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        text = archive.read(archive.namelist()[0])
    lines = [line.split(",") for line in text.decode().splitlines()]
    lines = [line for line in lines if line[0].isdigit()]
    frame = klines.from_csv(text, "X", "1m")
    to_ms = 1000 if len(lines[0][0]) == 16 else 1
    published = pl.DataFrame(lines, schema=list(klines.PUBLISHED), orient="row").with_columns(
        pl.col("open_time", "close_time").cast(pl.Int64) // to_ms, pl.col("count").cast(pl.Int64)
    )
    assert_digits(published, frame)


@needs_data
def test_microseconds_and_milliseconds_of_one_market_join_without_a_seam() -> None:
    folder = DATA / "archive/data/spot/monthly/klines/BTCUSDT/1h"
    frames = []
    for month in ("2024-12", "2025-01"):
        with zipfile.ZipFile(folder / f"BTCUSDT-1h-{month}.zip") as archive:
            frames.append(klines.from_csv(archive.read(f"BTCUSDT-1h-{month}.csv"), "BTCUSDT", "1h"))
    joined = pl.concat(frames)
    assert joined["timestamp"].diff().drop_nulls().unique().to_list() == [timedelta(hours=1)]
    # close_time is floored to the millisecond, so both files end their candles alike
    assert (joined["close_time"] - joined["timestamp"]).unique().to_list() == [timedelta(milliseconds=3_599_999)]


@needs_data
def test_candles_of_six_columns_are_refused_in_one_sentence() -> None:
    table = pl.read_parquet(DATA / "klines/spot-ohlcv6/SHIBUSDT-1h-2021-05_2023-12.parquet")
    with pytest.raises(BadCandles, match=r"SHIBUSDT 1h: the file has 6 columns .* instead of the 12 of a kline"):
        klines.from_published(table, "SHIBUSDT", "1h", where="the file")
    with pytest.raises(BadCandles, match="6 columns"):
        klines.from_csv(as_csv(row()[:6]), "SHIBUSDT", "1h")


@needs_data
def test_published_volumes_of_fourteen_digits_fit() -> None:
    table = pl.read_parquet(DATA / "klines/spot-ohlcv6/SHIBUSDT-1h-2021-05_2023-12.parquet")
    rows = [
        [
            r["open_time"],
            r["open"],
            r["high"],
            r["low"],
            r["close"],
            r["volume"],
            r["open_time"],
            "1",
            1,
            "0",
            "0",
            "0",
        ]
        for r in table.sort(pl.col("volume").cast(pl.Float64)).tail(50).sort("open_time").iter_rows(named=True)
    ]
    frame = klines.from_rest(rows, "SHIBUSDT", "1h")
    assert frame["volume"].to_list() == [Decimal(r[5]) for r in rows]
    assert frame["volume"].max() > 10**13


def test_csv_parquet_and_rest_give_the_same_candles() -> None:
    rows = [row(0), row(1, volume="0", count=0), row(2)]
    from_rest = read(*rows)
    table = pl.DataFrame(rows, schema=list(klines.PUBLISHED), orient="row")
    header = ",".join(klines.PUBLISHED).encode() + b"\n"
    in_micros = [[r[0] * 1000, *r[1:6], r[6] * 1000 + 999, *r[7:]] for r in rows]
    assert from_rest.equals(klines.from_published(table, "BTCUSDT", "1m"))
    for text in (as_csv(*rows), header + as_csv(*rows), as_csv(*in_micros), as_csv(rows[0], *in_micros[1:])):
        assert from_rest.equals(klines.from_csv(text, "BTCUSDT", "1m"))


def test_an_empty_file_has_no_candle() -> None:
    for frame in (read(), klines.from_csv(b"", "BTCUSDT", "1m"), klines.empty()):
        assert frame.is_empty()
        assert dict(frame.schema) == klines.SCHEMA


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("0.0000", "0"),
        ("0.00000000", "0"),
        ("121011", "121011"),
        ("31401.10", "31401.10"),
        ("1.5E+3", "1500"),
        ("1e-8", "0.00000001"),
        ("1.2300000000000", "1.23"),
        ("99999999999999999999.12345678", "99999999999999999999.12345678"),
    ],
)
def test_quantities_are_read_in_every_spelling(text: str, value: str) -> None:
    assert read(row(volume=text))["volume"].to_list() == [Decimal(value)]


@pytest.mark.parametrize(
    ("column", "text", "what"),
    [
        ("open", "100.123456789", "more than 8 decimals"),
        ("volume", "1e-9", "more than 8 decimals"),
        ("high", "1000000000000", "more than 12 digits"),
        ("volume", "100000000000000000000", "more than 20 digits"),
        ("close", "nan", "not a number"),
        ("close", "inf", "not a number"),
        ("close", "", "missing"),
        ("close", "1_0", "not written as a number"),
        ("low", "0", "not above zero"),
        ("open", "-1", "not above zero"),
        ("volume", "-1", "below zero"),
        ("taker_buy_quote_volume", "-0.1", "below zero"),
        ("high", "100.6", "the high 100.6.* is below the close 100.75"),
        ("low", "100.6", "the low 100.6.* is above the open 100.5"),
        ("count", -1, "not a number of trades"),
        ("count", 2**31, "not a number of trades"),
    ],
)
def test_a_bad_value_is_refused_by_market_candle_and_column(column: str, text: object, what: str) -> None:
    rows = [row(0), row(1, **{column: text}), row(2)]
    pattern = rf"BTCUSDT 1m, the candle of 2023-01-01 00:01:00 UTC, column {column}: .*{what}"
    with pytest.raises(BadCandles, match=pattern):
        klines.from_csv(as_csv(*rows), "BTCUSDT", "1m")
    with pytest.raises(BadCandles, match=pattern):
        read(*rows)


def test_a_price_that_is_a_float_is_refused() -> None:
    with pytest.raises(BadCandles, match="not text"):
        read(row(close=100.75))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"<html>busy</html>\n", "1 columns"),
        (as_csv(row()) + b"1672531260000,1,1\n", "is missing|not a whole number"),
        (as_csv(row()) + as_csv([*row(1), "7"]), "not a table of klines"),
        (as_csv(row(open_time=1672531200)), "not a time in milliseconds"),
        (as_csv(row(open_time=16725312000000000)), "not a time in milliseconds"),
        (as_csv(row(), row(1, open_time="x")), "row 2, column open_time: 'x' is not a whole number"),
        (b"a,b,c,d,e,f,g,h,i,j,k,l\n" + as_csv(row()), "neither a kline nor Binance's header"),
        (as_csv(row())[:-8] + b"\xff\xfe\n", "."),
    ],
)
def test_a_file_that_holds_no_klines_is_refused(text: bytes, what: str) -> None:
    with pytest.raises(BadCandles, match=what):
        klines.from_csv(text, "BTCUSDT", "1m")


def test_rows_out_of_order_or_repeated_are_handled() -> None:
    assert read(row(0), row(1), row(1), row(2)).height == 3
    with pytest.raises(BadCandles, match="00:01:00 UTC, column open_time: two different rows"):
        read(row(0), row(1), row(1, volume="13"), row(2))
    with pytest.raises(BadCandles, match="00:01:00 UTC, column open_time: it comes after a later candle"):
        read(row(0), row(2), row(1))


def test_the_claimed_stretch_is_half_open() -> None:
    lo, hi = datetime(2023, 1, 1, 0, 1, tzinfo=UTC), datetime(2023, 1, 1, 0, 3, tzinfo=UTC)
    assert read(row(1), row(2), lo=lo, hi=hi).height == 2
    with pytest.raises(BadCandles, match="opens before 2023-01-01 00:01 UTC"):
        read(row(0), row(1), lo=lo, hi=hi)
    with pytest.raises(BadCandles, match="opens at or after 2023-01-01 00:03 UTC"):
        read(row(2), row(3), lo=lo, hi=hi)


def test_odd_times_of_real_candles_are_kept() -> None:
    odd = row(open_time=1672531200123, close_time=1672531200123)
    frame = read(odd)
    assert frame["timestamp"].to_list() == frame["close_time"].to_list()
    assert frame["timestamp"].dt.epoch("ms").to_list() == [1672531200123]


@given(st.decimals(min_value=0, max_value=Decimal(10) ** 20, allow_nan=False, places=8, allow_infinity=False))
def test_any_quantity_with_eight_decimals_comes_back(value: Decimal) -> None:
    if value < Decimal(10) ** 20:
        assert read(row(volume=f"{value:f}"))["volume"].to_list() == [value]


@given(st.integers(0, 10**20 - 1), st.text("0123456789", min_size=9, max_size=14))
def test_a_ninth_decimal_is_never_cut_off_in_silence(whole: int, decimals: str) -> None:
    text = f"{whole}.{decimals}"
    if decimals[8:].strip("0"):
        with pytest.raises(BadCandles, match="more than 8 decimals"):
            read(row(volume=text))
    else:
        assert read(row(volume=text))["volume"].to_list() == [Decimal(text)]

"""Turn published klines into the market_data frame: the one place where Binance's text becomes numbers.

A kline has 12 columns, and every row passes the same checks, whether it comes from REST's lists, a CSV of the archive
or Parquet with the same columns.

Numbers stay text until they become exact decimals; no value passes through a float. A row that cannot be a
candle is refused with `BadCandles`, which names market, candle and column. Accepted, because real candles have them:
odd close times, opens off the grid, gaps, zero volume."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import polars as pl

from algobot_assets.errors import BadCandles
from algobot_assets.schema.frames import PRICE, QUANTITY, schema_of

#: The columns as Binance publishes them, in order, with the names of its own CSV header.
PUBLISHED = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
#: Published value column -> (column of market_data, its dtype).
_VALUES: dict[str, tuple[str, pl.Decimal]] = {
    "open": ("open", PRICE),
    "high": ("high", PRICE),
    "low": ("low", PRICE),
    "close": ("close", PRICE),
    "volume": ("volume", QUANTITY),
    "quote_volume": ("quote_asset_volume", QUANTITY),
    "taker_buy_volume": ("taker_buy_base", QUANTITY),
    "taker_buy_quote_volume": ("taker_buy_quote", QUANTITY),
    "ignore": ("ignored", QUANTITY),
}
#: The market_data frame: columns in order with their dtypes.
SCHEMA: dict[str, pl.DataType] = schema_of("market_data")
#: A time above this is in microseconds (as milliseconds it would lie in the year 5138).
MICROSECONDS_FROM = 100_000_000_000_000
#: Plausible opens in microseconds: Binance's years, with a margin. Other values are in another unit or broken.
_EARLIEST = int(datetime(2010, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_LATEST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def empty() -> pl.DataFrame:
    """Return a market_data frame without rows."""
    return pl.DataFrame(schema=SCHEMA)


def from_rest(
    rows: Sequence[Sequence[object]],
    symbol: str,
    interval: str,
    *,
    lo: datetime | None = None,
    hi: datetime | None = None,
    where: str = "the answer",
) -> pl.DataFrame:
    """Convert REST's klines: lists of 12 with times and count as numbers, all other values as text.

    lo, hi, where: see `from_published`.
    """
    if not rows:
        return empty()
    if any(len(row) != len(PUBLISHED) for row in rows):
        short = next(row for row in rows if len(row) != len(PUBLISHED))
        raise BadCandles(columns_sentence(symbol, interval, where, len(short)))
    columns = dict(zip(PUBLISHED, zip(*rows, strict=True), strict=True))
    try:
        frame = pl.DataFrame(
            {
                name: pl.Series(name, values, dtype=pl.String if name in _VALUES else pl.Int64)
                for name, values in columns.items()
            }
        )
    except (TypeError, OverflowError) as error:
        raise BadCandles(
            f"{symbol} {interval}: {where} has a price or volume that is not text, or a time that is not a"
            f" whole number, so its digits cannot be trusted; nothing of it is used ({error})."
        ) from error
    return from_published(frame, symbol, interval, lo=lo, hi=hi, where=where)


def from_csv(
    data: bytes,
    symbol: str,
    interval: str,
    *,
    lo: datetime | None = None,
    hi: datetime | None = None,
    where: str = "the file",
) -> pl.DataFrame:
    """Convert a CSV of the archive: with or without header, times in milliseconds or microseconds.

    lo, hi, where: see `from_published`.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    first = data[: data.find(b"\n") + 1 or len(data)]
    if first.endswith(b"\r\n"):
        data = data.replace(b"\r\n", b"\n")
    first = first.strip()
    if not first:
        return empty()
    width = first.count(b",") + 1
    if width != len(PUBLISHED):
        raise BadCandles(columns_sentence(symbol, interval, where, width))
    header = not first[:1].isdigit()
    if header and first.decode("utf-8", "replace").replace(" ", "") != ",".join(PUBLISHED):
        raise BadCandles(
            f"{symbol} {interval}: the first line of {where} is neither a kline nor Binance's header,"
            " so its columns are unknown; nothing of it is used."
        )
    try:
        frame = pl.read_csv(
            io.BytesIO(data),
            has_header=False,
            skip_rows=1 if header else 0,
            schema={name: pl.String for name in PUBLISHED},
            quote_char=None,
        )
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n")[0]
        raise BadCandles(
            f"{symbol} {interval}: {where} is not a table of klines; nothing of it is used ({reason})."
        ) from error
    exponents = any(data.find(letter, len(first)) >= 0 for letter in (b"e", b"E"))
    return from_published(frame, symbol, interval, lo=lo, hi=hi, where=where, exponents=exponents)


def from_published(
    frame: pl.DataFrame,
    symbol: str,
    interval: str,
    *,
    lo: datetime | None = None,
    hi: datetime | None = None,
    where: str = "the table",
    exponents: bool = True,
) -> pl.DataFrame:
    """Convert a table with Binance's 12 columns: values as text, times and count as text or integers.

    lo, hi: the half-open range of opens the table claims to hold; a row outside is refused. where: the table's name in
    messages. A row repeated identically is kept once; a second, different row for the same open is refused, as are
    rows out of order. exponents: False if no value contains a letter e, which saves searching each."""
    if tuple(frame.columns) != PUBLISHED:
        raise BadCandles(columns_sentence(symbol, interval, where, frame.width))
    if frame.is_empty():
        return empty()
    report = _Report(symbol, interval, where)
    numbers = _integers(frame, report)
    values = _decimals(frame, numbers["open_time"], report, exponents)
    result = pl.DataFrame(
        [
            pl.repeat(symbol, frame.height, eager=True).alias("symbol"),
            pl.repeat(interval, frame.height, eager=True).alias("interval"),
            _as_time(numbers["open_time"], "timestamp"),
            # Microseconds were added to close_time in 2025; REST and older files know milliseconds only.
            _as_time(numbers["close_time"] // 1000 * 1000, "close_time"),
            numbers["count"].cast(pl.Int32).alias("trades"),
            *values,
        ]
    ).select(*SCHEMA)
    return _check(result, report, lo, hi)


class _Report:
    """Words the errors of single rows."""

    def __init__(self, symbol: str, interval: str, where: str) -> None:
        self._market = f"{symbol} {interval}"
        self._where = where

    def refuse(self, opened: datetime | int | None, row: int, column: str, what: str) -> BadCandles:
        """Return the error for one row."""
        if isinstance(opened, int):
            opened = datetime.fromtimestamp(opened / 1_000_000, UTC)
        candle = f"the candle of {opened:%Y-%m-%d %H:%M:%S} UTC" if opened else f"row {row + 1}"
        return BadCandles(
            f"{self._market}, {candle}, column {column}: {what}. Nothing of {self._where} is used. Fetch it"
            " again; if the error stays, the source itself is wrong."
        )


def columns_sentence(symbol: str, interval: str, where: str, width: int) -> str:
    """Return the error for a table of ``width`` columns."""
    hint = " (prices and volume only)" if width == 6 else ""
    return (
        f"{symbol} {interval}: {where} has {width} columns{hint} instead of the 12 of a kline, so the traded value"
        " and the number of trades are unknown; take the candles from Binance's archive or REST instead."
    )


def _as_time(micros: pl.Series, name: str) -> pl.Series:
    return micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias(name)


def _integers(frame: pl.DataFrame, report: _Report) -> dict[str, pl.Series]:
    """Return open_time and close_time in microseconds, and count, all Int64."""
    numbers = {name: frame[name].cast(pl.Int64, strict=False) for name in ("open_time", "close_time", "count")}
    opens = numbers["open_time"]
    for name, series in numbers.items():
        if series.null_count():
            row = series.is_null().arg_max() or 0
            text = frame[name][row]
            opened = None if name == "open_time" else _micros(opens)[row]
            raise report.refuse(opened, row, name, f"{text!r} is not a whole number")
    for name in ("open_time", "close_time"):
        micros = _micros(numbers[name])
        bad = ~micros.is_between(_EARLIEST, _LATEST)
        if bad.any():
            row = bad.arg_max() or 0
            text = numbers[name][row]
            raise report.refuse(None, row, name, f"{text} is not a time in milliseconds or microseconds since 1970")
        numbers[name] = micros
    count = numbers["count"]
    bad = ~count.is_between(0, 2**31 - 1)
    if bad.any():
        row = bad.arg_max() or 0
        raise report.refuse(numbers["open_time"][row], row, "count", f"{count[row]} is not a number of trades")
    return numbers


def _micros(times: pl.Series) -> pl.Series:
    """Convert milliseconds or microseconds, distinguished row by row by their size, to microseconds."""
    return pl.select(pl.when(times > MICROSECONDS_FROM).then(times).otherwise(times * 1000)).to_series()


def _decimals(frame: pl.DataFrame, opens: pl.Series, report: _Report, exponents: bool) -> list[pl.Series]:
    """Return the value columns as exact decimals.

    Polars silently cuts off a ninth decimal, so texts that could lose digits (more than eight decimals, an exponent,
    or not parsed at all) are compared with the parsed value.
    """
    texts = frame.select(*_VALUES)
    values = texts.select(
        pl.col(name).cast(dtype, strict=False).alias(target) for name, (target, dtype) in _VALUES.items()
    )
    text = pl.col(*_VALUES)
    fine = text.is_not_null() & ((text.str.len_bytes() - text.str.find(".", literal=True)).fill_null(0) <= 9)
    if exponents:
        fine &= ~text.str.contains_any(["e", "E"])
    doubtful = texts.select(~fine)
    for name, (target, dtype) in _VALUES.items():
        value = values[target]
        for row in (doubtful[name] | value.is_null()).arg_true():
            text = texts[name][row]
            fault = _inexact(text, value[row], dtype)
            if fault:
                raise report.refuse(opens[row], row, name, fault)
    return values.get_columns()


def _inexact(text: str | None, value: Decimal | None, dtype: pl.Decimal) -> str | None:
    """Explain why ``value`` is not exactly ``text``; None if it is."""
    try:
        number = Decimal((text or "").strip())
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite():
        return f"{text!r} is not a number" if text else "the value is missing"
    if value is not None and value == number:
        return None
    if abs(number) >= Decimal(10) ** (dtype.precision - dtype.scale):
        return f"{text} has more than {dtype.precision - dtype.scale} digits before the point"
    if number != round(number, dtype.scale):
        return f"{text} has more than {dtype.scale} decimals"
    return f"{text!r} is not written as a number"


def _check(frame: pl.DataFrame, report: _Report, lo: datetime | None, hi: datetime | None) -> pl.DataFrame:
    """Return the frame without repeated rows, after checking every row."""
    opens = frame["timestamp"]
    if not opens.is_sorted():
        row = (opens < opens.shift(1)).arg_max() or 0
        raise report.refuse(opens[row], row, "open_time", "it comes after a later candle")
    if opens.n_unique() < frame.height:
        frame = frame.unique(maintain_order=True, keep="first")
        opens = frame["timestamp"]
        if opens.n_unique() < frame.height:
            row = (opens == opens.shift(1)).arg_max() or 0
            raise report.refuse(opens[row], row, "open_time", "two different rows have this open")
    if frame.height and lo is not None and opens[0] < lo:
        raise report.refuse(opens[0], 0, "open_time", f"it opens before {lo:%Y-%m-%d %H:%M} UTC")
    if frame.height and hi is not None and opens[-1] >= hi:
        raise report.refuse(opens[-1], frame.height - 1, "open_time", f"it opens at or after {hi:%Y-%m-%d %H:%M} UTC")
    wrong = frame.select(bad.any().alias(str(i)) for i, (_, bad, _) in enumerate(_RULES)).row(0)
    for (column, bad, what), any_row in zip(_RULES, wrong, strict=True):
        if any_row:
            row = frame.select(bad.arg_max()).item()
            candle = frame.row(row, named=True)
            raise report.refuse(candle["timestamp"], row, column, what.format(**candle))
    return frame


_PRICES = ("open", "high", "low", "close")
#: (column, expression that is true for a wrong row, sentence)
_RULES: tuple[tuple[str, pl.Expr, str], ...] = (
    *((name, pl.col(name) <= 0, f"the price {{{name}:f}} is not above zero") for name in _PRICES),
    *(
        ("high", pl.col("high") < pl.col(name), f"the high {{high:f}} is below the {name} {{{name}:f}}")
        for name in ("low", "open", "close")
    ),
    *(
        ("low", pl.col("low") > pl.col(name), f"the low {{low:f}} is above the {name} {{{name}:f}}")
        for name in ("open", "close")
    ),
    *(
        (name, pl.col(target) < 0, f"{{{target}:f}} is below zero")
        for name, (target, _) in _VALUES.items()
        if target not in _PRICES
    ),
)

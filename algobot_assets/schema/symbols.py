"""Spell symbols and intervals: which are valid, which a near miss means, and when a dated contract is delivered.

A symbol is Binance's own name of a market: upper-case letters of any script and digits, such as BTCUSDT or
币安人生USDT. USD-M futures end in .UM, preceded by the day of delivery if there is one, as in BTCUSDT_210326.UM.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta

from algobot_assets.schema.intervals import LENGTH_MS

#: Distinguishes a USD-M future from the spot symbol of the same name.
FUTURES_SUFFIX = ".UM"
#: Most characters of a symbol by the rules of Binance, without the suffix of a future.
SYMBOL_LENGTH = 20
_NAME = re.compile(r"[^\W_]{2,}")
_DATED = re.compile(r"(?P<pair>.+)_(?P<day>[0-9]{6})")
_DELIVERED_AT = timedelta(hours=8)
_CONTRACT = re.compile(r"[-_](?P<day>[0-9]{6})$")
_PERPETUAL = re.compile(r"([-_](PERP|PERPETUAL|SWAP)|\.P)$")
_WRITTEN = re.compile(r"(?P<number>[0-9]{0,6})\s*[-_]?\s*(?P<unit>[a-zA-Z]*)")
_UNITS = {
    "s": "s", "sec": "s", "second": "s", "m": "m", "min": "m", "minute": "m", "": "m", "h": "h", "hr": "h",
    "hour": "h", "d": "d", "day": "d", "w": "w", "wk": "w", "week": "w", "mo": "M", "mon": "M", "month": "M",
}  # fmt: skip
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def is_symbol(text: str) -> bool:
    """Whether ``text`` is spelled like a symbol of Binance, in composed characters (NFC)."""
    name = text.removesuffix(FUTURES_SUFFIX)
    dated = _DATED.fullmatch(name)
    if dated:
        if name == text or _day_of(dated["day"]) is None:
            return False
        name = dated["pair"]
    has_case = any(character.islower() or (character.istitle() and not character.isupper()) for character in name)
    return (
        len(text.removesuffix(FUTURES_SUFFIX)) <= SYMBOL_LENGTH
        and _NAME.fullmatch(name) is not None
        and not has_case
        and unicodedata.is_normalized("NFC", name)
    )


def delivery_of(symbol: str) -> datetime | None:
    """Return when a dated contract is delivered: 08:00 UTC of the day in its name. None for every other symbol."""
    if not symbol.endswith(FUTURES_SUFFIX):
        return None
    dated = _DATED.fullmatch(symbol.removesuffix(FUTURES_SUFFIX))
    day = _day_of(dated["day"]) if dated else None
    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC) + _DELIVERED_AT


def end_of_trading(symbol: str, end: date) -> date:
    """Return the end (exclusive) of the days before ``end`` on which the symbol can trade: a dated contract's last day
    is that of its delivery."""
    delivery = delivery_of(symbol)
    return end if delivery is None else min(end, delivery.date() + timedelta(days=1))


def _day_of(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%y%m%d").date()
    except ValueError:
        return None


def suggest_symbol(text: str) -> str | None:
    """Return the symbol that ``text`` probably means, such as BTCUSDT for btcusdt, BTC/USDT or BTC-USDT."""
    name = unicodedata.normalize("NFKC", text).strip().upper()
    futures = name.endswith(FUTURES_SUFFIX)
    name = name.removesuffix(FUTURES_SUFFIX)
    if _PERPETUAL.search(name):
        name, futures = _PERPETUAL.sub("", name), True
    day = _CONTRACT.search(name)
    contract = f"_{day['day']}" if day else ""
    pair, settled, _ = name.removesuffix(day[0] if day else "").partition(":")
    pair = re.sub(r"[\W_]", "", pair)
    symbol = pair + contract + (FUTURES_SUFFIX if futures or settled or contract else "")
    return symbol if symbol != text and is_symbol(symbol) else None


def suggest_interval(text: str) -> str | None:
    """Return the interval that ``text`` probably means, such as 1h for 60m or 1H, and 1M for 1mo."""
    written = _WRITTEN.fullmatch(unicodedata.normalize("NFKC", text).strip())
    if written is None or not text.strip():
        return None
    number, word = int(written["number"] or 1), written["unit"]
    unit = _UNITS.get(word.lower().removesuffix("s") or word.lower())
    if unit == "M":
        return "1M" if number == 1 else None
    if unit is None:
        return None
    wanted = number * _SECONDS[unit] * 1000
    return next((interval for interval, length in LENGTH_MS.items() if length == wanted and interval != text), None)


def suggest_market(text: str) -> str | None:
    """Return the market that ``text`` probably means, written 'BTCUSDT 1h'. None if it has no likely symbol or
    interval, or is spelled like a market already."""
    symbol, _, interval = text.strip().rpartition(" ")
    if not symbol:
        return None
    right = symbol if is_symbol(symbol) else suggest_symbol(symbol)
    length = interval if interval in LENGTH_MS else suggest_interval(interval)
    market = f"{right} {length}"
    return market if right and length and market != text else None

"""Format numbers for a page: prices, money, fractions and ratios, each in one way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any


def price(value: Decimal | int | None) -> str:
    """Format every stored digit, without trailing zeros."""
    return "-" if value is None else f"{Decimal(value).normalize():,f}"


def money(value: Decimal | float | None) -> str:
    """Format with two decimals, four if the amount is below 1."""
    if value is None:
        return "-"
    large = not value or abs(float(value)) >= 1
    return f"{value:,.2f}" if large else f"{value:,.4f}"


def percent(value: Decimal | float | None) -> str:
    """Format a fraction as percent."""
    return "-" if value is None else f"{100 * value:,.2f} %"


def ratio(value: Decimal | None) -> str:
    """Format with two decimals."""
    return "-" if value is None else f"{value:,.2f}"


def pairs(value: str | Mapping[str, Any]) -> str:
    """Format a JSON object as name=value pairs."""
    found = json.loads(value) if isinstance(value, str) else value
    return ", ".join(f"{name}={json.dumps(each)}" for name, each in found.items()) or "-"


def figure(value: Decimal | int | None) -> str:
    """Format a figure of any kind: four decimals, or whole if it is a count."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def readable(value: Any) -> str:
    """Format any value of a row as people read it: times to the minute, decimals without trailing zeros."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return price(value) if value is None or isinstance(value, Decimal) else str(value)


def plain(value: Any) -> str:
    """Format exactly what is stored, for comparison; empty for NULL."""
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)

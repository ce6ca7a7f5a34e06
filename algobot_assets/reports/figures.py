"""How numbers read on a page: one way for prices, money, fractions and ratios."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def price(value: Decimal | int | None) -> str:
    """Every stored digit, without trailing zeros."""
    return "-" if value is None else f"{Decimal(value).normalize():,f}"


def money(value: Decimal | float | None) -> str:
    """Two decimals; more where the amount is small."""
    if value is None:
        return "-"
    return f"{value:,.2f}" if abs(value) >= 1 or not value else f"{value:,.4f}"


def percent(value: Decimal | None) -> str:
    """A fraction in percent."""
    return "-" if value is None else f"{100 * value:,.2f} %"


def ratio(value: Decimal | None) -> str:
    """Two decimals."""
    return "-" if value is None else f"{value:,.2f}"


def pairs(value: str | Mapping[str, Any]) -> str:
    """name=value, one after the other, of a JSON object."""
    found = json.loads(value) if isinstance(value, str) else value
    return ", ".join(f"{name}={json.dumps(each)}" for name, each in found.items()) or "-"


def plain(value: Any) -> str:
    """Exactly what is stored, for whoever compares; empty for NULL."""
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)

"""Rules for single declared values (ranges of dates and numbers), and the error that names the value that broke one."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from algobot_assets.errors import SettingsError
from algobot_assets.schema.intervals import FIRST_DAY

#: Days from here on are treated as typing errors.
END_OF_DAYS = date(2100, 1, 1)
_EIGHT_PLACES = Decimal("1e-8")


class Refusal(SettingsError):
    """A declared value or entry that breaks a rule; ``path`` leads to it from the object that refused it."""

    def __init__(self, path: tuple[str | int, ...], text: str) -> None:
        super().__init__(text)
        self.path = path


def check_day(field: str, value: Any) -> None:
    """Raise Refusal unless ``value`` is a date that can be meant."""
    if type(value) is not date:
        raise Refusal((field,), f"{field} must be a date, written YYYY-MM-DD")
    if not FIRST_DAY <= value < END_OF_DAYS:
        raise Refusal((field,), f"{field} is {value}; it must lie between {FIRST_DAY} and {END_OF_DAYS}")


def check_number(field: str, value: Any, low: Decimal, high: Decimal, rule: str, open_ends: str = "") -> None:
    """Raise Refusal unless the number lies between the bounds; ``open_ends`` names those that are excluded ("low",
    "high"), and ``rule`` words the same for people."""
    if not isinstance(value, Decimal):
        raise Refusal((field,), f"{field} must be a Decimal; {rule}")
    inside = value.is_finite() and low <= value <= high
    if inside and (("low" in open_ends and value == low) or ("high" in open_ends and value == high)):
        inside = False
    if not inside:
        raise Refusal((field,), f"{field} is {value!s:.40}; {rule}")
    if value != value.quantize(_EIGHT_PLACES):
        raise Refusal((field,), f"{field} is {value!s:.40}; write at most eight decimals")


def check_fraction(field: str, value: Any) -> None:
    """Raise Refusal unless ``value`` is a fraction above 0."""
    rule = "write a fraction above 0 and at most 1 (0.02 means 2 %)"
    check_number(field, value, Decimal(0), Decimal(1), rule, "low")


def check_whole(field: str, value: Any, low: int, high: int) -> None:
    """Raise Refusal unless ``value`` is a whole number between the bounds."""
    if type(value) is not int or not low <= value <= high:
        raise Refusal((field,), f"{field} is {value!s:.40}; write a whole number from {low} to {high}")


def plain(number: Decimal) -> str:
    """Return ``number`` in plain notation without trailing zeros: one text per value, however it was written."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

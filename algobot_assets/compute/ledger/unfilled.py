"""Describe signals that led to no order, by reason."""

from __future__ import annotations

from collections.abc import Mapping

LABELS = {
    "below_min_notional": "below the minimum notional",
    "rounded_to_zero": "quantity rounded to zero",
    "no_capital": "no capital left",
    "at_max_open_trades": "already at max_open_trades",
    "outside_dates": "outside the version's dates",
    "shorting_off": "shorting off",
}
"""Each reason, a column of unfilled_signals, as people read it."""
TOO_SMALL = ("below_min_notional", "rounded_to_zero", "no_capital")
"""Reasons that keep an account from trading as its signals ask for."""


def describe_unfilled(counts: Mapping[str, int]) -> str:
    """Return one sentence with the counts by reason, empty if every signal led to an order.

    >>> describe_unfilled({"below_min_notional": 31, "shorting_off": 2})
    '33 signals led to no order: 31 below the minimum notional, 2 shorting off.'
    """
    found = [(counts.get(reason, 0), label) for reason, label in LABELS.items()]
    total = sum(count for count, _ in found)
    if not total:
        return ""
    reasons = ", ".join(f"{count:,} {label}" for count, label in found if count)
    return f"{total:,} signal{'s' * (total != 1)} led to no order: {reasons}."

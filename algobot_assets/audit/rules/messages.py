"""Messages that several checks share."""

from __future__ import annotations

from datetime import datetime

from algobot_assets.audit.rules.look_ahead import Change
from algobot_assets.schema.windows import Window


def at(moment: datetime) -> str:
    """Format a time for messages: UTC, without seconds if they are zero."""
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{text.removesuffix(':00')} UTC"


def ahead(who: str, change: Change) -> str:
    """Describe a value that depends on later candles."""
    later = "after it" if change.cut is None else f"from {at(change.cut)} on"
    return (
        f"{who}: {change.column} at {at(change.timestamp)} changes from {change.stored} to {change.computed} when the "
        f"candles {later} change: it looks ahead. Correct the code, then materialise from the "
        "first day with `recompute`."
    )


def different(who: str, change: Change, table: str) -> str:
    """Describe a stored value that its code does not reproduce."""
    return (
        f"{who}: {change.column} at {at(change.timestamp)} is stored as {change.stored} but computes as "
        f"{change.computed} from the carried state: it was changed by hand, or the code depends on how days are cut "
        f"into runs. Materialise {table} of {change.timestamp:%Y-%m-%d} with `recompute`; if that does not help, "
        "correct the code."
    )


def failed(who: str, window: Window, error: str) -> str:
    """Describe a computation that cannot be repeated."""
    return f"{who} cannot be computed again for {window.first} to {window.end}: {error}"

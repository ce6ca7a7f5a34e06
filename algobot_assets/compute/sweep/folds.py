"""Split days into the windows of a walk-forward, and check that no window looks into its own future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from algobot_assets.errors import WindowError


@dataclass(frozen=True)
class Fold:
    """A train window [train_first, train_end), where parameters are chosen, and the test window that follows it."""

    train_first: date
    train_end: date
    test_first: date
    test_end: date


def split_folds(first: date, last: date, train_days: int, test_days: int, *, anchored: bool = False) -> list[Fold]:
    """Return the windows of the days first to last, both included.

    Each test window directly follows its train window and the test window before it; the last one can be shorter. With
    `anchored`, every train window starts on `first` and grows. WindowError if there are too few days for one pair.
    """
    if train_days < 1 or test_days < 1:
        raise WindowError(f"Windows of {train_days} and {test_days} days are too short. Each needs at least one day.")
    end = last + timedelta(days=1)
    found: list[Fold] = []
    begin = first + timedelta(days=train_days)
    while begin < end:
        train_first = first if anchored else begin - timedelta(days=train_days)
        found.append(Fold(train_first, begin, begin, min(begin + timedelta(days=test_days), end)))
        begin += timedelta(days=test_days)
    if not found:
        raise WindowError(
            f"{first} to {last} are {(end - first).days} days: a walk-forward with {train_days} train days needs at "
            f"least {train_days + 1}. Use shorter windows or a longer range."
        )
    check_leakage(found)
    return found


def check_leakage(found: Sequence[Fold]) -> None:
    """Raise WindowError if a test window starts before its train window ends, or if two test windows share a day."""
    tested: date | None = None
    for number, fold in enumerate(found, start=1):
        if fold.test_first < fold.train_end:
            raise WindowError(
                f"Test window {number} starts on {fold.test_first}, before its train window ends ({fold.train_end}): "
                "its results would be known beforehand."
            )
        if tested is not None and fold.test_first < tested:
            raise WindowError(f"Test window {number} starts on {fold.test_first}, within the one before it.")
        if fold.train_first >= fold.train_end or fold.test_first >= fold.test_end:
            raise WindowError(f"Window {number} has no days.")
        tested = fold.test_end

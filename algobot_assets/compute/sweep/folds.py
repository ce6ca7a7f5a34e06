"""The windows of a walk-forward: where parameters are chosen and where they are then tried.

Here: the days of each pair of windows, and the check that none looks into its own future. Not here: choosing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from algobot_assets.errors import WindowError


@dataclass(frozen=True)
class Fold:
    """Parameters are chosen on the days [train_first, train_end) and tried on [test_first, test_end)."""

    train_first: date
    train_end: date
    test_first: date
    test_end: date


def split_folds(first: date, last: date, train_days: int, test_days: int, *, anchored: bool = False) -> list[Fold]:
    """The windows of the days first to last, both included: each test window follows its train window at once and the
    test window before it. A last test window that is shorter is kept. `anchored`: every train window begins on `first`
    and grows. WindowError where the days do not suffice for one pair.
    """
    if train_days < 1 or test_days < 1:
        raise WindowError(f"Windows of {train_days} and {test_days} days cannot be: each has a day at least.")
    end = last + timedelta(days=1)
    found: list[Fold] = []
    begin = first + timedelta(days=train_days)
    while begin < end:
        train_first = first if anchored else begin - timedelta(days=train_days)
        found.append(Fold(train_first, begin, begin, min(begin + timedelta(days=test_days), end)))
        begin += timedelta(days=test_days)
    if not found:
        raise WindowError(
            f"{first} to {last} are {(end - first).days} days: a walk-forward of {train_days} train days needs at "
            f"least {train_days + 1}. Take shorter windows or a longer range."
        )
    check_leakage(found)
    return found


def check_leakage(found: Sequence[Fold]) -> None:
    """WindowError where a test window begins before its train window has ended, or two test windows share a day."""
    tested: date | None = None
    for number, fold in enumerate(found, start=1):
        if fold.test_first < fold.train_end:
            raise WindowError(
                f"Test window {number} begins on {fold.test_first}, before its train window ends ({fold.train_end}): "
                "what it shows would be known beforehand."
            )
        if tested is not None and fold.test_first < tested:
            raise WindowError(f"Test window {number} begins on {fold.test_first}, within the one before it.")
        if fold.train_first >= fold.train_end or fold.test_first >= fold.test_end:
            raise WindowError(f"Window {number} has no day in it.")
        tested = fold.test_end

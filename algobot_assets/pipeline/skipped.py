"""Markets and strategies that a run had to skip, grouped so that one cause is one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

#: Reasons that several tables give for the same days of a market.
NO_CANDLES = "no candles known"
PROVIDE = "Provide the files or run `algobot gaps accept`."


@dataclass(frozen=True)
class Skipped:
    """Why one table skipped a market or strategy, or stopped there early.

    ``reason``: a clause that names no table, or a whole sentence if ``market`` is empty. ``first`` and ``last``: the
    days it is about. ``stops_at``: the last day that could be computed in full. ``remedy``: what to do, a sentence;
    with ``backfill_from`` it is a backfill from the earliest such day of all that share the reason, to ``last``.
    """

    table: str
    reason: str
    remedy: str = ""
    market: str = ""
    strategy: str = ""
    first: date | None = None
    last: date | None = None
    stops_at: date | None = None
    backfill_from: date | None = None

    @property
    def cause(self) -> tuple[object, ...]:
        """Equal for all that follow from one cause."""
        return self.market, self.reason, self.first, self.last

    def document(self) -> dict[str, Any]:
        """The fields as JSON has them; days as text."""
        return {key: value.isoformat() if isinstance(value, date) else value for key, value in asdict(self).items()}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Skipped:
        """The inverse of ``document``."""
        days = {key: date.fromisoformat(document[key]) for key in _DAYS if document[key]}
        return cls(**{**document, **dict.fromkeys(_DAYS), **days})


_DAYS = ("first", "last", "stops_at", "backfill_from")


def by_cause(skipped: Iterable[Skipped]) -> list[str]:
    """One line per cause: market, days, what follows from it, and what to do."""
    groups: dict[tuple[object, ...], list[Skipped]] = {}
    for item in skipped:
        groups.setdefault(item.cause, []).append(item)
    return [_line(group) for group in groups.values()]


def _line(group: list[Skipped]) -> str:
    item = group[0]  # of the table that comes first, which is nearest to the cause
    if not item.market:
        return f"{item.reason} {item.remedy}".strip()
    days = f" for {_days(item.first, item.last)}" if item.first and item.last else ""
    sentence = f"{item.market}: {item.reason}{days}"
    affected, many = _affected(group)
    if affected:
        stops = min((each.stops_at for each in group if each.stops_at), default=None)
        sentence += f"; {affected} {'stop' if many else 'stops'} at {stops}" if stops else f"; {affected} skipped"
    begins = min((each.backfill_from for each in group if each.backfill_from), default=None)
    remedy = f"Run `algobot backfill {begins} {item.last or begins}`." if begins else item.remedy
    return f"{sentence}. {remedy}".strip()


def _days(first: date, last: date) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _affected(group: list[Skipped]) -> tuple[str, bool]:
    """What follows from a cause, in words, and whether it is plural: strategies, else the tables."""
    strategies = {item.strategy for item in group if item.strategy}
    if len(strategies) == 1:
        return f"strategy {strategies.pop()}", False
    if strategies:
        return f"{len(strategies):,} strategies", True
    tables = list(dict.fromkeys(item.table for item in group if item.table != "market_data"))
    return ", ".join(tables), len(tables) > 1 or tables == ["indicators"]

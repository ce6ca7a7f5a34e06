"""Report markets and strategies that a run had to skip, one line per cause."""

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
    """The reason why one table skipped a market or strategy, or stopped there early.

    ``reason``: a clause that names no table, or a whole sentence if ``market`` is empty. ``first`` and ``last``: its
    days. ``stops_at``: the last day that could be computed in full. ``remedy``: a sentence; if ``backfill_from`` is
    given, the remedy is a backfill to ``last`` from the earliest such day of all that share the reason.
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
        """The grouping key: equal for all skips with one cause."""
        return self.market, self.reason, self.first, self.last

    def document(self) -> dict[str, Any]:
        """Return the fields as a JSON object, with days as text."""
        return {key: value.isoformat() if isinstance(value, date) else value for key, value in asdict(self).items()}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Skipped:
        """Read the fields from a JSON object; the inverse of ``document``."""
        days = {key: date.fromisoformat(document[key]) for key in _DAYS if document[key]}
        return cls(**{**document, **dict.fromkeys(_DAYS), **days})


_DAYS = ("first", "last", "stops_at", "backfill_from")


def by_cause(skipped: Iterable[Skipped]) -> list[str]:
    """Return one line per cause: market, days, consequence and remedy."""
    groups: dict[tuple[object, ...], list[Skipped]] = {}
    for item in skipped:
        groups.setdefault(item.cause, []).append(item)
    return [_line(group) for group in groups.values()]


def _line(group: list[Skipped]) -> str:
    item = group[0]  # from the first table, which is closest to the cause
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
    """Name the strategies that a cause affects, or the tables if there are none; return also whether it is plural."""
    strategies = {item.strategy for item in group if item.strategy}
    if len(strategies) == 1:
        return f"strategy {strategies.pop()}", False
    if strategies:
        return f"{len(strategies):,} strategies", True
    tables = list(dict.fromkeys(item.table for item in group if item.table != "market_data"))
    return ", ".join(tables), len(tables) > 1 or tables == ["indicators"]

"""Split a range of days into parts that several runs can materialise at once: by months, or by markets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

from algobot_assets.declared.model import DeclaredState
from algobot_assets.schema.intervals import interval_ms, months_between, next_month


@dataclass(frozen=True)
class Part:
    """The scope of one run: the days first to last (both included) of markets such as "BTCUSDT 1m"; none means all."""

    first: date
    last: date
    markets: tuple[str, ...] = ()

    def __str__(self) -> str:
        days = f"{self.first} to {self.last}"
        return f"{days}, {', '.join(self.markets)}" if self.markets else days


def split_months(first: date, last: date, parts: int) -> list[Part]:
    """Split the days first to last (both included) into at most ``parts`` ranges of whole months, equal to within one.

    For intervals above a day, the month of a candle's day and its month in the database may differ in the last week of
    a month. The writers' locks serialise two runs there.
    """
    months = months_between(first, last + timedelta(days=1))
    parts = min(parts, len(months))
    ends = [len(months) * (number + 1) // parts for number in range(parts)]
    found, begin = [], 0
    for end in ends:
        until = next_month(months[end - 1]) - timedelta(days=1)
        found.append(Part(max(first, months[begin]), min(last, until)))
        begin = end
    return found


def split_markets(state: DeclaredState, first: date, last: date, parts: int, only: Collection[str] = ()) -> list[Part]:
    """Split the markets into at most ``parts`` groups with about the same number of rows, each over all days.

    A market's rows are its candles, their indicators, and one signal per strategy. ``only`` limits the markets.
    """
    rows = dict.fromkeys((market.name for market in state.markets), 2)
    for strategy in state.strategies:
        name = f"{strategy.symbol} {strategy.interval}"
        rows[name] = rows.get(name, 2) + 1
    rows = {name: number for name, number in rows.items() if not only or name in only}
    groups: list[tuple[float, list[str]]] = [(0.0, []) for _ in range(min(parts, len(rows)))]
    for name in sorted(rows, key=lambda name: (-_weight(name, rows[name]), name)):
        lightest = min(range(len(groups)), key=lambda number: groups[number][0])
        weight, names = groups[lightest]
        groups[lightest] = weight + _weight(name, rows[name]), [*names, name]
    return [Part(first, last, tuple(sorted(names))) for _, names in groups]


def _weight(market: str, rows: int) -> float:
    """Return the rows per day of a market with ``rows`` per candle."""
    return rows * 86_400_000 / (interval_ms(market.rpartition(" ")[2]) or 30 * 86_400_000)

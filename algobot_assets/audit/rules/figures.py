"""Recompute an account's figures from stored trades in plain Python, as an independent check.

Pure functions. Money is in whole units of 1e-8, so sums are exact. The definitions are those of the columns' comments;
no code of ``compute.metrics`` is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

UNIT = 10**8
_YEAR, _LEAST_DAYS = 365.0, 30.0
#: Figures computed from sums. max_drawdown and sharpe_ratio need every mark, so only their bounds are checked.
FIGURES = (
    "total_return",
    "annual_return",
    "win_rate",
    "avg_profit_pct",
    "risk_reward_ratio",
    "profit_factor",
)


def units(value: Decimal) -> int:
    """Convert a decimal of eight places to whole units."""
    return int(value.scaleb(8))


@dataclass(frozen=True)
class Totals:
    """Sums over closed trades, money and percent in units."""

    closed: int = 0
    won: int = 0
    sum_won: int = 0
    sum_lost: int = 0
    sum_pct: int = 0
    ambiguous: int = 0

    @property
    def net(self) -> int:
        """The sum of net_profit."""
        return self.sum_won + self.sum_lost

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.closed + other.closed,
            self.won + other.won,
            self.sum_won + other.sum_won,
            self.sum_lost + other.sum_lost,
            self.sum_pct + other.sum_pct,
            self.ambiguous + other.ambiguous,
        )

    def with_trade(self, net: int, percent: int) -> Totals:
        """Return the totals with one more trade; break-even counts as losing."""
        won = (1, net, 0) if net > 0 else (0, 0, net)
        return self + Totals(1, *won, percent)


def figures(totals: Totals, initial: int, final: int, days: float) -> dict[str, float | None]:
    """Compute FIGURES from sums and capital; None if undefined. ``days``: exact age of the account."""
    lost = totals.closed - totals.won
    grown = final / initial
    reward = None
    if totals.won and totals.sum_lost:
        reward = (totals.sum_won / totals.won) / (-totals.sum_lost / lost)
    return {
        "total_return": grown - 1.0,
        "annual_return": grown ** (_YEAR / days) - 1.0 if days >= _LEAST_DAYS and final >= 0 else None,
        "win_rate": totals.won / totals.closed if totals.closed else None,
        "avg_profit_pct": totals.sum_pct / totals.closed / UNIT if totals.closed else None,
        "risk_reward_ratio": reward,
        "profit_factor": totals.sum_won / -totals.sum_lost if totals.sum_lost else None,
    }


def unlike(stored: Mapping[str, Any], wanted: Mapping[str, float | None], days: float) -> Iterator[str]:
    """Yield a message for each wrong figure of a stored row."""
    for name, right in wanted.items():
        value = stored[name]
        if right is not None and not abs(right) < 1e12:
            right = None  # exceeds the range of the column
        if (value is None) != (right is None) or (
            value is not None and right is not None and abs(float(value) - right) > 2e-8 + 1e-12 * abs(right)
        ):
            shown = "NULL" if right is None else f"{right:.8f}"
            yield f"{name} is {'NULL' if value is None else value} but computes as {shown}"
    if days < _LEAST_DAYS and stored["sharpe_ratio"] is not None:
        yield "sharpe_ratio has a value before 30 days"
    if stored["max_drawdown"] is not None and stored["max_drawdown"] > 0:
        yield "max_drawdown is above 0"


@dataclass(frozen=True)
class OpenLot:
    """A lot with money in units; its mark counts while it is open.

    ``left``: the grid point of its exit's candle, None while it is open. ``quantity`` is in the base asset.
    """

    entry_time: datetime
    left: datetime | None
    long: bool
    quantity: float
    notional: int
    entry_costs: int

    def profit(self, close: int) -> int:
        """Return the open profit at a close in units: the change of the notional, less entry costs."""
        mark = round(self.quantity * (close / UNIT) * UNIT)
        change = mark - self.notional if self.long else self.notional - mark
        return change - self.entry_costs


@dataclass(frozen=True)
class Close:
    """A candle in which trades closed.

    ``slot`` and ``end``: its grid point and its end. ``trades``: net_profit and profit_pct of each trade, in units.
    """

    slot: datetime
    end: datetime
    trades: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Mark:
    """Totals, equity (in units; None if a close is missing) and number of open lots after a candle."""

    totals: Totals
    equity: int | None
    open_lots: int


def replay(
    initial: int, before: Totals, closes: Iterable[Close], lots: Iterable[OpenLot], prices: Mapping[datetime, int]
) -> Iterator[Mark]:
    """Yield the account after each of ``closes`` (ascending): initial capital, net profits, and marks of open lots.

    ``before``: the totals of all earlier trades. ``lots``: every lot that was open at some time, including closed ones.
    ``prices``: the close in units by grid point, needed only while lots are open.
    """
    waiting = sorted(lots, key=lambda lot: lot.entry_time, reverse=True)
    held: list[OpenLot] = []
    totals = before
    for item in closes:
        while waiting and waiting[-1].entry_time < item.end:
            held.append(waiting.pop())
        held = [lot for lot in held if lot.left is None or lot.left > item.slot]
        for net, percent in item.trades:
            totals = totals.with_trade(net, percent)
        capital = initial + totals.net
        equity: int | None = capital
        if held:
            price = prices.get(item.slot)
            equity = None if price is None else capital + sum(lot.profit(price) for lot in held)
        yield Mark(totals, equity, len(held))


def miscounted(who: str, row: Mapping[str, Any], totals: Totals) -> list[str]:
    """Return a message for each count in a backtest's row that differs from the stored trades."""
    wanted = {
        "total_trades": totals.closed,
        "winning_trades": totals.won,
        "losing_trades": totals.closed - totals.won,
        "ambiguous_stops": totals.ambiguous,
    }
    return [
        f"{who}: {name} of {row['day']} is {row[name]}, and trade_history has {number}. {remedy(row['day'])}"
        for name, number in wanted.items()
        if row[name] != number
    ]


def unbalanced(who: str, row: Mapping[str, Any], totals: Totals) -> list[str]:
    """Return a message if final_capital is not exactly initial_capital + the sum of net_profit + open_profit."""
    wanted = units(row["initial_capital"]) + totals.net + units(row["open_profit"])
    if units(row["final_capital"]) == wanted:
        return []
    return [
        f"{who}: final_capital of {row['day']} is {row['final_capital']}, but initial capital, net profits and open "
        f"profit add up to {Decimal(wanted).scaleb(-8)}. {remedy(row['day'])}"
    ]


def remedy(day: date) -> str:
    """Return the remedy for a ledger that does not add up."""
    return f"Materialise trade_history and the tables after it from {day} on, with `recompute`."

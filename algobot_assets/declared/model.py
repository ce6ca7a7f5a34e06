"""Markets, strategies with their risk parameters, and the whole declared state, each validated when it is built.

A state built in code therefore obeys the same rules as one read from a file.

Units: fractions are fractions (0.02 = 2 %), names that end in _percentage hold percent (2 = 2 %), money is in
the quote asset, days are UTC. Day ranges are half-open: effective_to is the first day that no longer counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any

from algobot_assets.declared.configurations import Configuration
from algobot_assets.declared.parameters import RESERVED, normal
from algobot_assets.declared.rules import Refusal, check_day, check_fraction, check_number, check_whole
from algobot_assets.schema.intervals import INTERVALS
from algobot_assets.schema.symbols import SYMBOL_LENGTH, is_symbol, suggest_interval, suggest_symbol

#: Money is exact in float64 with eight decimals below this.
MAX_BALANCE = Decimal(90_000_000)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Market:
    """A symbol and interval whose candles are stored from the UTC day ``start`` on."""

    symbol: str
    interval: str
    start: date

    def __post_init__(self) -> None:
        if not is_symbol(self.symbol):
            near = suggest_symbol(self.symbol)
            raise Refusal(
                ("symbol",),
                f"{self.symbol!r:.40} is not a symbol; "
                + (f"did you mean {near}? Write it" if near else "write it")
                + " as Binance does, like BTCUSDT, or BTCUSDT.UM for a USD-M future, with at most "
                f"{SYMBOL_LENGTH} characters",
            )
        if self.interval not in INTERVALS:
            near = suggest_interval(self.interval)
            raise Refusal(
                ("interval",),
                f"{self.interval!r:.40} is not an interval; "
                + (f"did you mean {near}? Write" if near else "write")
                + f" one of {', '.join(INTERVALS)}",
            )
        check_day("start", self.start)

    @property
    def name(self) -> str:
        """The spelling of the file: "BTCUSDT 1h"."""
        return f"{self.symbol} {self.interval}"


@dataclass(frozen=True, slots=True)
class RiskParameters:
    """Limits for entries of one strategy version from effective_from on.

    max_risk_per_trade: upper bound of the fraction of equity at risk; max_open_trades: lots open at once;
    stop_loss_percentage and take_profit_percentage: distance from the entry in percent, target 0 for none.
    """

    max_risk_per_trade: Decimal
    max_open_trades: int
    stop_loss_percentage: Decimal
    take_profit_percentage: Decimal
    effective_from: date

    def __post_init__(self) -> None:
        check_fraction("max_risk_per_trade", self.max_risk_per_trade)
        check_whole("max_open_trades", self.max_open_trades, 1, 1_000)
        rule = "write percent above 0 and below 100 (2 means 2 %)"
        check_number("stop_loss_percentage", self.stop_loss_percentage, Decimal(0), Decimal(100), rule, "low high")
        rule = "write percent from 0 (no target) to 100000 (4 means 4 %)"
        check_number("take_profit_percentage", self.take_profit_percentage, Decimal(0), Decimal(100_000), rule)
        check_day("effective_from", self.effective_from)


@dataclass(frozen=True, slots=True)
class Strategy:
    """One version of a strategy: in force from effective_from until effective_to or the name's next version.

    type: registered function; parameters: its arguments; initial_balance: quote asset; risk_per_trade:
    fraction of equity; shorting: whether -1 may open shorts; stop_path: "1m" where stored minutes decide the
    order of stops and targets; risk: ascending by date, the first from effective_from on.
    """

    name: str
    type: str
    symbol: str
    interval: str
    initial_balance: Decimal
    risk_per_trade: Decimal
    parameters: Mapping[str, Any]
    shorting: bool
    stop_path: str | None
    effective_from: date
    effective_to: date | None
    risk: tuple[RiskParameters, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Refusal(
                ("name",),
                f"{self.name!r:.40} is not a name for a strategy; start with a letter and use at most 100 "
                "letters, digits, dots, dashes and underscores",
            )
        rule = f"write an amount above 0 and below {MAX_BALANCE} (beyond it money is not exact)"
        check_number("initial_balance", self.initial_balance, Decimal(0), MAX_BALANCE, rule, "low high")
        check_fraction("risk_per_trade", self.risk_per_trade)
        for key in RESERVED:
            if key in self.parameters:
                raise Refusal(
                    ("parameters", key),
                    f"{key} belongs to the strategy, not to its parameters; move it one level up",
                )
        try:
            object.__setattr__(self, "parameters", normal(self.parameters))
        except ValueError as error:
            raise Refusal(("parameters",), f"the parameters cannot be stored: {error}") from None
        if type(self.shorting) is not bool:
            raise Refusal(("shorting",), "shorting must be true or false")
        if self.stop_path not in (None, "1m"):
            raise Refusal(("stop_path",), f"stop_path is {self.stop_path!r:.40}; write 1m or remove it")
        if self.stop_path and self.interval in ("1s", "1m"):
            raise Refusal(("stop_path",), f"stop_path 1m adds nothing to candles of {self.interval}; remove it")
        check_day("effective_from", self.effective_from)
        if self.effective_to is not None:
            check_day("effective_to", self.effective_to)
            if self.effective_to <= self.effective_from:
                raise Refusal(
                    ("effective_to",),
                    f"effective_to ({self.effective_to}) must be later than effective_from ({self.effective_from})",
                )
        self._check_risk()

    def _check_risk(self) -> None:
        if not self.risk:
            raise Refusal((), f"strategy {self.name} has no risk parameters; add `risk` with at least a stop")
        if self.risk[0].effective_from != self.effective_from:
            raise Refusal(
                ("risk", 0, "effective_from"),
                f"the first risk parameters hold from {self.risk[0].effective_from}, but the strategy "
                f"begins on {self.effective_from}; give both the same date, or remove effective_from from the "
                "first risk",
            )
        for number, (earlier, later) in enumerate(pairwise(self.risk), start=1):
            if later.effective_from <= earlier.effective_from:
                raise Refusal(("risk", number, "effective_from"), "risk parameters must be in order of date")
            self._check_before(later, self.effective_to, number)

    def _check_before(self, risk: RiskParameters, end: date | None, number: int) -> None:
        if end is not None and risk.effective_from >= end:
            raise Refusal(
                ("risk", number, "effective_from"),
                f"risk parameters from {risk.effective_from} on never apply, because this version ends on {end}; "
                "remove them or choose an earlier day",
            )

    def check_replaced_on(self, day: date) -> None:
        """Refuse an end or risk parameters later than ``day``, the start of the next version of the same name."""
        if self.effective_to is not None and self.effective_to > day:
            raise Refusal(
                ("effective_to",),
                f"effective_to ({self.effective_to}) is later than the next version ({day}), which ends "
                "this one anyway; remove it",
            )
        for number, risk in enumerate(self.risk):
            self._check_before(risk, day, number)

    @property
    def market(self) -> str:
        """The spelling of the file: "BTCUSDT 1h"."""
        return f"{self.symbol} {self.interval}"


@dataclass(frozen=True, slots=True)
class DeclaredState:
    """Everything that is declared, each tuple in order of name and date. Refusal if entries contradict each other."""

    markets: tuple[Market, ...]
    strategies: tuple[Strategy, ...] = ()
    configurations: tuple[Configuration, ...] = ()

    def __post_init__(self) -> None:
        self._check_markets()
        self._check_strategies()
        seen: set[tuple[str, date]] = set()
        for number, item in enumerate(self.configurations):
            if (item.name, item.effective_from) in seen:
                raise Refusal(
                    ("configurations", number, "effective_from"),
                    f"{item.name} is declared twice from {item.effective_from} on; keep one",
                )
            seen.add((item.name, item.effective_from))
        object.__setattr__(self, "markets", tuple(sorted(self.markets, key=_market_order)))
        object.__setattr__(self, "strategies", tuple(sorted(self.strategies, key=_version_order)))
        object.__setattr__(self, "configurations", tuple(sorted(self.configurations, key=_version_order)))

    def _check_markets(self) -> None:
        if not self.markets:
            raise Refusal(("markets",), "no market is declared; add one, like {symbol: BTCUSDT, interval: 1h, ...}")
        seen: set[str] = set()
        for number, market in enumerate(self.markets):
            if market.name in seen:
                raise Refusal(("markets", number), f"market {market.name} is declared twice; keep one")
            seen.add(market.name)

    def _check_strategies(self) -> None:
        starts = {market.name: market.start for market in self.markets}
        for number, strategy in enumerate(self.strategies):
            here = ("strategies", number)
            start = starts.get(strategy.market)
            if start is None:
                raise Refusal(
                    (*here, "market"),
                    f"strategy {strategy.name} trades {strategy.market}, which is not declared; add it to "
                    f"`markets` or use one of: {', '.join(sorted(starts))}",
                )
            if strategy.effective_from < start:
                raise Refusal(
                    (*here, "effective_from"),
                    f"strategy {strategy.name} begins on {strategy.effective_from}, before its market "
                    f"{strategy.market} ({start}); begin later, or start the market earlier",
                )
            if strategy.stop_path and f"{strategy.symbol} {strategy.stop_path}" not in starts:
                raise Refusal(
                    (*here, "stop_path"),
                    f"stop_path 1m of strategy {strategy.name} needs the market {strategy.symbol} 1m; add "
                    "it to `markets` or remove stop_path",
                )
        order = sorted(range(len(self.strategies)), key=lambda i: _version_order(self.strategies[i]))
        for before, after in pairwise(order):
            earlier, later = self.strategies[before], self.strategies[after]
            if earlier.name != later.name:
                continue
            if earlier.effective_from == later.effective_from:
                raise Refusal(
                    ("strategies", after, "effective_from"),
                    f"strategy {later.name} is declared twice from {later.effective_from} on; keep one",
                )
            try:
                earlier.check_replaced_on(later.effective_from)
            except Refusal as refusal:
                raise Refusal(("strategies", before, *refusal.path), str(refusal)) from None

    @property
    def first_day(self) -> date:
        """The earliest start of a market."""
        return min(market.start for market in self.markets)


def _market_order(market: Market) -> tuple[str, int]:
    return market.symbol, INTERVALS.index(market.interval)


def _version_order(item: Strategy | Configuration) -> tuple[str, date]:
    return item.name, item.effective_from

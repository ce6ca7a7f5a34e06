"""Check the terms an account trades by (strategy, risk, symbol rules, costs) and turn them into numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal

import numpy as np

from algobot_assets.compute.ledger import kernel as k
from algobot_assets.compute.units import units_of
from algobot_assets.errors import AlgobotError

Number = Decimal | int | float | str

MAX_LOTS = 1000

EXIT_REASONS = {
    k.SIGNAL: "signal",
    k.STOP_LOSS: "stop_loss",
    k.TAKE_PROFIT: "take_profit",
    k.COLLATERAL: "collateral",
    k.SUPERSEDED: "superseded",
}
"""exit_reason of a trade: the opposite signal; the stop; the target; the loss of a short reached its collateral
(2 x entry) before the stop; the strategy's version was replaced or retired."""


class LedgerError(AlgobotError):
    """A ledger that cannot be kept: its terms are contradictory, or its money is too large to be exact."""


def _decimal(name: str, value: Number, low: str, high: str) -> Decimal:
    """`value` as a decimal with at most 8 places within [low, high]."""
    try:
        number = Decimal(str(value))
        units_of(number)
    except (ArithmeticError, ValueError):
        raise LedgerError(f"{name} is {value}: give a number with at most 8 decimals.") from None
    if not Decimal(low) <= number <= Decimal(high):
        raise LedgerError(f"{name} is {value}: give a number from {low} to {high}.")
    return number


def exact(value: Number) -> Decimal:
    """Return a number of the terms as the decimal that checking made of it."""
    assert isinstance(value, Decimal)
    return value


def _set(instance: object, name: str, value: Number, low: str, high: str) -> None:
    object.__setattr__(instance, name, _decimal(name, value, low, high))


@dataclass(frozen=True, slots=True)
class StrategyTerms:
    """One version of a strategy. initial_balance is in the quote asset, risk_per_trade a fraction of equity.

    It starts flat at 00:00 UTC of `effective_from` and ends at 00:00 UTC of `effective_to`, the day from which it is
    replaced or retired (None: never). `shorting`: -1 opens shorts. `stop_path` "1m": stored minutes decide whether stop
    or target comes first inside a candle, and when.
    """

    initial_balance: Number
    risk_per_trade: Number
    effective_from: date
    effective_to: date | None = None
    shorting: bool = False
    stop_path: Literal["1m"] | None = None

    def __post_init__(self) -> None:
        _set(self, "initial_balance", self.initial_balance, "0.00000001", "89999999")
        _set(self, "risk_per_trade", self.risk_per_trade, "0.00000001", "1")
        if self.stop_path not in (None, "1m"):
            raise LedgerError(f"stop_path is {self.stop_path!r}: give 1m or omit it.")
        if self.effective_to is not None and self.effective_to < self.effective_from:
            raise LedgerError(f"The strategy ends on {self.effective_to}, before it starts on {self.effective_from}.")


@dataclass(frozen=True, slots=True)
class RiskTerms:
    """Risk parameters: a fraction of equity, a number of lots, percent of the entry price (take profit 0: none)."""

    max_risk_per_trade: Number
    max_open_trades: int
    stop_loss_percentage: Number
    take_profit_percentage: Number = Decimal(0)

    def __post_init__(self) -> None:
        _set(self, "max_risk_per_trade", self.max_risk_per_trade, "0.00000001", "1")
        _set(self, "stop_loss_percentage", self.stop_loss_percentage, "0.00000001", "10000")
        _set(self, "take_profit_percentage", self.take_profit_percentage, "0", "1000000")
        if isinstance(self.max_open_trades, bool) or self.max_open_trades not in range(1, MAX_LOTS + 1):
            raise LedgerError(f"max_open_trades is {self.max_open_trades}: give a whole number from 1 to {MAX_LOTS}.")


@dataclass(frozen=True, slots=True)
class RuleTerms:
    """Symbol rules. None if none are stored: tick 1e-8, step 1e-8 or the next power of ten, no minimum notional."""

    tick: Number | None = None
    step: Number | None = None
    min_notional: Number | None = None

    def __post_init__(self) -> None:
        for name, low in (("tick", "0.00000001"), ("step", "0.00000001"), ("min_notional", "0")):
            if getattr(self, name) is not None:
                _set(self, name, getattr(self, name), low, "10000000")


@dataclass(frozen=True, slots=True)
class CostTerms:
    """Costs of each side of a trade: commission as a fraction of notional, slippage in basis points of it."""

    commission_rate: Number = Decimal("0.001")
    slippage_bps: Number = Decimal(0)

    def __post_init__(self) -> None:
        _set(self, "commission_rate", self.commission_rate, "0", "0.5")
        _set(self, "slippage_bps", self.slippage_bps, "0", "5000")


@dataclass(frozen=True, slots=True)
class Terms:
    """All terms in force over a window. Rules and risk apply to entries; open lots keep the levels set at entry."""

    strategy: StrategyTerms
    risk: RiskTerms
    rules: RuleTerms = field(default_factory=RuleTerms)
    costs: CostTerms = field(default_factory=CostTerms)

    def knobs(self) -> np.ndarray:
        """Return the terms as the kernel reads them."""
        strategy, risk, rules, costs = self.strategy, self.risk, self.rules, self.costs
        out = np.zeros(k.KNOBS)
        out[k.K_RISK] = min(strategy.risk_per_trade, risk.max_risk_per_trade)
        out[k.K_STOP] = exact(risk.stop_loss_percentage) / 100
        out[k.K_STOP_PCT] = units_of(exact(risk.stop_loss_percentage))
        out[k.K_TARGET_PCT] = units_of(exact(risk.take_profit_percentage))
        out[k.K_MAX_LOTS] = risk.max_open_trades
        out[k.K_TICK] = 1 if rules.tick is None else units_of(exact(rules.tick))
        out[k.K_STEP] = 1 if rules.step is None else units_of(exact(rules.step))
        out[k.K_MIN_NOTIONAL] = 0 if rules.min_notional is None else units_of(exact(rules.min_notional))
        out[k.K_FEE] = costs.commission_rate
        out[k.K_BPS] = costs.slippage_bps
        out[k.K_SHORTING] = strategy.shorting
        out[k.K_MINUTES] = strategy.stop_path == "1m"
        return out


def day_ms(day: date) -> float:
    """Return 00:00 UTC of `day` in milliseconds since 1970-01-01."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000.0

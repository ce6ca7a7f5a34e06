"""Create, check and read the carried state of an account: the float64 vector that leads from one day to the next.

Its layout is in kernel.py: HEAD scalars (layout version, clock start, initial balance, cash, equity at the last mark,
peak, deepest drawdown, count/mean/M2 of daily returns, closed and won trades, sums of wins, losses and
profit_pct, ambiguous stops, skipped entries, side, pending order with its time and equity, ended, number of
lots), then LOT scalars per open lot (times of entry and of its signal, quantity, its count of steps and the
step, entry price, notional, fee, slippage, stop and target as touched and as filled, reason of the stop).
Prices and money are whole units of 1e-8, times milliseconds, quantity in the base asset; NaN: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np

from algobot_assets.compute.ledger import kernel as k
from algobot_assets.compute.ledger.terms import LedgerError, StrategyTerms, day_ms, exact
from algobot_assets.compute.units import units_of


@dataclass(frozen=True, slots=True)
class Lot:
    """An open lot. Prices and money in the quote asset, stop and target as filled (None: none), times UTC."""

    entry_time: datetime
    entry_signal_time: datetime
    quantity: Decimal
    entry_price: Decimal
    notional: Decimal
    entry_costs: Decimal
    stop: Decimal | None
    target: Decimal | None


@dataclass(frozen=True, slots=True)
class AccountState:
    """A state for people. `side`: long, short, flat; `order`: the signal that waits for a candle (0: none)."""

    cash: Decimal
    equity: Decimal
    peak: Decimal
    max_drawdown: float
    total_trades: int
    winning_trades: int
    ambiguous_stops: int
    skipped_entries: int
    """Entries not made because the quantity was zero or worth less than the minimum notional."""
    side: str
    order: int
    order_time: datetime | None
    ended: bool
    lots: tuple[Lot, ...]


def new_state(terms: StrategyTerms, days_before: int = 0) -> np.ndarray:
    """Return the state of an account that starts flat, after `days_before` whole days without a candle."""
    head = np.zeros(k.HEAD)
    balance = units_of(exact(terms.initial_balance))
    head[k.LAYOUT], head[k.START], head[k.INITIAL] = k.LAYOUT_VERSION, day_ms(terms.effective_from), balance
    head[k.CASH] = head[k.EQUITY] = head[k.PEAK] = balance
    head[k.RETURNS] = days_before
    head[k.ORDER_TIME] = head[k.ORDER_EQUITY] = np.nan
    return head


def unpack(state: np.ndarray, terms: StrategyTerms, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (head, lots) of a state. LedgerError if it does not belong to this version of the strategy."""
    state = np.asarray(state, dtype=np.float64)
    head = state[: k.HEAD].copy()
    if len(head) < k.HEAD or head[k.LAYOUT] != k.LAYOUT_VERSION or len(state) != k.HEAD + int(head[k.LOTS]) * k.LOT:
        raise LedgerError(
            f"The carried ledger of {label} was written by another version of the ledger. "
            "Recompute it from its first day."
        )
    expected = new_state(terms)
    if head[k.START] != expected[k.START] or head[k.INITIAL] != expected[k.INITIAL]:
        raise LedgerError(
            f"The carried ledger of {label} started on another day or with another balance than "
            f"{terms.effective_from} and {terms.initial_balance}. Recompute it from its first day."
        )
    return head, state[k.HEAD :].reshape(-1, k.LOT)


def _money(units: float) -> Decimal:
    return Decimal(int(units)).scaleb(-8)


def _level(units: float) -> Decimal | None:
    return _money(units) if np.isfinite(units) and units > 0 else None


def _time(ms: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(ms))


def read_state(state: np.ndarray) -> AccountState:
    """Return a carried state for people, for explanations, and for a bot that asks what is open."""
    head, lots = state[: k.HEAD], state[k.HEAD :].reshape(-1, k.LOT)
    return AccountState(
        cash=_money(head[k.CASH]),
        equity=_money(head[k.EQUITY]),
        peak=_money(head[k.PEAK]),
        max_drawdown=float(head[k.DRAWDOWN]),
        total_trades=int(head[k.CLOSED]),
        winning_trades=int(head[k.WON]),
        ambiguous_stops=int(head[k.AMBIGUOUS]),
        skipped_entries=int(head[k.SKIPPED]),
        side={1: "long", -1: "short", 0: "flat"}[int(head[k.SIDE])],
        order=int(head[k.ORDER]),
        order_time=None if np.isnan(head[k.ORDER_TIME]) else _time(head[k.ORDER_TIME]),
        ended=bool(head[k.ENDED]),
        lots=tuple(
            Lot(
                _time(lot[k.ENTRY_TIME]),
                _time(lot[k.ENTRY_SIGNAL]),
                _money(int(lot[k.STEPS]) * int(lot[k.STEP])),
                _money(lot[k.ENTRY_PRICE]),
                _money(lot[k.NOTIONAL]),
                _money(lot[k.ENTRY_FEE] + lot[k.ENTRY_SLIPPAGE]),
                _level(lot[k.STOP_FILL]),
                _level(lot[k.TARGET_FILL]),
            )
            for lot in lots
        ),
    )

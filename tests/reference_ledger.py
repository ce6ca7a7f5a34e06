"""A second ledger, written from the definitions alone: plain Python, one candle at a time, every mark taken,
levels, cash and sums in decimal.Decimal, metrics recomputed from the whole history each time. Slow and plain
on purpose; it shares no code with the ledger it judges. Float64 appears only where the definitions say so:
products are rounded by rint(x * 1e8) / 1e8, and quantity is a float64 quotient rounded down to the step.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

EIGHT = Decimal("0.00000001")
DAY_MS = 86_400_000


def r8(x: float) -> Decimal:
    """The product x rounded half-even to eight decimals by float64."""
    return Decimal(round(x * 1e8)).scaleb(-8)


def on_grid(value: Decimal, tick: Decimal, up: bool) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return (value / tick).to_integral_value(ROUND_CEILING if up else ROUND_FLOOR) * tick


@dataclass
class Candle:
    start: int
    end: int
    day: date
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    signal: int = 0


@dataclass
class Deal:
    """The terms of an account; fractions as Decimal, percent where the name says so."""

    initial: Decimal = Decimal(1000)
    risk: Decimal = Decimal("0.05")
    start: date = date(2024, 1, 1)
    end: date | None = None
    shorting: bool = True
    stop_pct: Decimal = Decimal(10)
    target_pct: Decimal = Decimal(20)
    max_lots: int = 3
    tick: Decimal = EIGHT
    step: Decimal | None = None
    least: Decimal = Decimal(0)
    fee: Decimal = Decimal("0.001")
    bps: Decimal = Decimal(0)
    path: bool = False


@dataclass
class Holding:
    side: int
    entry: int
    decided: int
    price: Decimal
    quantity: Decimal
    notional: Decimal
    fee: Decimal
    slip: Decimal
    stop: Decimal
    stop_reason: str
    target: Decimal | None


@dataclass
class Book:
    deal: Deal
    cash: Decimal = Decimal(0)
    lots: list[Holding] = field(default_factory=list)
    order: tuple[int, int, Decimal] | None = None
    trades: list[dict] = field(default_factory=list)
    marks: list[Decimal] = field(default_factory=list)
    day_ends: list[Decimal] = field(default_factory=list)
    skipped: int = 0
    unfilled: Counter[tuple[date, str]] = field(default_factory=Counter)
    largest: Decimal = Decimal(0)
    ended: bool = False


def equity(book: Book, price: Decimal) -> Decimal:
    total = book.cash
    for lot in book.lots:
        mark = r8(float(lot.quantity) * float(price))
        total += mark if lot.side > 0 else 2 * lot.notional - mark
    book.largest = max(book.largest, abs(total), abs(book.cash))
    return total


def quantities(book: Book, price: Decimal) -> tuple[float, float]:
    """What the risk parameters ask for, and what the cash pays for."""
    deal, p = book.deal, float(price)
    wanted = float(deal.risk) * float(book.order[2]) / (float(deal.stop_pct / 100) * p)
    return wanted, float(book.cash) / (p * (1.0 + float(deal.fee) + float(deal.bps) / 10000.0))


def in_steps(deal: Deal, q: float) -> Decimal:
    step = deal.step or EIGHT
    while q / float(step) >= 2**53:
        step *= 10
    n = 1 / step
    whole = math.floor(q * float(n)) if n == n.to_integral_value() else math.floor(q / float(step))
    return whole * step


def enter(book: Book, side: int, candle: Candle) -> None:
    deal, price = book.deal, candle.open
    wanted, free = quantities(book, price)
    q = in_steps(deal, min(wanted, free))
    notional = r8(float(q) * float(price))
    if q <= 0 or notional <= 0 or notional < deal.least:
        book.skipped += 1
        asked = in_steps(deal, wanted)
        worth = r8(float(asked) * float(price))
        reason = "rounded_to_zero" if q <= 0 or notional <= 0 else "below_min_notional"
        if wanted <= 0 or (asked > 0 and worth > 0 and worth >= deal.least):
            reason = "no_capital"
        book.unfilled[candle.day, reason] += 1
        return
    stop, reason = price * (1 - side * deal.stop_pct / 100), "stop_loss"
    if side < 0 and stop > 2 * price:
        stop, reason = 2 * price, "collateral"
    target = price * (1 + side * deal.target_pct / 100) if deal.target_pct else None
    fee, slip = cost(deal, notional)
    book.cash -= notional + fee + slip
    book.lots.append(Holding(side, candle.start, book.order[1], price, q, notional, fee, slip, stop, reason, target))


def cost(deal: Deal, notional: Decimal) -> tuple[Decimal, Decimal]:
    return r8(float(notional) * float(deal.fee)), r8(float(notional) * float(deal.bps) / 10000.0)


def leave(
    book: Book,
    lot: Holding,
    candle: Candle,
    price: Decimal,
    when: int,
    reason: str,
    ambiguous: bool = False,
    decided: int | None = None,
) -> None:
    out = r8(float(lot.quantity) * float(price))
    book.largest = max(book.largest, out)
    fee, slip = cost(book.deal, out)
    gross = (out - lot.notional) * lot.side
    book.cash += (out if lot.side > 0 else 2 * lot.notional - out) - fee - slip
    book.lots.remove(lot)
    net = gross - lot.fee - fee - lot.slip - slip
    book.trades.append(
        {
            "day": candle.day,
            "entry_time": lot.entry,
            "exit_time": when,
            "position_type": "long" if lot.side > 0 else "short",
            "entry_price": lot.price,
            "exit_price": price,
            "profit_pct": r8(100.0 * float(net) / float(lot.notional)),
            "commission_fee": lot.fee + fee,
            "entry_signal_time": lot.decided,
            "exit_signal_time": decided,
            "quantity": lot.quantity,
            "gross_profit": gross,
            "net_profit": net,
            "slippage_cost": lot.slip + slip,
            "exit_reason": reason,
            "ambiguous": ambiguous,
        }
    )


def level_fill(book: Book, lot: Holding, level: Decimal) -> Decimal:
    tick = book.deal.tick if level >= book.deal.tick else EIGHT
    return on_grid(level, tick, lot.side < 0)


def touched(lot: Holding, open_: Decimal, high: Decimal, low: Decimal) -> tuple[bool, bool, bool, bool]:
    """(stop at the open, target at the open, stop inside, target inside)."""
    if lot.side > 0:
        at = (open_ <= lot.stop, lot.target is not None and open_ >= lot.target)
        return (*at, low <= lot.stop, lot.target is not None and high >= lot.target)
    at = (open_ >= lot.stop, lot.target is not None and open_ <= lot.target)
    return (*at, high >= lot.stop, lot.target is not None and low <= lot.target)


def minute_exit(book: Book, lot: Holding, candle: Candle, minutes: dict[int, tuple]) -> tuple | None:
    starts = range(candle.start, candle.end - 59_999, 60_000)
    if not starts or any(start not in minutes for start in starts):
        return None
    path = [(start, *minutes[start]) for start in starts]
    if max(m[2] for m in path) != candle.high or min(m[3] for m in path) != candle.low:
        return None
    for start, open_, high, low in path:
        stop_open, target_open, stop_in, target_in = touched(lot, open_, high, low)
        if stop_open or target_open:
            return open_, start, lot.stop_reason if stop_open else "take_profit", False
        if stop_in:
            return level_fill(book, lot, lot.stop), start + 59_999, lot.stop_reason, target_in
        if target_in:
            return level_fill(book, lot, lot.target), start + 59_999, "take_profit", False
    return None


def inside(book: Book, candle: Candle, minutes: dict[int, tuple]) -> None:
    for lot in list(book.lots):
        stop_open, target_open, _, _ = touched(lot, candle.open, candle.high, candle.low)
        if stop_open or target_open:
            leave(book, lot, candle, candle.open, candle.start, lot.stop_reason if stop_open else "take_profit")
    for lot in list(book.lots):
        _, _, stop_in, target_in = touched(lot, candle.open, candle.high, candle.low)
        if not (stop_in or target_in):
            continue
        found = minute_exit(book, lot, candle, minutes) if book.deal.path else None
        if found is None:
            level = lot.stop if stop_in else lot.target
            found = (
                level_fill(book, lot, level),
                candle.end - 1,
                lot.stop_reason if stop_in else "take_profit",
                stop_in and target_in,
            )
        leave(book, lot, candle, *found)


def milliseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def figures(book: Book, capital: Decimal, running: list[Decimal], clock: int) -> dict[str, float | Decimal | None]:
    """The ten figures from the full history; `running`: the daily equities, the last perhaps of today."""
    initial = book.deal.initial
    days = (clock - milliseconds(book.deal.start)) / DAY_MS
    total = float(capital / initial) - 1.0
    pairs = list(zip([initial, *running], running, strict=False))
    solvent = all(a > 0 for a, _ in pairs)
    returns = [float(b / a) - 1.0 for a, b in pairs] if solvent else []
    peak, drawdown = initial, 0.0
    for value in book.marks:
        peak = max(peak, value)
        drawdown = min(drawdown, float(value / peak) - 1.0)
    sharpe = None
    if days >= 30 and len(returns) > 1:
        mean = math.fsum(returns) / len(returns)
        spread = math.sqrt(math.fsum((r - mean) ** 2 for r in returns) / (len(returns) - 1))
        sharpe = mean / spread * math.sqrt(365) if spread > 0 else None
    wins = [t["net_profit"] for t in book.trades if t["net_profit"] > 0]
    losses = [t["net_profit"] for t in book.trades if t["net_profit"] <= 0]
    count, lost = len(book.trades), sum(losses)
    return {
        "initial_capital": initial,
        "final_capital": capital,
        "total_return": total,
        "annual_return": (1.0 + total) ** (365 / days) - 1.0 if days >= 30 and capital >= 0 else None,
        "max_drawdown": drawdown,
        "sharpe_ratio": sharpe,
        "win_rate": len(wins) / count if count else None,
        "avg_profit_pct": float(sum(t["profit_pct"] for t in book.trades)) / count if count else None,
        "risk_reward_ratio": float(sum(wins) / len(wins) / (-lost / len(losses))) if wins and lost else None,
        "profit_factor": float(sum(wins) / -lost) if lost else None,
    }


def reference(
    candles: list[Candle],
    days: list[date],
    deal: Deal,
    minutes: dict[int, tuple] | None = None,
    as_of: int | None = None,
) -> tuple[list[dict], list[dict], list[dict], Book]:
    """(trades, metrics per trade, results per day, the book at the end)."""
    book = Book(deal, cash=deal.initial)
    begin = milliseconds(deal.start)
    until = milliseconds(deal.end) if deal.end else math.inf
    metrics, results = [], []
    capital = deal.initial
    book.day_ends = [deal.initial] * max(0, (days[0] - deal.start).days)
    for day in days:
        if day < deal.start:
            continue
        if milliseconds(day) >= until and not book.lots and book.order is None:
            book.ended = True
        traded, ordered = len(book.trades), set()
        for candle in (c for c in candles if c.day == day and c.start >= begin):
            if book.ended:
                break
            before = len(book.trades)
            if candle.start >= until:
                for lot in list(book.lots):
                    leave(book, lot, candle, candle.open, candle.start, "superseded")
                book.unfilled[day, "outside_dates"] += book.order is not None
                book.order, book.ended = None, True
            else:
                if book.order is not None:
                    side, decided, _ = book.order
                    others = [x for x in book.lots if x.side != side]
                    for lot in others:
                        leave(book, lot, candle, candle.open, candle.start, "signal", decided=decided)
                    if len(book.lots) < deal.max_lots and (side > 0 or deal.shorting):
                        enter(book, side, candle)
                    elif side > 0 or deal.shorting:
                        book.unfilled[day, "at_max_open_trades"] += 1
                    elif not others:
                        book.unfilled[day, "shorting_off"] += 1
                    book.order = None
                inside(book, candle, minutes or {})
            capital = equity(book, candle.close)
            book.marks.append(capital)
            if len(book.trades) > before:
                row = figures(book, capital, [*book.day_ends, capital], candle.end)
                metrics += [{"entry_time": t["entry_time"], "day": day, **row} for t in book.trades[before:]]
            if candle.signal and not book.ended:
                book.order = (candle.signal, candle.start, capital)
                ordered.add(candle.start)
        unheard = [c for c in candles if c.day == day and c.signal and c.start not in ordered]
        book.unfilled[day, "outside_dates"] += len(unheard)
        clock = milliseconds(day + timedelta(days=1))
        if day == days[-1] and as_of is not None:
            clock = min(clock, max(as_of, milliseconds(day)))
        if clock > milliseconds(day):
            book.day_ends.append(capital)
        if milliseconds(day) < until or book.lots or len(book.trades) > traded:
            marks = capital - book.cash
            results.append(
                {
                    "day": day,
                    "start_date": begin,
                    "end_date": clock,
                    **figures(book, capital, book.day_ends, clock),
                    "total_trades": len(book.trades),
                    "open_trades": len(book.lots),
                    "winning_trades": sum(t["net_profit"] > 0 for t in book.trades),
                    "losing_trades": sum(t["net_profit"] <= 0 for t in book.trades),
                    "open_profit": marks - sum(x.notional + x.fee + x.slip for x in book.lots),
                    "ambiguous_stops": sum(t["ambiguous"] for t in book.trades),
                }
            )
    return book.trades, metrics, results, book

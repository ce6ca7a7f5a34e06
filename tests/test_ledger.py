"""What the ledger does with one candle after another, case by case: each table of candles has one sentence.

Candles last three minutes and are written (open, high, low, close[, signal]); None is a candle that does not
exist. Unless a case says otherwise: 1000 of capital, 5 % risk against a stop of 10 %, so a position of 500 at
a price of 100, stop at 90, target at 120, no costs. Every case that enters at 100 is played a second time
mirrored at 100 (prices p become 200 - p, longs become shorts), and must give the mirrored trades.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from algobot_assets.compute.carry import Days
from algobot_assets.compute.code_version import ledger_code_version
from algobot_assets.compute.ledger.run import LedgerRun, candle_arrays, run_ledger
from algobot_assets.compute.ledger.state import read_state
from algobot_assets.compute.ledger.terms import CostTerms, LedgerError, RiskTerms, RuleTerms, StrategyTerms, Terms

PRICE = pl.Decimal(20, 8)
MINUTE = 60_000
FIRST = date(2024, 1, 1)
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
BASE = Terms(StrategyTerms(1000, "0.05", FIRST), RiskTerms(1, 3, 10, 20), RuleTerms(), CostTerms(0))


def terms(**changes: object) -> Terms:
    """BASE with any field of its four parts replaced."""
    parts = {}
    for name in ("strategy", "risk", "rules", "costs"):
        part = getattr(BASE, name)
        parts[name] = replace(part, **{k: v for k, v in changes.items() if k in part.__dataclass_fields__})
    return Terms(**parts)


@dataclass(frozen=True)
class Case:
    """candles in; trades out: (entry candle, exit candle, where, exit price, reason[, "ambiguous"]).

    where: "open" and "in" of the exit candle, or the number of its minute, with "+" for that minute's open.
    """

    sentence: str
    candles: list
    trades: list = field(default_factory=list)
    lots: int = 0
    changes: dict = field(default_factory=dict)
    minutes: dict | None = None
    mirror: bool = True
    step: int = 3
    skipped: int = 0


def mirrored(case: Case) -> Case:
    def turn(p: object) -> Decimal:
        return 200 - Decimal(str(p))

    return replace(
        case,
        sentence=case.sentence + " (mirrored)",
        changes=case.changes | {"shorting": True},
        candles=[
            None if c is None else (turn(c[0]), turn(c[2]), turn(c[1]), turn(c[3]), *(-s for s in c[4:]))
            for c in case.candles
        ],
        minutes=case.minutes
        and {i: [m and (turn(m[0]), turn(m[2]), turn(m[1])) for m in path] for i, path in case.minutes.items()},
        trades=[(a, b, where, turn(price), *rest) for a, b, where, price, *rest in case.trades],
    )


BUY, IN = (100, 100, 100, 100, 1), (100, 105, 95, 100)
FLAT = (100, 100, 100, 100)
PATH = {"stop_path": "1m"}
BOTH = (100, 125, 85, 100)

CASES = [
    Case("A buy is filled at the open of the next candle.", [BUY, IN], lots=1),
    Case("A buy on the last candle stays pending.", [IN, BUY]),
    Case("A pending buy is filled at the next candle that exists.", [BUY, None, None, IN], lots=1),
    Case(
        "A pending buy crosses days without candles.",
        [BUY, *[None] * 5, IN, (100, 130, 99, 120)],
        [(6, 7, "in", 120, "take_profit")],
        step=720,
    ),
    Case("No signal, no trade.", [IN, IN, IN]),
    Case(
        "A sell closes the long at the next open.",
        [BUY, IN, (100, 105, 99, 104, -1), (103, 110, 80, 90)],
        [(1, 3, "open", 103, "signal")],
        mirror=False,
    ),
    Case(
        "A sell reverses into a short where the strategy shorts.",
        [BUY, IN, (100, 105, 99, 104, -1), (103, 104, 102, 103)],
        [(1, 3, "open", 103, "signal")],
        lots=1,
        changes={"shorting": True},
    ),
    Case(
        "A sell without a position does nothing where the strategy does not short.",
        [(100, 100, 100, 100, -1), IN, IN],
        mirror=False,
    ),
    Case("A sell on the last candle leaves the long open.", [BUY, IN, (100, 105, 99, 104, -1)], lots=1),
    Case(
        "Bought and sold by the open after: signals on successive candles.",
        [BUY, (100, 105, 95, 100, -1), (104, 104, 104, 104)],
        [(1, 2, "open", 104, "signal")],
        mirror=False,
    ),
    Case(
        "The stop is touched by the low alone.",
        [BUY, IN, (100, 101, 90, 99)],
        [(1, 2, "in", 90, "stop_loss")],
    ),
    Case("The stop is missed by one unit.", [BUY, IN, (100, 101, "90.00000001", 99)], lots=1),
    Case(
        "The target is touched by the high alone.",
        [BUY, IN, (100, 120, 99, 101)],
        [(1, 2, "in", 120, "take_profit")],
    ),
    Case("The target is missed by one unit.", [BUY, IN, (100, "119.99999999", 99, 101)], lots=1),
    Case(
        "An open beyond the stop fills at that open.",
        [BUY, IN, (80, 85, 75, 84)],
        [(1, 2, "open", 80, "stop_loss")],
    ),
    Case(
        "An open exactly at the stop fills there, at the open.",
        [BUY, IN, (90, 95, 85, 94)],
        [(1, 2, "open", 90, "stop_loss")],
    ),
    Case(
        "An open beyond the target fills at that open, though the stop is inside.",
        [BUY, IN, (130, 131, 80, 95)],
        [(1, 2, "open", 130, "take_profit")],
    ),
    Case(
        "An open exactly at the target fills at the open.",
        [BUY, IN, (120, 121, 119, 120)],
        [(1, 2, "open", 120, "take_profit")],
    ),
    Case(
        "An open beyond the stop, the target inside: the open decides, nothing is ambiguous.",
        [BUY, IN, (85, 125, 84, 120)],
        [(1, 2, "open", 85, "stop_loss")],
    ),
    Case(
        "Stop and target in one candle: the stop, counted.",
        [BUY, IN, BOTH],
        [(1, 2, "in", 90, "stop_loss", "ambiguous")],
    ),
    Case(
        "The stop counts from the entry candle on.",
        [BUY, (100, 105, 89, 100)],
        [(1, 1, "in", 90, "stop_loss")],
    ),
    Case(
        "The target counts from the entry candle on.",
        [BUY, (100, 121, 99, 100)],
        [(1, 1, "in", 120, "take_profit")],
    ),
    Case(
        "Both in the entry candle: the stop, counted.",
        [BUY, BOTH],
        [(1, 1, "in", 90, "stop_loss", "ambiguous")],
    ),
    Case("The candle that decided cannot stop what it did not hold.", [(100, 130, 50, 100, 1), IN], lots=1),
    Case(
        "Take profit 0: no target, however high.",
        [BUY, IN, (100, 1000, 99, 900)],
        lots=1,
        changes={"take_profit_percentage": 0},
        mirror=False,
    ),
    Case(
        "Take profit 0: the stop still holds.",
        [BUY, IN, (100, 1000, 90, 900)],
        [(1, 2, "in", 90, "stop_loss")],
        changes={"take_profit_percentage": 0},
        mirror=False,
    ),
    Case(
        "The order goes before the gap: a sell closes by signal though the open is beyond the stop.",
        [BUY, (100, 105, 95, 100, -1), (80, 81, 79, 80)],
        [(1, 2, "open", 80, "signal")],
        mirror=False,
    ),
    Case(
        "A buy while the old lot is stopped: the new lot enters at the open, then the old gaps out.",
        [BUY, (100, 105, 95, 100, 1), (90, 95, 85, 94)],
        [(1, 2, "open", 90, "stop_loss")],
        lots=1,
    ),
    Case(
        "A repeated buy adds a lot, each with its own stop.",
        [BUY, (100, 110, 95, 110, 1), (110, 112, 105, 108), (108, 109, 99, 100)],
        [(2, 3, "in", 99, "stop_loss")],
        lots=1,
        changes={"risk_per_trade": "0.01"},
        mirror=False,
    ),
    Case(
        "Lots stop at max_open_trades.",
        [BUY, BUY, BUY, BUY, BUY, IN],
        lots=2,
        changes={"max_open_trades": 2, "risk_per_trade": "0.01"},
    ),
    Case(
        "A place freed by a stop can be taken again.",
        [BUY, IN, (100, 101, 90, 100, 1), IN],
        [(1, 2, "in", 90, "stop_loss")],
        lots=1,
        changes={"max_open_trades": 1},
    ),
    Case(
        "Lots close oldest first.",
        [BUY, BUY, (100, 100, 100, 100, -1), FLAT],
        [(1, 3, "open", 100, "signal"), (2, 3, "open", 100, "signal")],
        changes={"risk_per_trade": "0.01"},
        mirror=False,
    ),
    Case(
        "Two lots through their stop in one candle are two trades.",
        [BUY, BUY, FLAT, (100, 101, 89, 95)],
        [(1, 3, "in", 90, "stop_loss"), (2, 3, "in", 90, "stop_loss")],
        changes={"risk_per_trade": "0.01"},
    ),
    Case(
        "No cash left: the next buy is not made, and counted.",
        [BUY, BUY, IN],
        lots=1,
        skipped=1,
        changes={"risk_per_trade": "0.1"},
    ),
    Case(
        "Below the minimum notional no trade is made, and counted.",
        [BUY, IN],
        skipped=1,
        changes={"min_notional": "500.00000001"},
    ),
    Case("Exactly the minimum notional is traded.", [BUY, IN], lots=1, changes={"min_notional": 500}),
    Case("A step larger than the position: nothing to buy, counted.", [BUY, IN], skipped=1, changes={"step": 6}),
    Case(
        "A candle without volume still fills.",
        [BUY, FLAT, (100, 100, 100, 100, -1), FLAT],
        [(1, 3, "open", 100, "signal")],
        mirror=False,
    ),
    Case(
        "A long leaves at the tick below its stop.",
        [BUY, IN, (100, 101, "89.9", 99)],
        [(1, 2, "in", "89.9", "stop_loss")],
        changes={"stop_loss_percentage": "10.01", "tick": "0.1"},
        mirror=False,
    ),
    Case(
        "The touch is of the exact level, the fill is at the tick.",
        [BUY, IN, (100, 101, "89.99", 99)],
        [(1, 2, "in", "89.9", "stop_loss")],
        changes={"stop_loss_percentage": "10.01", "tick": "0.1"},
        mirror=False,
    ),
    Case(
        "A long takes profit at the tick below its target.",
        [BUY, IN, (100, "120.05", 99, 99)],
        [(1, 2, "in", "120.0", "take_profit")],
        changes={"take_profit_percentage": "20.05", "tick": "0.1"},
        mirror=False,
    ),
    Case(
        "A short leaves at the tick above its stop.",
        [(100, 100, 100, 100, -1), IN, (100, "110.01", 99, 99)],
        [(1, 2, "in", "110.1", "stop_loss")],
        changes={"stop_loss_percentage": "10.01", "tick": "0.1", "shorting": True},
        mirror=False,
    ),
    Case(
        "A level on a whole tick stays on it: 61.7 less 2 % of 61.7 is 60.466.",
        [
            ("61.7", "61.7", "61.7", "61.7", 1),
            ("61.7", "61.7", "61.7", "61.7"),
            ("61.7", "61.7", "60.466", "61"),
        ],
        [(1, 2, "in", "60.466", "stop_loss")],
        changes={"stop_loss_percentage": 2, "tick": "0.001"},
        mirror=False,
    ),
    Case(
        "A tick above the price is not of that day and ignored.",
        [
            ("0.003", "0.003", "0.003", "0.003", 1),
            ("0.003", "0.003", "0.003", "0.003"),
            ("0.003", "0.003", "0.002", "0.002"),
        ],
        [(1, 2, "in", "0.0027", "stop_loss")],
        changes={"tick": "0.01"},
        mirror=False,
    ),
    Case(
        "Prices of a few units: the level lies between two units and is touched by the lower one.",
        [
            ("0.00000003",) * 4 + (1,),
            ("0.00000003",) * 4,
            ("0.00000003", "0.00000003", "0.00000002", "0.00000002"),
        ],
        [(1, 2, "in", "0.00000002", "stop_loss")],
        mirror=False,
    ),
    Case(
        "A short whose stop lies beyond 2 x entry is closed there, its collateral gone.",
        [(100, 100, 100, 100, -1), FLAT, (100, 200, 100, 150)],
        [(1, 2, "in", 200, "collateral")],
        changes={"stop_loss_percentage": 150, "shorting": True},
        mirror=False,
    ),
    Case(
        "A short whose stop lies at 2 x entry is stopped.",
        [(100, 100, 100, 100, -1), FLAT, (100, 200, 100, 150)],
        [(1, 2, "in", 200, "stop_loss")],
        changes={"stop_loss_percentage": 100, "shorting": True},
        mirror=False,
    ),
    Case(
        "A gap through the collateral fills at the open.",
        [(100, 100, 100, 100, -1), FLAT, (250, 260, 240, 250)],
        [(1, 2, "open", 250, "collateral")],
        changes={"stop_loss_percentage": 150, "shorting": True},
        mirror=False,
    ),
    Case(
        "A short takes all its collateral: the next short finds no cash.",
        [(100, 100, 100, 100, -1), (100, 100, 100, 100, -1), FLAT],
        lots=1,
        skipped=1,
        changes={"shorting": True, "risk_per_trade": "0.1"},
        mirror=False,
    ),
    Case(
        "A buy closes all shorts and opens a long at the same open.",
        [(100, 100, 100, 100, -1), (100, 100, 100, 100, -1), (100, 100, 100, 100, 1), (98, 99, 97, 98)],
        [(1, 3, "open", 98, "signal"), (2, 3, "open", 98, "signal")],
        lots=1,
        changes={"shorting": True, "risk_per_trade": "0.01"},
        mirror=False,
    ),
    Case(
        "The minutes show the target first.",
        [BUY, IN, BOTH],
        [(1, 2, 0, 120, "take_profit")],
        changes=PATH,
        minutes={2: [(100, 125, 99), (125, 125, 100), (100, 101, 85)]},
    ),
    Case(
        "The minutes show the stop first.",
        [BUY, IN, BOTH],
        [(1, 2, 1, 90, "stop_loss")],
        changes=PATH,
        minutes={2: [(100, 110, 99), (109, 110, 85), (86, 125, 86)]},
    ),
    Case(
        "Both in one minute: the stop, counted.",
        [BUY, IN, BOTH],
        [(1, 2, 2, 90, "stop_loss", "ambiguous")],
        changes=PATH,
        minutes={2: [(100, 110, 99), (110, 111, 95), (96, 125, 85)]},
    ),
    Case(
        "A minute that opens beyond the stop fills at its open.",
        [BUY, IN, BOTH],
        [(1, 2, "1+", 88, "stop_loss")],
        changes=PATH,
        minutes={2: [(100, 110, 99), (88, 89, 85), (88, 125, 87)]},
    ),
    Case(
        "A minute that opens beyond the target fills at its open.",
        [BUY, IN, BOTH],
        [(1, 2, "2+", 122, "take_profit")],
        changes=PATH,
        minutes={2: [(100, 110, 99), (110, 111, 91), (122, 125, 85)]},
    ),
    Case(
        "The minutes tell the time of a stop alone.",
        [BUY, IN, (100, 101, 89, 99)],
        [(1, 2, 1, 90, "stop_loss")],
        changes=PATH,
        minutes={2: [(100, 101, 99), (99, 99, 89), (90, 99, 90)]},
    ),
    Case(
        "A missing minute: the candle decides, the stop first, counted.",
        [BUY, IN, BOTH],
        [(1, 2, "in", 90, "stop_loss", "ambiguous")],
        changes=PATH,
        minutes={2: [(100, 125, 99), None, (100, 101, 85)]},
    ),
    Case(
        "Minutes of another range than the candle contradict it: the stop first, counted.",
        [BUY, IN, BOTH],
        [(1, 2, "in", 90, "stop_loss", "ambiguous")],
        changes=PATH,
        minutes={2: [(100, 124, 99), (120, 121, 100), (100, 101, 85)]},
    ),
    Case(
        "No minutes at all: the stop first, counted.",
        [BUY, IN, BOTH],
        [(1, 2, "in", 90, "stop_loss", "ambiguous")],
        changes=PATH,
    ),
    Case(
        "Minutes are not read where the strategy does not declare them.",
        [BUY, IN, BOTH],
        [(1, 2, "in", 90, "stop_loss", "ambiguous")],
        minutes={2: [(100, 125, 99), (125, 125, 100), (100, 101, 85)]},
    ),
    Case(
        "The minutes count in the entry candle.",
        [BUY, BOTH],
        [(1, 1, 0, 120, "take_profit")],
        changes=PATH,
        minutes={1: [(100, 125, 99), (125, 125, 100), (100, 101, 85)]},
    ),
    Case(
        "A superseded version closes at the first open on or after its end.",
        [BUY, IN, (101, 130, 60, 100)],
        [(1, 2, "open", 101, "superseded")],
        step=720,
        changes={"effective_to": date(2024, 1, 2)},
    ),
    Case(
        "Superseded across a gap: at the first candle that exists.",
        [BUY, IN, None, None, None, (107, 130, 60, 100)],
        [(1, 5, "open", 107, "superseded")],
        step=720,
        changes={"effective_to": date(2024, 1, 2)},
    ),
    Case(
        "Superseded: the pending order is dropped.",
        [IN, BUY, IN, IN],
        step=720,
        changes={"effective_to": date(2024, 1, 2)},
    ),
    Case(
        "Superseded: nothing is decided any more.",
        [BUY, IN, BUY, BUY, IN],
        [(1, 2, "open", 100, "superseded")],
        step=720,
        changes={"effective_to": date(2024, 1, 2)},
    ),
    Case(
        "Signals before the effective date are ignored.",
        [BUY, BUY, IN, IN],
        step=720,
        changes={"effective_from": date(2024, 1, 2)},
    ),
    Case(
        "The first signal that counts is on the first candle of the effective date.",
        [BUY, IN, BUY, IN],
        lots=1,
        step=720,
        changes={"effective_from": date(2024, 1, 2)},
    ),
]
CASES += [mirrored(case) for case in CASES if case.mirror]


def play(case: Case, state: np.ndarray | None = None) -> LedgerRun:
    step = case.step * MINUTE
    start = int(BEGIN.timestamp() * 1000)
    rows = [(start + i * step, *c[:4], c[4] if len(c) > 4 else 0) for i, c in enumerate(case.candles) if c]
    times = pl.Series("timestamp", [r[0] * 1000 for r in rows]).cast(pl.Datetime("us", "UTC"))
    candles = pl.DataFrame(
        [
            times,
            *(
                pl.Series(name, [Decimal(str(r[i])) for r in rows], dtype=PRICE)
                for i, name in enumerate(("open", "high", "low", "close"), 1)
            ),
        ]
    )
    minutes = None
    if case.minutes:
        known = [
            (start + i * step + j * MINUTE, *m) for i, path in case.minutes.items() for j, m in enumerate(path) if m
        ]
        minutes = pl.DataFrame(
            [
                pl.Series("timestamp", [m[0] * 1000 for m in known]).cast(pl.Datetime("us", "UTC")),
                *(
                    pl.Series(name, [Decimal(str(m[i])) for m in known], dtype=PRICE)
                    for i, name in enumerate(("open", "high", "low"), 1)
                ),
            ]
        )
    last = times[-1].date()
    days = Days([FIRST + timedelta(days=i) for i in range((last - FIRST).days + 1)], times.dt.date())
    return run_ledger(
        candles,
        pl.Series([r[5] for r in rows], dtype=pl.Int8),
        days,
        pl.Series([r[0] + step for r in rows]),
        terms(**case.changes),
        state,
        minutes=minutes,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
def test_every_case_gives_its_golden_trades(case: Case) -> None:
    run = play(case)
    step = timedelta(minutes=case.step)
    expected = []
    for entry, left, where, price, reason, *more in case.trades:
        at = BEGIN + left * step
        if where == "in":
            at += step - timedelta(milliseconds=1)
        elif where != "open":
            minute = BEGIN + left * step + timedelta(minutes=int(str(where).rstrip("+")))
            at = minute if "+" in str(where) else minute + timedelta(milliseconds=59_999)
        expected.append((BEGIN + entry * step, at, Decimal(str(price)), reason, bool(more)))
    got = run.trades.select("entry_time", "exit_time", "exit_price", "exit_reason", "ambiguous").rows()
    assert got == expected
    account = read_state(list(run.states.values())[-1])
    assert (len(account.lots), account.skipped_entries) == (case.lots, case.skipped)
    final = run.results["final_capital"][-1] if run.results.height else None
    if final is not None:
        assert final == 1000 + sum(run.trades["net_profit"].to_list()) + run.results["open_profit"][-1]


def test_a_mirrored_market_earns_the_same() -> None:
    """A short in the mirrored market has the money of the long, cent for cent (costs and slippage 0)."""
    for case in CASES:
        if case.mirror and "(mirrored)" not in case.sentence and "shorting" not in case.changes:
            assert play(case).trades["gross_profit"].equals(play(mirrored(case)).trades["gross_profit"])


def test_costs_are_money_on_both_sides() -> None:
    """500 in at 100, 505 out at 101: 1 % gained, 0.5 % + 0.5 % commission and 10 + 10 bp lost: a loss."""
    case = Case(
        "",
        [BUY, FLAT, (100, 101, 100, 101, -1), (101, 101, 101, 101)],
        changes={"commission_rate": "0.005", "slippage_bps": 10},
    )
    trade = play(case).trades.row(0, named=True)
    assert (trade["entry_price"], trade["exit_price"], trade["quantity"]) == (100, 101, 5)
    assert trade["gross_profit"] == 5
    assert trade["commission_fee"] == Decimal("2.5") + Decimal("2.525")
    assert trade["slippage_cost"] == Decimal("0.5") + Decimal("0.505")
    assert trade["net_profit"] == 5 - Decimal("5.025") - Decimal("1.005")
    assert trade["profit_pct"] == 100 * trade["net_profit"] / 500
    assert trade["duration"] == Decimal("0.1")
    assert trade["entry_signal_time"] == BEGIN and trade["exit_signal_time"] == BEGIN + timedelta(minutes=6)


def test_a_stop_has_no_exit_signal() -> None:
    trade = play(Case("", [BUY, IN, (100, 101, 90, 99)])).trades.row(0, named=True)
    assert trade["exit_signal_time"] is None and trade["position_type"] == "long" and trade["day"] == FIRST


def test_free_cash_bounds_the_size_with_its_costs() -> None:
    """1000 of cash buy at 100 no more than 1000 / (100 x 1.011), rounded down to the step."""
    run = play(
        Case(
            "",
            [BUY, IN],
            changes={"risk_per_trade": 1, "commission_rate": "0.01", "slippage_bps": 10, "step": "0.001"},
        )
    )
    lot = read_state(run.states[FIRST]).lots[0]
    assert lot.quantity == Decimal("9.891") and lot.entry_costs == Decimal("9.891") + Decimal("0.9891")


def test_risk_is_the_smaller_of_the_two() -> None:
    run = play(Case("", [BUY, IN], changes={"max_risk_per_trade": "0.02"}))
    assert read_state(run.states[FIRST]).lots[0].notional == 200


def test_size_uses_equity_of_the_deciding_close_and_price_of_the_fill() -> None:
    """Decided at 100 with equity 1000, filled at 125: 50 / (0.1 x 125) = 4."""
    run = play(Case("", [BUY, (125, 125, 125, 125)]))
    assert read_state(run.states[FIRST]).lots[0].quantity == 4
    held = play(Case("", [BUY, (100, 110, 100, 110, 1), (110, 110, 110, 110)], changes={"risk_per_trade": "0.04"}))
    assert read_state(held.states[FIRST]).lots[1].quantity == Decimal("3.78181818")  # 0.04 x 1040 / (0.1 x 110)


def test_quantities_beyond_64_bits_are_exact() -> None:
    """A price of one unit: 89 million quote units buy 8.9e15 coins, a count of 1e-8 that no 64 bits hold."""
    tiny = ("0.00000001",) * 4
    run = play(
        Case(
            "",
            [(*tiny, 1), tiny, (*tiny, -1), tiny],
            changes={"initial_balance": 89_000_000, "risk_per_trade": 1, "stop_loss_percentage": 50},
        )
    )
    assert run.trades["quantity"].to_list() == [Decimal(8_900_000_000_000_000)]
    assert run.trades["quantity"].dtype == pl.Decimal(28, 8)
    odd = play(
        Case(
            "",
            [(*tiny, 1), tiny, (*tiny, -1), tiny],
            changes={"initial_balance": "12345.67890123", "risk_per_trade": 1, "stop_loss_percentage": 50},
        )
    )
    assert odd.trades["quantity"].to_list() == [Decimal(1_234_567_890_123)]


def test_money_is_exact_to_nine_tenths_of_the_range() -> None:
    """89,999,999 less a hundred small costs: every digit is there, where quote units in float64 would lose
    some.
    """
    rows = [BUY, FLAT, (100, 100, 100, 100, -1), FLAT] * 100
    run = play(
        Case(
            "",
            rows,
            changes={
                "initial_balance": "88999999.12345679",
                "risk_per_trade": "0.0001",
                "commission_rate": "0.00012345",
            },
        )
    )
    assert run.trades.height == 100
    lost = sum(run.trades["commission_fee"].to_list())
    assert run.results["final_capital"][-1] == Decimal("88999999.12345679") - lost
    assert all(x.as_tuple().exponent == -8 for x in run.trades["commission_fee"].to_list())


def test_amounts_beyond_the_exact_range_are_refused_in_one_sentence() -> None:
    grow = [BUY, FLAT, (100, 100, 100, 100), (119, 119, 119, 119)]
    with pytest.raises(LedgerError, match=r"this market passed 90,000,000 .* on 2024-01-01"):
        play(Case("", grow, changes={"initial_balance": 80_000_000, "risk_per_trade": 1}))
    with pytest.raises(LedgerError, match=r"prices of this market pass 90,000,000 in column high"):
        play(Case("", [BUY, (100, 100_000_000, 99, 100)]))


def test_results_stop_after_the_version_closed() -> None:
    """Two candles a day; the version ends on the 2nd with a lot, closed by the next candle on the 4th."""
    rows = [BUY, IN, None, None, None, None, (107, 107, 107, 107), FLAT, FLAT, FLAT]
    run = play(Case("", rows, step=720, changes={"effective_to": date(2024, 1, 2)}))
    assert run.results["day"].to_list() == [date(2024, 1, d) for d in (1, 2, 3, 4)]
    assert run.results["open_trades"].to_list() == [1, 1, 1, 0]
    states = [run.states[date(2024, 1, d)].tobytes() for d in (4, 5)]
    assert states[0] == states[1] and read_state(run.states[date(2024, 1, 5)]).ended
    flat = play(Case("", [IN, IN, IN, IN], step=720, changes={"effective_to": date(2024, 1, 2)}))
    assert flat.results["day"].to_list() == [date(2024, 1, 1)]


def test_a_day_in_progress_is_as_of_its_last_closed_candle() -> None:
    case = Case("", [BUY, IN, IN], step=720)
    times = pl.Series([BEGIN + timedelta(hours=12 * i) for i in range(3)])
    table = pl.DataFrame(
        [
            times.cast(pl.Datetime("us", "UTC")).alias("timestamp"),
            *(
                pl.Series(n, [Decimal(x[i]) for x in case.candles], dtype=PRICE)
                for i, n in enumerate(("open", "high", "low", "close"))
            ),
        ]
    )
    days = Days([FIRST, FIRST + timedelta(days=1)], times.dt.date())
    ends = times.dt.offset_by("12h").dt.epoch("ms")
    signals = pl.Series([1, 0, 0], dtype=pl.Int32)
    run = run_ledger(table, signals, days, ends, terms(), as_of_ms=ends[-1])
    assert run.results["end_date"].to_list() == [BEGIN + timedelta(days=1), BEGIN + timedelta(hours=36)]
    whole = run_ledger(candle_arrays(table, ends), signals, days, None, terms())
    assert whole.results["end_date"].to_list() == [BEGIN + timedelta(days=1), BEGIN + timedelta(days=2)]
    assert whole.results["start_date"].to_list() == [BEGIN, BEGIN]


def test_open_lots_keep_their_levels_when_risk_changes() -> None:
    """Entered with a stop of 10 %, carried into terms with a stop of 2 %: 95 does not stop it, 90 does."""
    first = play(Case("", [BUY, IN], step=720))
    rows = [None, None, (100, 101, 95, 100), (100, 101, 90, 100)]
    table = replace(CASES[0], candles=rows, step=720, changes={"stop_loss_percentage": 2})
    step = table.step * MINUTE
    start = int(BEGIN.timestamp() * 1000)
    kept = [(start + i * step, *c) for i, c in enumerate(rows) if c]
    times = pl.Series("timestamp", [r[0] * 1000 for r in kept]).cast(pl.Datetime("us", "UTC"))
    candles = pl.DataFrame(
        [
            times,
            *(
                pl.Series(n, [Decimal(r[i]) for r in kept], dtype=PRICE)
                for i, n in enumerate(("open", "high", "low", "close"), 1)
            ),
        ]
    )
    run = run_ledger(
        candles,
        pl.Series([0, 0]),
        Days([FIRST + timedelta(days=1)], times.dt.date()),
        pl.Series([r[0] + step for r in kept]),
        terms(stop_loss_percentage=2),
        first.states[FIRST],
    )
    assert run.trades["exit_price"].to_list() == [90]
    assert run.results["total_trades"].to_list() == [1]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"risk_per_trade": 0}, "risk_per_trade"),
        ({"risk_per_trade": "nan"}, "risk_per_trade"),
        ({"stop_loss_percentage": 0}, "stop_loss_percentage"),
        ({"max_open_trades": 0}, "max_open_trades"),
        ({"max_open_trades": 1.5}, "max_open_trades"),
        ({"initial_balance": 90_000_000}, "initial_balance"),
        ({"initial_balance": "1e-9"}, "8 decimals"),
        ({"tick": "0.000000001"}, "tick"),
        ({"stop_path": "5m"}, "stop_path"),
        ({"effective_to": date(2023, 1, 1)}, "before it starts"),
        ({"commission_rate": "inf"}, "commission_rate"),
    ],
)
def test_terms_that_contradict_themselves_are_refused(change: dict, word: str) -> None:
    with pytest.raises(LedgerError, match=word):
        terms(**change)


def test_a_state_of_another_account_is_refused() -> None:
    state = play(Case("", [BUY, IN])).states[FIRST]
    with pytest.raises(LedgerError, match="another balance"):
        play(Case("", [BUY, IN], changes={"initial_balance": 2000}), state)
    with pytest.raises(LedgerError, match="another version"):
        play(Case("", [BUY, IN]), state[:-1])


def test_signals_and_days_must_fit_the_candles() -> None:
    times = pl.Series("timestamp", [BEGIN, BEGIN + timedelta(hours=1)]).cast(pl.Datetime("us", "UTC"))
    table = pl.DataFrame(
        [times, *(pl.Series(n, [Decimal(1)] * 2, dtype=PRICE) for n in ("open", "high", "low", "close"))]
    )
    days, ends = Days([FIRST], times.dt.date()), times.dt.offset_by("1h")
    with pytest.raises(ValueError, match="one signal"):
        run_ledger(table, pl.Series([0]), days, ends, terms())
    with pytest.raises(ValueError, match="signals are"):
        run_ledger(table, pl.Series([0, 2]), days, ends, terms())
    with pytest.raises(ValueError, match="ascend"):
        run_ledger(table.reverse(), pl.Series([0, 0]), days, ends, terms())
    with pytest.raises(ValueError, match="consecutive"):
        run_ledger(table, pl.Series([0, 0]), Days([FIRST, FIRST + timedelta(days=2)], times.dt.date()), ends, terms())


def test_a_version_has_no_trade_before_its_effective_date() -> None:
    run = play(Case("", [BUY, IN], changes={"effective_from": date(2024, 6, 1)}))
    assert run.trades.height == run.metrics.height == run.results.height == len(run.states) == 0
    full = play(Case("", [BUY, IN, BOTH]))
    assert run.trades.schema == full.trades.schema and run.results.schema == full.results.schema
    assert run.metrics.schema == full.metrics.schema


def test_the_ledger_has_one_code_version() -> None:
    assert ledger_code_version() == ledger_code_version() != ""

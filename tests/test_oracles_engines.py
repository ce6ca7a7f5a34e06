"""The ledger against vectorbt and backtesting.py: the same signals, trade by trade.

Where semantics can be made equal: orders filled at the next open, a fee on both sides, one position at a time, no
stop that can be reached, all cash or given sizes. What cannot be made equal is in docs/exactness.md with its figure.

The engines live in an environment of their own, because they pin other versions and are not the project's licence
(Commons Clause, AGPL): install the extra `oracles` there and set ALGOBOT_ORACLES to its Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from real_candles import days_of, interval_of, klines

from algobot_assets.compute.ledger.run import run_ledger
from algobot_assets.compute.ledger.state import read_state
from algobot_assets.compute.ledger.terms import CostTerms, RiskTerms, RuleTerms, StrategyTerms, Terms
from algobot_assets.compute.signals import compute_signals
from algobot_assets.schema.intervals import end_of

PROGRAM = Path(__file__).with_name("oracle_engines.py")
FEE = 0.001
#: A stop of 100 % is never reached by a long, and makes risk a plain share of equity.
NO_STOP = RiskTerms(1, 1, 100)
MARKETS = ("spot/BTCUSDT-4h-2017_2026-04", "spot/ETHUSDT-1d-all_2026-04")
KINDS = {"all cash": (1, False), "half": ("0.5", False), "half, shorting": ("0.5", True)}


@dataclass(frozen=True)
class Case:
    """Our trades as an engine states them, the final equity, and what the engine is given."""

    trades: list[tuple[Any, ...]]
    final: float
    given: dict[str, Any]


@cache
def case(market: str, kind: str) -> Case:
    """One ledger over a few thousand real candles, among them the gaps of 2018."""
    share, shorting = KINDS[kind]
    candles = klines(market).head(3000)
    interval, days = interval_of(market), days_of(candles, interval_of(market))
    signals, _ = compute_signals("ema_cross", candles, None, {"fast": 9, "slow": 21}, days)
    terms = Terms(StrategyTerms(10_000, share, days.days[0], shorting=shorting), NO_STOP, RuleTerms(), CostTerms(FEE))
    ends = candles.select(end_of(interval).alias("end"))["end"]
    run = run_ledger(candles, signals["signal"], days, ends, terms)
    index = {opened: i for i, opened in enumerate(candles["timestamp"])}
    trades = [
        (
            index[row["entry_time"]],
            index[row["exit_time"]],
            1 if row["position_type"] == "long" else -1,
            *(float(row[name]) for name in ("quantity", "entry_price", "exit_price", "net_profit")),
        )
        for row in run.trades.iter_rows(named=True)
    ]
    assert set(run.trades["exit_reason"]) == {"signal"}
    sizes = None
    if share != 1:
        sizes = [0.0] * candles.height
        for row in run.trades.iter_rows(named=True):
            sizes[index[row["entry_signal_time"]]] = float(row["quantity"])
        for lot in read_state(run.states[days.days[-1]]).lots:
            sizes[index[lot.entry_signal_time]] = float(lot.quantity)
    prices = {name: candles[name].cast(pl.Float64).to_list() for name in ("open", "high", "low", "close")}
    given = {"signal": signals["signal"].to_list(), "cash": 10_000, "fee": FEE, "shorting": shorting, "sizes": sizes}
    return Case(trades, float(run.results["final_capital"][-1]), prices | given)


@pytest.fixture(scope="module", params=["vectorbt", "backtesting"])
def answers(request: pytest.FixtureRequest) -> tuple[str, dict[tuple[str, str], dict[str, Any]]]:
    """What one engine says to all cases; skipped where it is not installed."""
    python = os.environ.get("ALGOBOT_ORACLES", sys.executable)
    engine = request.param
    if subprocess.run([python, "-c", f"import {engine}"], capture_output=True).returncode:
        pytest.skip(f"{engine} is not installed: set ALGOBOT_ORACLES to a Python with the extra `oracles`")
    names = [(market, kind) for market in MARKETS for kind in KINDS]
    cases = json.dumps([case(*name).given for name in names])
    done = subprocess.run([python, str(PROGRAM), engine], input=cases, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return engine, dict(zip(names, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("market", MARKETS)
def test_the_same_trades(answers, market: str, kind: str):
    engine, said = answers
    ours, theirs = case(market, kind), said[market, kind]
    assert len(ours.trades) > 40
    assert [trade[:3] for trade in ours.trades] == [tuple(trade[:3]) for trade in theirs["trades"]]
    # vectorbt does not round a size to the step of 1e-8, so with all cash it holds up to a step more
    unrounded = engine == "vectorbt" and kind == "all cash"
    for mine, other in zip(ours.trades, theirs["trades"], strict=True):
        (size, entry, leave, profit), (their_size, *prices, their_profit) = mine[3:], other[3:]
        assert prices == pytest.approx([entry, leave], rel=4e-15)
        assert their_size == pytest.approx(size, rel=1e-8 if unrounded else 1e-15 * 4)
        scale = their_size / size if unrounded else 1.0
        assert their_profit == pytest.approx(profit * scale, abs=1e-9 * size * entry)
    assert theirs["final"] == pytest.approx(ours.final, rel=1e-8 if unrounded else 1e-9)

"""One market's indicators beside TA-Lib, and one backtest beside vectorbt, over a year of minutes.

    python -m benchmarks.compute [--rounds 5]

Indicators: ema, rsi, atr and vwap with the states of every day, against TA-Lib's EMA, RSI and ATR; equality first,
where TA-Lib's own warm-up has faded. Backtest: signals of two averages, the ledger with stops, its figures, as a sweep
of one combination gives them, and once more with every trade, the figures after each, of each day, and the states; both
against vectorbt's from_signals with such stops, fees and figures. Equality first: our two are the same to the bit, and
without stops and fees (with them all cash has gone by March), where vectorbt can be made equal, it makes as many trades
and the same final equity.
Both sides get their candles ready as they read them: floats, and for the ledger whole units of 1e-8. vectorbt runs in
the Python that ALGOBOT_ORACLES names; `cold` is a new process with its imports and what it compiles.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import talib

from algobot_assets.compute.carry import Days
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.compute.ledger.run import CandleArrays, LedgerRun, candle_arrays, run_ledger
from algobot_assets.compute.ledger.terms import CostTerms, RiskTerms, RuleTerms, StrategyTerms, Terms
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import get_strategy
from algobot_assets.compute.sweep.grid import Grid
from algobot_assets.compute.sweep.run import RESULTS, Market
from algobot_assets.schema.intervals import day_of, days_between, end_of
from benchmarks.harness import machine, save, show
from benchmarks.sweep import RISK, candles, sweep_of

PACKAGES = ("polars", "numba", "numpy", "TA-Lib")
FEE = 0.001
PARAMETERS = {"fast": 9, "slow": 21}
#: Rows after which TA-Lib's averages have forgotten how they began.
FADED = 5_000
VECTORBT = """
import json, sys, time
import numpy as np, pandas as pd, vectorbt as vbt
given = json.load(open(sys.argv[1]))
frame = np.load(given["candles"])
index = pd.to_datetime(frame["time"], unit="ms")
close, high, low, open_ = (pd.Series(frame[n], index=index) for n in ("close", "high", "low", "open"))
def signals():
    fast = close.ewm(span=given["fast"], adjust=False).mean()
    slow = close.ewm(span=given["slow"], adjust=False).mean()
    above = fast > slow
    return above & ~above.shift(1, fill_value=False), ~above & above.shift(1, fill_value=False)
def portfolio(entries, exits, **more):
    return vbt.Portfolio.from_signals(close, entries, exits, price=open_.shift(-1), open=open_, high=high, low=low,
                                      init_cash=10000, freq="1min", **more)
decided = pd.Series(frame["signal"], index=index)
plain = portfolio(decided > 0, decided < 0)
final, trades = float(plain.final_value()), int(plain.trades.closed.count())
def run():
    entries, exits = signals()
    result = portfolio(entries, exits, sl_stop=0.02, tp_stop=0.04, fees=given["fee"])
    daily = result.value().resample("1D").last()
    returns = daily.pct_change().dropna()
    closed = result.trades
    return [result.total_return(), result.annualized_return(), result.max_drawdown(),
            returns.mean() / returns.std() * 365 ** 0.5, closed.win_rate(), closed.returns.mean(),
            closed.profit_factor(), closed.count(), closed.winning.pnl.mean(), closed.losing.pnl.mean()]
times = []
for _ in range(given["rounds"]):
    began = time.perf_counter(); run(); times.append(time.perf_counter() - began)
print(json.dumps({"version": vbt.__version__, "seconds": sorted(times)[len(times) // 2], "final": final,
                  "trades": trades}))
"""
COLD = "import sys; sys.argv = ['compute', '--once']; from benchmarks.compute import main; main()"


def median(rounds: int, call: Callable[[], Any]) -> float:
    """Median seconds of ``call``, which has run once before."""
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def indicators(frame: pl.DataFrame, days: Days, rounds: int) -> dict[str, float]:
    """Seconds of ours and of TA-Lib's."""
    windows = IndicatorWindows()
    high, low, close = (frame[name].to_numpy() for name in ("high", "low", "close"))

    def ours() -> pl.DataFrame:
        return compute_indicators(frame, windows, "1m", days)[0]

    def theirs() -> dict[str, np.ndarray]:
        return {
            "ema": talib.EMA(close, windows.ema),
            "rsi": talib.RSI(close, windows.rsi),
            "atr": talib.ATR(high, low, close, windows.atr),
        }

    mine = ours()
    for name, values in theirs().items():
        if not np.allclose(mine[name].to_numpy()[FADED:], values[FADED:], rtol=1e-9, atol=1e-9):
            sys.exit(f"{name} differs from TA-Lib's; no figure is worth anything.")
    return {"ours": median(rounds, ours), "talib": median(rounds, theirs)}


def backtest(frame: pl.DataFrame, days: Days, arrays: CandleArrays, *, stops: bool = True) -> LedgerRun:
    """Signals, ledger and all figures."""
    signal, _ = compute_signals("ema_cross", frame, None, PARAMETERS, days)
    risk = RiskTerms(Decimal("0.02"), 1, 2, 4) if stops else RiskTerms(1, 1, 100)
    costs = CostTerms(FEE if stops else 0)
    strategy = StrategyTerms(10_000, Decimal("0.02") if stops else 1, days.days[0])
    return run_ledger(arrays, signal["signal"], days, None, Terms(strategy, risk, RuleTerms(), costs))


def peer(frame: pl.DataFrame, days: Days, arrays: CandleArrays, rounds: int) -> dict[str, Any] | None:
    """vectorbt's seconds, warm and cold, after trades and final equity were compared; None where it is not there."""
    python = os.environ.get("ALGOBOT_ORACLES", sys.executable)
    if subprocess.run([python, "-c", "import vectorbt"], capture_output=True, check=False).returncode:
        return None
    signal, _ = compute_signals("ema_cross", frame, None, PARAMETERS, days)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candles.npz"
        prices = {name: frame[name].to_numpy() for name in ("open", "high", "low", "close")}
        np.savez(path, time=frame["timestamp"].dt.epoch("ms").to_numpy(), signal=signal["signal"].to_numpy(), **prices)
        given = {"candles": str(path), "fee": FEE, "rounds": rounds, **PARAMETERS}
        (Path(folder) / "given.json").write_text(json.dumps(given))
        command = [python, "-W", "ignore", "-c", VECTORBT, str(Path(folder) / "given.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"vectorbt failed: {done.stderr.strip().splitlines()[-1]}")
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        (Path(folder) / "given.json").write_text(json.dumps(given | {"rounds": 1}))
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        answer["cold"] = time.perf_counter() - began
    plain = backtest(frame, days, arrays, stops=False)
    final, trades = float(plain.results["final_capital"][-1]), plain.trades.height
    if trades != answer["trades"] or abs(final - answer["final"]) > 1e-6 * final:
        sys.exit(f"vectorbt makes {answer['trades']} trades and {answer['final']}, the ledger {trades} and {final}.")
    return answer


def main() -> None:
    """Run, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--once", action="store_true", help="only one backtest, for the time of a new process")
    given = options.parse_args()
    frame, real = candles()
    owned = frame.select(day_of("1m").alias("day"))["day"]
    days = Days(days_between(owned[0], owned[-1] + timedelta(days=1)), owned)
    ends = frame.select(end_of("1m").alias("end"))["end"]
    arrays = candle_arrays(frame, ends)
    market = Market(frame, ends, days)
    grid = Grid.of(get_strategy("ema_cross"), [f"{name}={value}" for name, value in PARAMETERS.items()], [], {}, RISK)
    frame = frame.with_columns(pl.col("open", "high", "low", "close", "volume").cast(pl.Float64)).rechunk()
    if given.once:
        backtest(frame, days, arrays)
        return
    state = machine(PACKAGES)
    ta = indicators(frame, days, given.rounds)
    ours = median(given.rounds, lambda: backtest(frame, days, arrays))
    figures = median(given.rounds, lambda: sweep_of(market, grid))
    last = backtest(frame, days, arrays).results.select(RESULTS).tail(1)
    if not sweep_of(market, grid)[1].select(RESULTS).equals(last):
        sys.exit("The figures alone and those with every trade differ; no figure is worth anything.")
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", COLD], check=True)
    cold = time.perf_counter() - began
    rows = [["four indicators with states, TA-Lib: three", ta["ours"], ta["talib"], ta["ours"] / ta["talib"]]]
    other = peer(frame, days, arrays, given.rounds)
    if other is not None:
        rows.append(["one backtest, its figures, vectorbt", figures, other["seconds"], other["seconds"] / figures])
        rows.append(["with each trade and day", ours, other["seconds"], other["seconds"] / ours])
        rows.append(["one backtest in a new process, vectorbt", cold, other["cold"], other["cold"] / cold])
    what = "real" if real else "seeded"
    cells = [[name, f"{mine:.3f}", f"{their:.3f}", f"{ratio:.1f}"] for name, mine, their, ratio in rows]
    print(show(f"{frame.height:,} {what} candles (1m)", ["what", "ours s", "peer s", "ratio"], cells))
    result = {"machine": state, "rounds": given.rounds, "candles": frame.height, "real": real}
    result |= {"indicators": ta, "figures": figures, "backtest": ours, "cold": cold, "vectorbt": other}
    print(f"Written to {save('compute', result)}.")


if __name__ == "__main__":
    main()

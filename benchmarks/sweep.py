"""A parameter sweep: candle evaluations per second, all figures included, beside vectorbt and a bare loop.

    python -m benchmarks.sweep [--rounds 5]

Candles x combinations / seconds, signals included, over the 525,520 candles of BTCUSDT 1m 2023 (ALGOBOT_DATA), else
seeded ones. Equality first: a sample of combinations has the bits of signals and ledger run alone. vectorbt
(ALGOBOT_ORACLES names its Python) runs a part of the grid, with stops, fees and the same figures. The bare loop decides
a crossing of two averages and adds up a long position, nothing else: no fees, stops, sizes, drawdown or daily returns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numba import njit

from algobot_assets.compute.carry import Days
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import get_strategy
from algobot_assets.compute.sweep.grid import Grid
from algobot_assets.compute.sweep.run import RESULTS, AccountTerms, Market, Span, Sweep, run_alone, thread_count
from algobot_assets.schema.intervals import day_of, days_between, end_of
from benchmarks.harness import machine, medians, peak_bytes, reset_peak, save, show

PACKAGES = ("polars", "numba", "numpy")
RISK: dict[str, Any] = {
    "risk_per_trade": Decimal("0.02"),
    "max_risk_per_trade": Decimal("0.02"),
    "max_open_trades": 1,
    "stop_loss_percentage": Decimal(2),
    "take_profit_percentage": Decimal(4),
}
#: Grids by name: strategy parameters and risk parameters.
GRIDS = {
    "10 x 10 averages": (["fast=5:50:5", "slow=20:200:20"], []),
    "10 x 10 averages x 9 risks": (
        ["fast=5:50:5", "slow=20:200:20"],
        ["stop_loss_percentage=1,2,3", "take_profit_percentage=0,2,4"],
    ),
}
SAMPLE = 12
VECTORBT = """
import json, sys, time
import numpy as np, pandas as pd, vectorbt as vbt
given = json.load(open(sys.argv[1]))
frame = np.load(given["candles"])
index = pd.to_datetime(frame["time"], unit="ms")
close, high, low, open_ = (pd.Series(frame[n], index=index) for n in ("close", "high", "low", "open"))
def run():
    fast = vbt.MA.run(close, given["fast"], ewm=True, short_name="fast")
    slow = vbt.MA.run(close, given["slow"], ewm=True, short_name="slow")
    portfolio = vbt.Portfolio.from_signals(
        close, fast.ma_crossed_above(slow), fast.ma_crossed_below(slow), price=open_.shift(-1), open=open_, high=high,
        low=low, sl_stop=0.02, tp_stop=0.04, fees=0.001, init_cash=10000, freq="1min")
    daily = portfolio.value().resample("1D").last()
    returns = daily.pct_change().dropna()
    trades = portfolio.trades
    return [portfolio.total_return(), portfolio.annualized_return(), portfolio.max_drawdown(),
            returns.mean() / returns.std() * 365 ** 0.5, trades.win_rate(), trades.returns.mean(),
            trades.profit_factor(), trades.count()]
run()
times = []
for _ in range(given["rounds"]):
    began = time.perf_counter(); figures = run(); times.append(time.perf_counter() - began)
print(json.dumps({"version": vbt.__version__, "seconds": sorted(times)[len(times) // 2],
                  "combinations": len(given["fast"]), "trades": [int(x) for x in figures[-1]]}))
"""


@njit(nogil=True)
def bare(close, fast, slow):
    """The profit of being long while the fast average is above the slow one."""
    a, b, profit, entry, held = close[0], close[0], 0.0, 0.0, False
    x, y = 2.0 / (fast + 1), 2.0 / (slow + 1)
    for i in range(1, close.size):
        a += x * (close[i] - a)
        b += y * (close[i] - b)
        if (a > b) != held:
            held = not held
            if held:
                entry = close[i]
            else:
                profit += close[i] - entry
    return profit


def candles() -> tuple[pl.DataFrame, bool]:
    """A year of minutes, and whether they are real."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("ALGOBOT_DATA", default)) / "klines" / "spot" / "BTCUSDT-1m-2023.parquet"
    prices = ("open", "high", "low", "close")
    if path.exists():
        frame = pl.read_parquet(path).rename({"open_time": "time"})
    else:
        random = np.random.default_rng(1)
        close = np.round(30_000 * np.exp(np.cumsum(random.normal(0, 0.0006, 525_600))), 2)
        opened = np.concatenate([[30_000.0], close[:-1]])
        high, low = np.maximum(opened, close) + 1, np.minimum(opened, close) - 1
        frame = pl.DataFrame(dict(zip(prices, (opened, high, low, close), strict=True))).with_columns(
            (1_672_531_200_000 + 60_000 * pl.int_range(525_600)).alias("time"), pl.lit(1.0).alias("volume")
        )
    return (
        frame.select(
            pl.from_epoch("time", "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC").alias("timestamp"),
            pl.col(prices).cast(pl.Decimal(20, 8)),
            pl.col("volume").cast(pl.Decimal(28, 8)),
        ),
        path.exists(),
    )


def sweep_of(market: Market, grid: Grid) -> tuple[float, pl.DataFrame]:
    """Seconds and results of one sweep from nothing: no average is kept from an earlier one."""
    span = Span(market.days.days[0], market.days.days[-1] + timedelta(days=1))
    began = time.perf_counter()
    work = Sweep(get_strategy("ema_cross"), market, AccountTerms(Decimal(10_000), False, None), grid, [span])
    parts = [(chunk.numbers, chunk.frames[0]) for chunk in work.chunks()]
    seconds = time.perf_counter() - began
    frame = pl.concat([part.with_columns(pl.Series("combination", numbers)) for numbers, part in parts])
    return seconds, frame.sort("combination")


def check(market: Market, grid: Grid, results: pl.DataFrame) -> int:
    """How many combinations were compared with signals and ledger run alone; ends the benchmark at a difference."""
    span = Span(market.days.days[0], market.days.days[-1] + timedelta(days=1))
    account = AccountTerms(Decimal(10_000), False, None)
    numbers = np.random.default_rng(len(grid)).choice(len(grid), min(SAMPLE, len(grid)), replace=False).tolist()
    for number in numbers:
        combination = grid[number]
        decided, _ = compute_signals("ema_cross", market.candles, None, combination.parameters, market.days)
        signal = decided["signal"].to_numpy().astype(np.int8)
        row = run_alone(market, account, signal, combination.risk, span).results.row(-1, named=True)
        found = results.row(number, named=True)
        if any(row[name] != found[name] for name in RESULTS):
            sys.exit(f"{combination}: the sweep and the strategy run alone differ; no figure is worth anything.")
    return len(numbers)


def peer(market: Market, rounds: int) -> dict[str, Any] | None:
    """vectorbt over three pairs of averages at once; None where it is not installed."""
    python = os.environ.get("ALGOBOT_ORACLES", sys.executable)
    if subprocess.run([python, "-c", "import vectorbt"], capture_output=True, check=False).returncode:
        return None
    with tempfile.TemporaryDirectory() as folder:
        names = ("open", "high", "low", "close")
        columns = {name: getattr(market.arrays, name) / 1e8 for name in names}
        path = Path(folder) / "candles.npz"
        np.savez(path, time=market.arrays.times.astype(np.int64), **columns)
        given = {"candles": str(path), "fast": [5, 9, 20], "slow": [21, 50, 100], "rounds": rounds}
        (Path(folder) / "given.json").write_text(json.dumps(given))
        command = [python, "-W", "ignore", "-c", VECTORBT, str(Path(folder) / "given.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"vectorbt failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def limit(market: Market) -> float:
    """Seconds per combination of the bare loop in all threads."""
    close = market.arrays.close
    pairs = [(fast, slow) for fast in range(5, 51, 5) for slow in range(20, 201, 20)]
    bare(close, 5, 20)
    with ThreadPoolExecutor(thread_count()) as pool:
        began = time.perf_counter()
        list(pool.map(lambda pair: bare(close, *pair), pairs))
        return (time.perf_counter() - began) / len(pairs)


def main() -> None:
    """Run, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    state = machine(PACKAGES)
    frame, real = candles()
    owned = frame.select(day_of("1m").alias("day"))["day"]
    days = Days(days_between(owned[0], owned[-1] + timedelta(days=1)), owned)
    assert days.days[0] >= date(2017, 7, 1)
    market = Market(frame, frame.select(end_of("1m").alias("end"))["end"], days)
    rows, figures = [], {}
    for name, (parameters, risk) in GRIDS.items():
        grid = Grid.of(get_strategy("ema_cross"), parameters, risk, {}, RISK)
        _, results = sweep_of(market, grid)
        compared = check(market, grid, results)
        rounds = []
        reset_peak()
        for _ in range(given.rounds):
            seconds, again = sweep_of(market, grid)
            if not again.equals(results):
                sys.exit(f"{name}: two sweeps differ; no figure is worth anything.")
            bottom = limit(market)
            rate = frame.height * len(grid) / seconds
            rounds.append({"seconds": seconds, "rate": rate, "limit": frame.height / bottom})
        middle = medians(rounds) | {"combinations": len(grid), "compared": compared, "peak_mb": peak_bytes() / 2**20}
        middle["trades"] = int(results["total_trades"].sum())
        figures[name] = middle
        rows.append(
            [
                name,
                f"{len(grid):,}",
                f"{middle['seconds']:.2f}",
                f"{middle['rate'] / 1e6:,.0f}",
                f"{middle['rate'] / middle['limit']:.2f}",
                f"{middle['peak_mb']:,.0f}",
            ]
        )
    other = peer(market, min(3, given.rounds))
    if other is not None:
        other["rate"] = frame.height * other["combinations"] / other["seconds"]
        cells = [str(other["combinations"]), f"{other['seconds']:.2f}", f"{other['rate'] / 1e6:,.1f}"]
        rows.append(["vectorbt", *cells, "", ""])
    what = "real" if real else "seeded"
    title = f"{frame.height:,} {what} candles (1m), all figures of backtest_results, {thread_count()} threads"
    print(show(title, ["grid", "combinations", "seconds", "M candles/s", "of bare loop", "peak MB"], rows))
    result = {"machine": state, "rounds": given.rounds, "candles": frame.height, "real": real, "grids": figures}
    print(f"Written to {save('sweep', {**result, 'vectorbt': other, 'threads': thread_count()})}.")


if __name__ == "__main__":
    main()

"""Other people's backtesting engines on given candles and signals: a program, run by the Python that has them.

    python oracle_engines.py vectorbt|backtesting < cases.json > answers.json

A case: opens, highs, lows, closes, signal (1, -1, 0 per candle, decided at its close), cash, fee (fraction per
side), shorting, sizes (base asset per deciding candle, null for all cash). Its answer: version, final (equity at the
last close) and trades as [entry candle, exit candle, side, size, entry price, exit price, net profit].
Nothing of the project is imported here.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd

warnings.simplefilter("ignore")
Answer = dict[str, Any]
UNIT = 1e-8


def vectorbt(case: dict[str, Any]) -> Answer:
    """`Portfolio.from_signals`, each order at the next candle's open; all cash is `size=inf`, not rounded to a step
    (its `size_granularity` rounds exits too, and leaves positions open by a grain)."""
    import vectorbt as vbt

    close = pd.Series(case["close"])
    signal = np.array(case["signal"])
    sizes = np.inf if case["sizes"] is None else np.array(case["sizes"])
    short = {"short_entries": signal < 0} if case["shorting"] else {"exits": signal < 0}
    portfolio = vbt.Portfolio.from_signals(
        close,
        entries=signal > 0,
        **short,
        price=pd.Series(case["open"]).shift(-1),
        size=sizes,
        upon_opposite_entry="reverse",
        fees=case["fee"],
        init_cash=case["cash"],
        freq="1h",
    )
    rows = portfolio.trades.records
    closed = rows[rows["status"] == 1]
    trades = [
        [
            int(row.entry_idx) + 1,
            int(row.exit_idx) + 1,
            1 if row.direction == 0 else -1,
            row.size,
            row.entry_price,
            row.exit_price,
            row.pnl,
        ]
        for row in closed.itertuples()
    ]
    return {"version": vbt.__version__, "final": float(portfolio.final_value()), "trades": trades}


def backtesting(case: dict[str, Any]) -> Answer:
    """`FractionalBacktest` in units of 1e-8; all cash is `buy()` without a size."""
    import backtesting as package
    from backtesting import Strategy
    from backtesting.lib import FractionalBacktest

    signal, sizes = case["signal"], case["sizes"]

    class Given(Strategy):
        def init(self) -> None:
            pass

        def next(self) -> None:
            i = len(self.data) - 1
            self.order(i, signal[i])

        def order(self, i: int, side: int) -> None:
            if not side:
                return
            mine = self.position.is_long if side > 0 else self.position.is_short
            if self.position and not mine:
                self.position.close()
            if mine or (side < 0 and not case["shorting"]):
                return
            enter = self.buy if side > 0 else self.sell
            if sizes is None:
                enter()
            elif round(sizes[i] / UNIT):
                enter(size=round(sizes[i] / UNIT))

    frame = pd.DataFrame(
        {name.capitalize(): case[name] for name in ("open", "high", "low", "close")},
        index=pd.date_range("2000-01-01", periods=len(signal), freq="h"),
    ).assign(Volume=1.0)
    # it is first asked at the second candle: a signal at the first one would not be heard
    engine = FractionalBacktest(frame, Given, cash=case["cash"], commission=case["fee"], fractional_unit=UNIT)
    result = engine.run()
    trades = [
        [
            int(row.EntryBar),
            int(row.ExitBar),
            1 if row.Size > 0 else -1,
            abs(row.Size),
            row.EntryPrice,
            row.ExitPrice,
            row.PnL,
        ]
        for row in result["_trades"].sort_values("EntryBar").itertuples()
    ]
    return {"version": package.__version__, "final": float(result["Equity Final [$]"]), "trades": trades}


if __name__ == "__main__":
    engines = {"vectorbt": vectorbt, "backtesting": backtesting}
    json.dump([engines[sys.argv[1]](case) for case in json.load(sys.stdin)], sys.stdout)

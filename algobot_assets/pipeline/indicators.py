"""How the table indicators follows from candles and from the configured windows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from algobot_assets.compute.code_version import indicators_code_version
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.declared.versions import effective
from algobot_assets.pipeline.by_candle import PRICES, days_of_candles, inputs_of_day, with_candle_ids
from algobot_assets.pipeline.frames import WindowFrame
from algobot_assets.pipeline.incremental import DAY, legal_days, run_chain
from algobot_assets.pipeline.parameter_digests import Digests
from algobot_assets.pipeline.run import TableRun, attempt
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import pieces
from algobot_assets.schema.windows import Window
from algobot_assets.store.digests import SIZE


def indicators(run: TableRun, market_data: Table, configurations: Table) -> Iterator[WindowFrame]:
    """Indicators of each market with recorded candles."""
    settings = configurations.versions(history=True)
    digests = Digests.read(run.store, "indicators")
    recorded = market_data.recorded()
    run.refuse_unknown([f"{candles.symbol} {candles.interval}" for candles in recorded])
    for candles in recorded:
        if not run.takes(candles.symbol, candles.interval):
            continue
        yield from attempt(run, _indicators(run, market_data, candles, settings, digests))


def _indicators(
    run: TableRun, market_data: Table, candles: Window, settings: pl.DataFrame, digests: Digests
) -> Iterator[WindowFrame]:
    window = Window("indicators", run.first, run.end, candles.symbol, candles.interval, 0, candles.phase)
    begin = market_data.first_day(candles)
    upstream = market_data.lineage(candles)
    own = market_data.lineage(window.of(run.first - DAY, run.end))
    legal = legal_days(window, begin, [upstream], own, "market_data", market_data.last_complete)
    if legal.refusal:
        run.refuse(legal.refusal)
    run.proceeded += bool(legal.days)

    def windows_on(day: date) -> IndicatorWindows:
        rows = effective(settings, day) if settings.height else settings
        return IndicatorWindows.from_configurations(dict(rows.select("config_name", "config_value").iter_rows()))

    def compute(days: Sequence[date], state: np.ndarray | None) -> tuple[pl.DataFrame, np.ndarray]:
        part = candles.of(days[0], days[-1] + DAY)
        prices = market_data.read(part, PRICES)
        frame, states = compute_indicators(
            prices, windows_on(days[0]), part.interval, days_of_candles(part, prices, days), state
        )
        return with_candle_ids(frame, prices, part, "indicators"), states

    yield from run_chain(
        window,
        legal,
        own,
        lambda day: inputs_of_day([upstream], day),
        lambda day: digests.on(0, day),
        indicators_code_version(),
        compute,
        recompute=run.options.recompute,
        warm=_Warm(market_data, candles, begin, windows_on) if begin else None,
        tally=run.tally,
    )


@dataclass(frozen=True)
class _Warm:
    """Indicators under windows that hold from a day on, as if they had held from the market's first candle."""

    market_data: Table
    candles: Window
    begin: date
    windows_on: Callable[[date], IndicatorWindows]

    def basis(self, day: date) -> bytes:
        """The view of stale partitions computes the same digest in SQL."""
        recorded = self.market_data.lineage(self.candles.of(self.begin, day))
        return hashlib.sha256(b"".join(recorded[item].output for item in sorted(recorded))).digest()[:SIZE]

    def state(self, day: date) -> np.ndarray | None:
        """Piece by piece from the first day, rows thrown away."""
        state: np.ndarray | None = None
        for days in pieces(self.candles.interval, sorted(self.market_data.lineage(self.candles.of(self.begin, day)))):
            part = self.candles.of(days[0], days[-1] + DAY)
            prices = self.market_data.read(part, PRICES)
            of_day = days_of_candles(part, prices, days)
            _, states = compute_indicators(prices, self.windows_on(day), part.interval, of_day, state)
            state = states[-1]
        return state

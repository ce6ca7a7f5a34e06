"""List the computed tables in order of dependency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from algobot_assets.pipeline.indicators import indicators
from algobot_assets.pipeline.ledger.tables import backtest_results, performance_metrics, trade_history
from algobot_assets.pipeline.signals import signals
from algobot_assets.pipeline.steps.frames import WindowFrame

#: The function of each computed table: called with a run and its upstream tables, it yields frames of windows.
COMPUTED: Mapping[str, Callable[..., Iterator[WindowFrame]]] = {
    body.__name__: body for body in (indicators, signals, trade_history, performance_metrics, backtest_results)
}

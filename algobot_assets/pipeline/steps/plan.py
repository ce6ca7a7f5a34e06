"""Read, for all markets of a run at once, what decides which days of a table are computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from algobot_assets.pipeline.steps.parameter_digests import ParameterDigests
from algobot_assets.pipeline.steps.reads import Reader
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.store.lineage.recorded import Lineages, first_days


@dataclass(frozen=True)
class Plan:
    """Lineage of a table and of those before it, the markets' first days, the parameters in force, and the rows."""

    run: TableRun
    recorded: Lineages
    begins: Mapping[tuple[str, str], date]
    digests: ParameterDigests
    reader: Reader

    @classmethod
    def read(
        cls,
        run: TableRun,
        tables: Sequence[str],
        parameters_of: str,
        markets: Collection[tuple[str, str]] | None = None,
        reach: int = 1,
    ) -> Plan:
        """Read a plan; the number of statements does not depend on markets, strategies or days.

        ``parameters_of``: indicators, signals or ledger. ``markets``: those whose first day matters, by default those
        with recorded candles. ``reach``: days before the run's first that are read too.
        """
        recorded = Lineages.read(run.store, tables, run.first - timedelta(days=reach), run.end)
        if markets is None:
            markets = {(symbol, interval) for _, symbol, interval, _ in recorded.keys("market_data")}
        return cls(
            run,
            recorded,
            first_days(run.store, "market_data", markets),
            ParameterDigests.read(run.store, parameters_of),
            Reader(run.store, recorded, from_database=run.options.recompute),
        )

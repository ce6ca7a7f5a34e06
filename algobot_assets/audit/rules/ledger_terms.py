"""Read the terms of a ledger (costs and limits) by day from the stored settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from algobot_assets.audit.rules.check_run import CheckRun
from algobot_assets.declared.versions import periods, settings
from algobot_assets.schema.windows import Window


@dataclass(frozen=True)
class Settings:
    """The stored versions of strategies, risk parameters and configurations."""

    strategies: dict[int, dict[str, Any]]
    risks: pl.DataFrame
    configurations: pl.DataFrame

    @classmethod
    def read(cls, run: CheckRun) -> Settings:
        """Read all stored versions; there are few."""
        strategies, risks, configurations = (
            run.handle(table).versions(history=True) for table in ("strategies", "risk_parameters", "configurations")
        )
        return cls({row["id"]: row for row in strategies.iter_rows(named=True)}, risks, configurations)

    def costs(self, first: date, end: date) -> pl.DataFrame:
        """Return day (effective from), rate (fraction) and bps for the days [first, end)."""
        rows = []
        for period in periods(self.configurations, first, end):
            values = settings(period.rows, period.first)
            rows.append((period.first, float(values["ledger.commission_rate"]), float(values["ledger.slippage_bps"])))
        return pl.DataFrame(rows, {"day": pl.Date(), "rate": pl.Float64(), "bps": pl.Float64()}, orient="row")

    def limits(self, strategy_id: int) -> pl.DataFrame:
        """Return day (effective from) and max_open of a strategy version."""
        rows = self.risks.filter(pl.col("strategy_id") == strategy_id).sort("effective_from")
        return rows.select(pl.col("effective_from").alias("day"), pl.col("max_open_trades").alias("max_open"))

    def candles(self, run: CheckRun, ledger: Window) -> Window:
        """Return the candles of the market of a strategy's ledger, over the same days."""
        row = self.strategies[ledger.strategy_id]
        return run.handle("market_data").window(ledger.first, ledger.end, row["symbol"], row["interval"])

    def who(self, ledger: Window) -> str:
        """Return the name of the strategy version for messages."""
        row = self.strategies[ledger.strategy_id]
        return f"{row['strategy_name']} version {row['version']} on {row['symbol']} {row['interval']}"

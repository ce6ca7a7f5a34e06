"""Read the inputs of a simulated ledger: candles, decisions, minutes, and the terms in force on each day.

Settings are read once per table and run, candles and signals window by window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

import polars as pl

from algobot_assets.compute.carry import Days
from algobot_assets.compute.ledger.terms import CostTerms, RiskTerms, RuleTerms, StrategyTerms, Terms
from algobot_assets.declared.parameters import from_json
from algobot_assets.declared.versions import effective, lifetimes, settings
from algobot_assets.errors import WindowError
from algobot_assets.pipeline.incremental import DAY, Recorded
from algobot_assets.pipeline.parameter_digests import ParameterDigests
from algobot_assets.pipeline.run import TableRun
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import day_of, interval_ms, midnight, month_start
from algobot_assets.schema.symbols import end_of_trading
from algobot_assets.schema.windows import Window
from algobot_assets.store.digests import NOTHING
from algobot_assets.store.reader import read_table

PRICES = ("timestamp", "open", "high", "low", "close")


def minute_days(interval: str, day: date) -> list[date]:
    """Return the days whose minutes can lie inside a candle that belongs to ``day``, ascending."""
    length = interval_ms(interval)
    first = month_start(day) if length is None else day - timedelta(days=max(0, length // 86_400_000 - 1))
    return [first + timedelta(days=i) for i in range((day - first).days + 1)]


@dataclass
class LedgerInputs:
    """The inputs of one run's ledgers: tables as given by the IO manager, settings as frames."""

    run: TableRun
    market_data: Table
    signals: Table
    strategies: pl.DataFrame
    risks: pl.DataFrame
    configurations: pl.DataFrame
    rules: pl.DataFrame
    digests: ParameterDigests

    @classmethod
    def read(
        cls,
        run: TableRun,
        market_data: Table,
        signals: Table,
        strategies: Table,
        risk_parameters: Table,
        configurations: Table,
    ) -> LedgerInputs:
        """Read the settings; candles and signals are read later, window by window."""
        versions = strategies.versions(history=True)
        inputs = cls(
            run,
            market_data,
            signals,
            lifetimes(versions) if versions.height else versions.with_columns(pl.lit(None, pl.Date).alias("until")),
            risk_parameters.versions(history=True),
            configurations.versions(history=True),
            read_table(run.store, "symbol_rules", "effective_from"),
            ParameterDigests.read(run.store, "ledger"),
        )
        if inputs.strategies.filter(pl.col("effective_from") < run.end).is_empty():
            run.log.info(f"No strategy is in force by the run's days, so there is nothing to compute in {run.table}.")
        return inputs

    def versions(self) -> list[dict[str, Any]]:
        """Return the strategy versions that have begun by the end of the run, by market and id."""
        begun = self.strategies.filter(pl.col("effective_from") < self.run.end)
        return begun.sort("symbol", "interval", "id").to_dicts()

    def span(self, version: dict[str, Any]) -> tuple[date, date]:
        """Return the first day and end (exclusive) of a version's ledger.

        The version closes its lots at the first candle that opens on or after the day it is replaced or retired, and
        the ledger ends with the day of that candle.
        """
        until = version["until"]
        last = end_of_trading(version["symbol"], self.run.end)
        if until is None or until >= last:
            return version["effective_from"], last
        candles = self.candles(version, until, last)
        for day, item in sorted(self.market_data.lineage(candles).items()):
            if item.rows and candles.of(day, day + DAY).bounds[0] >= midnight(until):
                return version["effective_from"], day + DAY
        return version["effective_from"], last

    def candles(self, version: dict[str, Any], first: date, end: date) -> Window:
        """Return the window of the version's market."""
        return self.market_data.window(first, end, version["symbol"], version["interval"])

    def upstream(self, version: dict[str, Any], first: date, end: date) -> list[Recorded]:
        """Return the recorded days of candles and signals.

        From the day a version ends on, its signals are replaced by empty ones, so that its lots can close at the next
        candle.
        """
        candles = self.market_data.lineage(self.candles(version, first, end))
        signals = self.market_data.lineage(
            self.signals.window(first, end, version["symbol"], version["interval"], version["id"])
        )
        if version["until"] is not None:
            signals |= {day: replace(c, output=NOTHING) for day, c in candles.items() if day >= version["until"]}
        return [candles, signals]

    def of_day(self, version: dict[str, Any], upstream: Sequence[Recorded], day: date) -> tuple[bytes, datetime]:
        """Return the input digest of one day and the time up to which it is complete."""
        items = [by_day[day] for by_day in upstream]
        content = b"".join(item.output for item in items)
        if from_json(version["parameters"]).stop_path:
            days = minute_days(version["interval"], day)
            recorded = self._minute_lineage(version, days[0], days[-1] + DAY)
            content += b"".join(recorded[d].output if d in recorded else NOTHING for d in days)
        return content, min(item.complete_through for item in items)

    def _minute_lineage(self, version: dict[str, Any], first: date, end: date) -> Recorded:
        return self.market_data.lineage(self.market_data.window(first, end, version["symbol"], "1m"))

    @cached_property
    def prices(self) -> Callable[[Window], pl.DataFrame]:
        """A reader of a window's candles; it caches the last window for the other strategies of the market."""
        return lru_cache(maxsize=1)(lambda candles: self.market_data.read(candles, PRICES))

    def decisions(self, version: dict[str, Any], first: date, end: date) -> pl.DataFrame:
        """Return timestamp and signal of the version's days."""
        window = self.signals.window(first, end, version["symbol"], version["interval"], version["id"])
        return self.signals.read(window, ["timestamp", "signal"])

    def minutes(self, version: dict[str, Any], candles: Window) -> pl.DataFrame | None:
        """Return the stored minutes of a window's candles; None if the strategy does not follow minutes."""
        if not from_json(version["parameters"]).stop_path:
            return None
        first = minute_days(version["interval"], candles.first)[0]
        return self.market_data.read(self.market_data.window(first, candles.end, version["symbol"], "1m"), PRICES)

    @staticmethod
    def cut_by(version: dict[str, Any]) -> str:
        """Return the interval that sets the size of the version's pieces of days.

        This is the interval of its candles; none if the strategy follows minutes, of which a year is too much at once.
        """
        return "" if from_json(version["parameters"]).stop_path else version["interval"]

    @staticmethod
    def days(candles: Window, rows: pl.DataFrame, days: Sequence[date]) -> Days:
        """Return ``days`` and the day of each candle, in the form that the ledger expects."""
        return Days(days, rows.select(day_of(candles.interval, candles.phase).alias("day"))["day"])

    def terms(self, version: dict[str, Any], day: date) -> Terms:
        """Return the version's terms of trade on ``day``. WindowError if no risk parameters are stored for it."""
        risks = self.risks.filter(pl.col("strategy_id") == version["id"], pl.col("effective_from") <= day)
        if risks.is_empty():
            raise WindowError(
                f"{version['strategy_name']} has no risk parameters in force on {day}: run `algobot apply`, or "
                "materialise risk_parameters for the day from which they hold."
            )
        risk = risks.sort("effective_from").row(-1, named=True)
        stored = from_json(version["parameters"])
        return Terms(
            StrategyTerms(
                version["initial_balance"],
                version["risk_per_trade"],
                version["effective_from"],
                version["until"],
                stored.shorting,
                stored.stop_path,  # type: ignore[arg-type]
            ),
            RiskTerms(
                risk["max_risk_per_trade"],
                risk["max_open_trades"],
                risk["stop_loss_percentage"],
                risk["take_profit_percentage"],
            ),
            rules_on(self.rules, version["symbol"], day),
            costs_on(self.configurations, day),
        )


def rules_on(rules: pl.DataFrame, symbol: str, day: date) -> RuleTerms:
    """Return a symbol's latest rules seen by ``day``, or its first ones if none is that old (an assumption)."""
    own = rules.filter(pl.col("symbol") == symbol).sort("effective_from")
    if own.is_empty():
        return RuleTerms()
    seen = own.filter(pl.col("effective_from") <= day)
    row = seen.row(-1, named=True) if seen.height else own.row(0, named=True)
    return RuleTerms(row["tick_size"], row["step_size"], row["min_notional"])


def costs_on(configurations: pl.DataFrame, day: date) -> CostTerms:
    """Return commission and slippage in force on ``day``."""
    values = settings(effective_or_empty(configurations, day), day)
    return CostTerms(values["ledger.commission_rate"], values["ledger.slippage_bps"])


def effective_or_empty(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return the settings in force on ``day``; an empty frame stays empty."""
    return effective(frame, day) if frame.height else frame

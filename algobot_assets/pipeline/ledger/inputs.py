"""Read the inputs of a simulated ledger: candles, decisions, minutes, and the terms in force on each day.

Settings and lineage are read once per table and run, candles and signals batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cache, cached_property
from itertools import groupby
from typing import Any

import polars as pl

from algobot_assets.compute.carry import Days
from algobot_assets.compute.ledger.terms import CostTerms, RiskTerms, RuleTerms, StrategyTerms, Terms
from algobot_assets.declared.parameters import from_json
from algobot_assets.declared.versions import effective, lifetimes, settings
from algobot_assets.errors import WindowError
from algobot_assets.pipeline.by_candle import inputs_of_day
from algobot_assets.pipeline.steps.incremental import DAY, Recorded, Rows
from algobot_assets.pipeline.steps.parameter_digests import ParameterDigests
from algobot_assets.pipeline.steps.plan import Plan
from algobot_assets.pipeline.steps.reads import Reader
from algobot_assets.pipeline.steps.run import TableRun
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import day_of, interval_ms, month_start
from algobot_assets.schema.symbols import end_of_trading
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.digests import NOTHING
from algobot_assets.store.lineage.recorded import Lineages
from algobot_assets.store.reader import read_table

PRICES = ("timestamp", "open", "high", "low", "close")


def minute_days(interval: str, day: date) -> list[date]:
    """Return the days whose minutes can lie inside a candle that belongs to ``day``, ascending."""
    length = interval_ms(interval)
    first = month_start(day) if length is None else day - timedelta(days=max(0, length // 86_400_000 - 1))
    return [first + timedelta(days=i) for i in range((day - first).days + 1)]


@dataclass
class LedgerInputs:
    """The inputs of one run's ledgers: settings and lineage of all versions, read once; rows come from ``reader``."""

    run: TableRun
    market_data: Table
    strategies: pl.DataFrame
    configurations: pl.DataFrame
    risks: Mapping[int, Sequence[Mapping[str, Any]]]
    rules: Mapping[str, pl.DataFrame]
    digests: ParameterDigests
    recorded: Lineages
    begins: Mapping[tuple[str, str], date]
    closing_days: Mapping[int, date]
    reader: Reader

    @classmethod
    def read(
        cls,
        run: TableRun,
        market_data: Table,
        strategies: Table,
        risk_parameters: Table,
        configurations: Table,
    ) -> LedgerInputs:
        """Read settings and lineage; the number of statements does not depend on markets, versions or days."""
        versions = strategies.versions(history=True)
        ending = lifetimes(versions) if versions.height else versions.with_columns(pl.lit(None, pl.Date).alias("until"))
        begun = ending.filter(pl.col("effective_from") < run.end)
        if begun.is_empty():
            run.log.info(f"No strategy is in force by the run's days, so there is nothing to compute in {run.table}.")
        # minutes inside a long candle lie before the run's first day
        reach = max(
            (len(minute_days(row["interval"], run.first)) for row in begun.to_dicts() if _by_minutes(row)), default=1
        )
        markets = {(row["symbol"], row["interval"]) for row in begun.iter_rows(named=True)}
        plan = Plan.read(run, ("market_data", "signals", "trade_history", run.table), "ledger", markets, reach)
        rules = read_table(run.store, "symbol_rules", "effective_from")
        risks = risk_parameters.versions(history=True).sort("effective_from").to_dicts()
        return cls(
            run,
            market_data,
            begun,
            configurations.versions(history=True),
            {key: list(rows) for key, rows in groupby(sorted(risks, key=_strategy), _strategy)},
            {symbol: rows for (symbol,), rows in rules.partition_by("symbol", as_dict=True).items()},
            plan.digests,
            plan.recorded,
            plan.begins,
            closing_days(run.store, ending.filter(pl.col("until").is_not_null())),
            plan.reader,
        )

    def versions(self) -> list[dict[str, Any]]:
        """Return the run's strategy versions that have begun by its end, by market and id."""
        rows = self.strategies.sort("symbol", "interval", "id").iter_rows(named=True)
        return [version for version in rows if self.run.includes(version["symbol"], version["interval"])]

    def span(self, version: Mapping[str, Any]) -> tuple[date, date]:
        """Return the first day and end (exclusive) of a version's ledger.

        The version closes its lots at the first candle that opens on or after the day it is replaced or retired, and
        the ledger ends with the day of that candle.
        """
        last = end_of_trading(version["symbol"], self.run.end)
        closing = self.closing_days.get(version["id"], last)
        return version["effective_from"], min(last, closing + DAY)

    def candles(self, version: Mapping[str, Any], first: date, end: date) -> Window:
        """Return the window of the version's market."""
        return self.market_data.window(first, end, version["symbol"], version["interval"])

    def upstream(self, version: Mapping[str, Any], first: date, end: date) -> list[Recorded]:
        """Return the recorded days of candles and signals.

        From the day a version ends on, its signals are replaced by empty ones, so that its lots can close at the next
        candle.
        """
        window = self.candles(version, first, end)
        candles = self.recorded.days(window)
        signals: Recorded = self.recorded.days(window.in_table("signals", version["id"]))
        if version["until"] is not None:
            ended = {day: replace(candles[day], output=NOTHING) for day in candles if day >= version["until"]}
            signals = {**signals, **ended} if ended else signals
        return [candles, signals]

    def of_day(self, version: Mapping[str, Any], upstream: Sequence[Recorded], day: date) -> tuple[bytes, datetime]:
        """Return the input digest of one day and the time up to which it is complete."""
        content, through = inputs_of_day(upstream, day)
        if _by_minutes(version):
            days = minute_days(version["interval"], day)
            minutes = self.recorded.days(self._minutes(version, days[0], days[-1] + DAY))
            content += b"".join(minutes[d].output if d in minutes else NOTHING for d in days)
        return content, through

    def _minutes(self, version: Mapping[str, Any], first: date, end: date) -> Window:
        return self.market_data.window(first, end, version["symbol"], "1m")

    def reads(self, version: Mapping[str, Any], days: Sequence[date]) -> list[Rows]:
        """Return the rows that the ledger over ``days`` reads: candles, signals, and minutes if it follows them."""
        window = self.candles(version, days[0], days[-1] + DAY)
        rows = [Rows(window, PRICES), Rows(window.in_table("signals", version["id"]), ("timestamp", "signal"))]
        if _by_minutes(version):
            first = minute_days(version["interval"], days[0])[0]
            rows.append(Rows(self._minutes(version, first, window.end), PRICES))
        return rows

    @staticmethod
    def cut_by(version: Mapping[str, Any]) -> str:
        """Return the interval that sets the size of the version's pieces of days.

        This is the interval of its candles; none if the strategy follows minutes, of which a year is too much at once.
        """
        return "" if _by_minutes(version) else version["interval"]

    @staticmethod
    def days(candles: Window, rows: pl.DataFrame, days: Sequence[date]) -> Days:
        """Return ``days`` and the day of each candle, in the form that the ledger expects."""
        return Days(days, rows.select(day_of(candles.interval, candles.phase).alias("day"))["day"])

    def terms(self, version: Mapping[str, Any], day: date) -> Terms:
        """Return the version's terms of trade on ``day``. WindowError if no risk parameters are stored for it."""
        risks = [row for row in self.risks.get(version["id"], ()) if row["effective_from"] <= day]
        if not risks:
            raise WindowError(
                f"{version['strategy_name']} has no risk parameters in force on {day}: run `algobot apply`, or "
                "materialise risk_parameters for the day from which they hold."
            )
        risk = risks[-1]
        stored = from_json(version["parameters"])
        rules = self.rules.get(version["symbol"])
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
            RuleTerms() if rules is None else rules_on(rules, version["symbol"], day),
            self._costs(day),
        )

    @cached_property
    def _costs(self) -> Callable[[date], CostTerms]:
        return cache(lambda day: costs_on(self.configurations, day))


def _strategy(row: Mapping[str, Any]) -> int:
    return int(row["strategy_id"])


def _by_minutes(version: Mapping[str, Any]) -> bool:
    """Return whether the strategy decides stops by the minutes inside its candles."""
    return from_json(version["parameters"]).stop_path is not None


def closing_days(store: Store, ended: pl.DataFrame) -> dict[int, date]:
    """Return, for each version in ``ended``, the day of the first candle that opens on or after the day it ended."""
    if ended.is_empty():
        return {}
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT v.id, (SELECT min(l.day) FROM lineage AS l
                              WHERE l.table_name = 'market_data' AND l.symbol = v.symbol AND l."interval" = v."interval"
                                AND l.rows > 0 AND l.day >= v.until AND v.until <= CASE v."interval"
                                    WHEN '3d' THEN l.day - 2 WHEN '1w' THEN l.day - 6
                                    WHEN '1M' THEN date_trunc('month', l.day)::date ELSE l.day END)
                 FROM unnest(%s::bigint[], %s::varchar[], %s::varchar[], %s::date[])
                      AS v (id, symbol, "interval", until)""",
            [ended[name].to_list() for name in ("id", "symbol", "interval", "until")],
        ).fetchall()
    return {version: day for version, day in rows if day is not None}


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

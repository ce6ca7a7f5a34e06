"""Checks of performance_metrics and backtest_results: both match the stored trades, to the last digit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
from psycopg import sql

from algobot_assets.audit.rules import figures as rules
from algobot_assets.audit.rules.check_run import DAY, CheckRun
from algobot_assets.audit.rules.ledger_terms import Settings
from algobot_assets.audit.rules.messages import at
from algobot_assets.audit.rules.trades import costs_of, notionals, with_terms
from algobot_assets.compute.ledger.state import read_state
from algobot_assets.defs.checks.factory import define_checks
from algobot_assets.schema.frames import PRICE, UTC, schema_of
from algobot_assets.schema.intervals import candle_end, day_of, floor_open, midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store.copy import copy_out, select_columns

PER_TRADE, CAPITAL, COUNTS, FIGURES = (
    "one_row_per_trade",
    "capital_adds_up",
    "counts_equal_trades",
    "figures_follow_from_trades",
)
_TRADE = (
    *("id", "day", "entry_time", "exit_time", "position_type", "entry_price", "exit_price", "quantity"),
    *("net_profit", "profit_pct"),
)
_FOLLOW = "total_return, annual_return, win_rate, avg_profit_pct, risk_reward_ratio and profit_factor match "


@define_checks(
    "performance_metrics",
    {
        PER_TRADE: "Every trade of a recorded day has a row.",
        CAPITAL: "final_capital = initial_capital + all net profits so far + the marked profit of open trades.",
        FIGURES: f"{_FOLLOW}the stored trades, computed independently.",
    },
)
def metrics(run: CheckRun) -> None:
    """Replay each strategy's trades in order, starting from the sums of those before the run's days."""
    accounts = _read_accounts(run)
    marks = _marks(run, accounts)
    stored = _stored_metrics(run)
    for account, of_account in zip(accounts, marks, strict=True):
        _metrics(run, account, of_account, stored)


def _metrics(
    run: CheckRun, account: _Account, marks: Sequence[rules.Mark], stored: Mapping[int, Mapping[str, Any]]
) -> None:
    for found in run.findings.values():
        found.seen += account.trades.height
    groups = groupby(account.trades.iter_rows(named=True), key=lambda trade: trade["slot"])
    for mark, (slot, trades) in zip(marks, groups, strict=True):
        end = candle_end(account.candles.interval, slot)
        lived = (end - account.start) / DAY
        for trade in trades:
            row = stored.get(trade["id"])
            what = f"{account.who}: of the trade of {at(trade['entry_time'])}"
            if row is None:
                run.findings[PER_TRADE].add(f"{what} there are no metrics. {rules.remedy(trade['day'])}")
                continue
            final = rules.units(row["final_capital"])
            near = 2 * mark.open_lots  # rounding a quantity to float64 may move a mark by one unit
            if mark.equity is not None and abs(final - mark.equity) > near:
                equity = Decimal(mark.equity).scaleb(-8)
                run.findings[CAPITAL].add(
                    f"{what} final_capital is {row['final_capital']}, but the account holds {equity}. "
                    f"{rules.remedy(trade['day'])}"
                )
            if rules.units(row["initial_capital"]) != account.initial:
                run.findings[CAPITAL].add(
                    f"{what} initial_capital is {row['initial_capital']}, which is not the strategy's initial balance. "
                    f"{rules.remedy(trade['day'])}"
                )
            wanted = rules.figures(mark.totals, account.initial, final, lived)
            for wrong in rules.unlike(row, wanted, lived):
                run.findings[FIGURES].add(f"{what} {wrong}. {rules.remedy(trade['day'])}")


def _marks(run: CheckRun, accounts: Sequence[_Account]) -> list[list[rules.Mark]]:
    """Return each account after each candle with closed trades. Prices are read only if trades stay open."""
    marks = [account.marks({}) for account in accounts]
    needed = [
        (n, account.candles.symbol, account.candles.interval, item.slot)
        for n, account in enumerate(accounts)
        for item, mark in zip(account.closes(), marks[n], strict=True)
        if mark.equity is None
    ]
    if not needed:
        return marks
    slots = [slot for *_, slot in needed]
    rows = run.rows(
        """SELECT w.n, m."timestamp", m.close
             FROM unnest(%s::int[], %s::varchar[], %s::varchar[], %s::timestamptz[])
                  AS w (n, symbol, "interval", "timestamp")
             JOIN market_data AS m USING (symbol, "interval", "timestamp")
            WHERE m."timestamp" BETWEEN %s AND %s""",
        (*(list(column) for column in zip(*needed, strict=True)), min(slots), max(slots)),
        {"n": pl.Int64(), "timestamp": UTC, "close": PRICE},
    )
    prices: dict[int, dict[datetime, int]] = {}
    for n, opened, close in rows.iter_rows():
        prices.setdefault(n, {})[opened] = rules.units(close)
    return [accounts[n].marks(prices[n]) if n in prices else of_account for n, of_account in enumerate(marks)]


@define_checks(
    "backtest_results",
    {
        CAPITAL: "final_capital = initial_capital + the sum of net_profit of all trades + open_profit, exactly.",
        COUNTS: "total_trades, winning_trades, losing_trades and ambiguous_stops match trade_history.",
        FIGURES: f"{_FOLLOW}the stored trades and capital, computed independently.",
    },
)
def backtests(run: CheckRun) -> None:
    """Check each strategy's days against sums of its trades computed on the server."""
    settings = Settings.read(run)
    rows_by_strategy = _read_rows(run, "backtest_results", list(schema_of("backtest_results")))
    before = totals_before(run)
    totals_by_day = _totals_by_day(run)
    for window in run.recorded:
        who = settings.who(window)
        initial = settings.strategies[window.strategy_id]["initial_balance"]
        rows = rows_by_strategy.get(window.strategy_id)
        if rows is None:
            continue
        totals = before.get(window.strategy_id, rules.Totals())
        by_day = totals_by_day.get(window.strategy_id, {})
        due = sorted(by_day)
        for row in rows.iter_rows(named=True):
            while due and due[0] <= row["day"]:
                totals += by_day[due.pop(0)]
            run.findings[CAPITAL].add(rules.unbalanced(who, row, totals))
            if row["initial_capital"] != initial:
                run.findings[CAPITAL].add(
                    f"{who}: initial_capital of {row['day']} is {row['initial_capital']} instead of {initial}. "
                    f"{rules.remedy(row['day'])}"
                )
            run.findings[COUNTS].add(rules.miscounted(who, row, totals))
            lived = (row["end_date"] - row["start_date"]) / DAY
            wanted = rules.figures(totals, rules.units(initial), rules.units(row["final_capital"]), lived)
            for wrong in rules.unlike(row, wanted, lived):
                run.findings[FIGURES].add(f"{who}: on {row['day']} {wrong}. {rules.remedy(row['day'])}")
        for found in run.findings.values():
            found.seen += rows.height


_SUMS = """count(*), count(*) FILTER (WHERE net_profit > 0),
           coalesce(sum(net_profit) FILTER (WHERE net_profit > 0), 0),
           coalesce(sum(net_profit) FILTER (WHERE net_profit <= 0), 0),
           coalesce(sum(profit_pct), 0), count(*) FILTER (WHERE ambiguous)"""


def totals_before(run: CheckRun) -> dict[int, rules.Totals]:
    """Sum up each strategy's trades before the run's days, on the server."""
    with run.store.transaction() as connection:
        rows = connection.execute(
            f"SELECT strategy_id, {_SUMS} FROM trade_history WHERE strategy_id = ANY(%s) AND day < %s GROUP BY 1",
            (_strategies(run), run.first),
        ).fetchall()
    return {strategy: _totals(row) for strategy, *row in rows}


def _strategies(run: CheckRun) -> list[int]:
    return [window.strategy_id for window in run.recorded]


def _totals_by_day(run: CheckRun) -> dict[int, dict[date, rules.Totals]]:
    found: dict[int, dict[date, rules.Totals]] = {}
    with run.store.transaction() as connection:
        rows = connection.execute(
            f"""SELECT strategy_id, day, {_SUMS} FROM trade_history
                 WHERE strategy_id = ANY(%s) AND day >= %s AND day < %s GROUP BY 1, 2""",
            (_strategies(run), run.first, run.end),
        )
        for strategy, day, *row in rows:
            found.setdefault(strategy, {})[day] = _totals(row)
    return found


def _read_rows(run: CheckRun, table: str, columns: Sequence[str]) -> dict[int, pl.DataFrame]:
    """Return the columns of the run's days of a ledger table, by strategy."""
    schema = schema_of(table, generated=True)
    sent = {"of_strategy": pl.Int64(), **{name: schema[name] for name in columns}}
    query = sql.SQL("SELECT {}, {} FROM {} WHERE {} = ANY(%s) AND t.day >= %s AND t.day < %s ORDER BY t.day").format(
        sql.SQL("h.strategy_id" if table == "performance_metrics" else "t.strategy_id"),
        select_columns({name: schema[name] for name in columns}, "t"),
        sql.SQL(
            "performance_metrics AS t JOIN trade_history AS h ON h.id = t.trade_id"
            if table == "performance_metrics"
            else f"{table} AS t"
        ),
        sql.SQL("h.strategy_id" if table == "performance_metrics" else "t.strategy_id"),
    )
    parameters = (_strategies(run), run.first, run.end)
    rows = run.store.retrying(lambda connection: copy_out(connection, query, parameters, sent), f"Checking {run.table}")
    parts = rows.partition_by("of_strategy", as_dict=True, include_key=False, maintain_order=True)
    return {strategy: part for (strategy,), part in parts.items()}


def _totals(row: Any) -> rules.Totals:
    closed, won, sum_won, sum_lost, percent, ambiguous = row
    return rules.Totals(closed, won, rules.units(sum_won), rules.units(sum_lost), rules.units(percent), ambiguous)


def _stored_metrics(run: CheckRun) -> dict[int, dict[str, Any]]:
    found = _read_rows(run, "performance_metrics", list(schema_of("performance_metrics")))
    return {row["trade_id"]: row for rows in found.values() for row in rows.iter_rows(named=True)}


def _read_accounts(run: CheckRun) -> list[_Account]:
    """Read the account of each strategy with recorded days; trades after the last of them do not count."""
    settings = Settings.read(run)
    trades = _read_rows(run, "trade_history", _TRADE)
    before = totals_before(run)
    last = {window.strategy_id: days["day"][-1] for window, days in run.recorded.items()}
    states = run.states("trade_history", last)
    none = pl.DataFrame(schema={name: schema_of("trade_history", generated=True)[name] for name in _TRADE})
    return [
        _Account.of(
            settings.who(window),
            settings.candles(run, window),
            settings,
            window,
            trades.get(window.strategy_id, none).filter(pl.col("day") <= last[window.strategy_id]),
            before.get(window.strategy_id, rules.Totals()),
            _open_lots(states.get(window.strategy_id)),
        )
        for window in run.recorded
    ]


@dataclass(frozen=True)
class _Account:
    """The trades of one strategy version in the run's days, in order of closing, with the account around them."""

    who: str
    candles: Window
    start: datetime
    initial: int
    before: rules.Totals
    trades: pl.DataFrame
    still_open: tuple[rules.OpenLot, ...]

    @classmethod
    def of(
        cls,
        who: str,
        candles: Window,
        settings: Settings,
        window: Window,
        trades: pl.DataFrame,
        before: rules.Totals,
        still_open: tuple[rules.OpenLot, ...],
    ) -> _Account:
        """Return the account of a strategy; ``trades``: the columns _TRADE of its trades in the run's days."""
        version = settings.strategies[window.strategy_id]
        slot = floor_open(candles.interval, candles.phase, "exit_time").alias("slot")
        trades = trades.with_columns(slot).sort("slot", "exit_time", "entry_time")
        if trades.height:
            entered = trades.select(day_of(candles.interval, candles.phase, "entry_time").min()).item()
            costs, limits = settings.costs(entered, window.end), settings.limits(window.strategy_id)
            trades = with_terms(trades, candles, costs, limits).sort("slot", "exit_time", "entry_time")
        start, initial = midnight(version["effective_from"]), rules.units(version["initial_balance"])
        return cls(who, candles, start, initial, before, trades, still_open)

    def marks(self, prices: Mapping[datetime, int]) -> list[rules.Mark]:
        """Return the account after each candle with closed trades; ``prices``: closes, needed while lots are open."""
        return list(rules.replay(self.initial, self.before, self.closes(), self.lots(), prices))

    def closes(self) -> Iterator[rules.Close]:
        """Yield the candles in which trades closed."""
        for slot, rows in groupby(self.trades.iter_rows(named=True), key=lambda trade: trade["slot"]):
            made = tuple((rules.units(row["net_profit"]), rules.units(row["profit_pct"])) for row in rows)
            yield rules.Close(slot, candle_end(self.candles.interval, slot), made)

    def lots(self) -> list[rules.OpenLot]:
        """Return every trade that was open during the run's days."""
        if self.trades.is_empty():  # no terms to look up
            return list(self.still_open)
        entry, _ = notionals(self.trades)
        costs = costs_of(entry, self.trades["entry_rate"].to_numpy())
        costs += costs_of(entry, self.trades["entry_bps"].to_numpy() / 1e4)
        rows = self.trades.select(
            "entry_time", "slot", pl.col("position_type") == "long", pl.col("quantity").cast(pl.Float64)
        ).iter_rows()
        closed = [
            rules.OpenLot(entered, left, long, quantity, int(notional), int(cost))
            for (entered, left, long, quantity), notional, cost in zip(rows, entry, costs, strict=True)
        ]
        return [*closed, *self.still_open]


def _open_lots(state: np.ndarray | None) -> tuple[rules.OpenLot, ...]:
    """Return the lots that are open in a ledger's state."""
    if state is None:
        return ()
    account = read_state(state)
    return tuple(
        rules.OpenLot(
            lot.entry_time,
            None,
            account.side == "long",
            float(lot.quantity),
            rules.units(lot.notional),
            rules.units(lot.entry_costs),
        )
        for lot in account.lots
    )

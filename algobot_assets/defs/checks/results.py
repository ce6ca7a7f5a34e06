"""Checks of performance_metrics and backtest_results: both match the stored trades, to the last digit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

import polars as pl

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
from algobot_assets.store.reader import read_window

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
    settings = Settings.read(run)
    for window, days in run.recorded():
        account = _Account.read(run, settings, window, days.select(pl.col("day").max()).item())
        _metrics(run, account)


def _metrics(run: CheckRun, account: _Account) -> None:
    stored = _stored_metrics(run, account.window)
    for found in run.findings.values():
        found.seen += account.trades.height
    marks = _marks(run, account)
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


def _marks(run: CheckRun, account: _Account) -> list[rules.Mark]:
    """Return the account after each candle with closed trades. Prices are read only if trades stay open."""
    closes, lots = list(account.closes()), account.lots()
    marks = list(rules.replay(account.initial, account.before, closes, lots, {}))
    needed = [item.slot for item, mark in zip(closes, marks, strict=True) if mark.equity is None]
    if not needed:
        return marks
    rows = run.rows(
        """SELECT "timestamp", close FROM market_data
            WHERE symbol = %s AND "interval" = %s AND "timestamp" BETWEEN %s AND %s AND "timestamp" = ANY(%s)""",
        (account.candles.symbol, account.candles.interval, needed[0], needed[-1], needed),
        {"timestamp": UTC, "close": PRICE},
    )
    prices = {opened: rules.units(close) for opened, close in rows.iter_rows()}
    return list(rules.replay(account.initial, account.before, closes, lots, prices))


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
    for window, _ in run.recorded():
        who = settings.who(window)
        initial = settings.strategies[window.strategy_id]["initial_balance"]
        rows = read_window(run.store, window)
        totals = totals_before(run, window.strategy_id, window.first)
        by_day = _totals_by_day(run, window)
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


def totals_before(run: CheckRun, strategy_id: int, day: date) -> rules.Totals:
    """Sum up a strategy's trades before ``day`` in one aggregate on the server."""
    with run.store.transaction() as connection:
        row = connection.execute(
            f"SELECT {_SUMS} FROM trade_history WHERE strategy_id = %s AND day < %s", (strategy_id, day)
        ).fetchone()
    return _totals(row)


def _totals_by_day(run: CheckRun, window: Window) -> dict[date, rules.Totals]:
    with run.store.transaction() as connection:
        rows = connection.execute(
            f"SELECT day, {_SUMS} FROM trade_history WHERE strategy_id = %s AND day >= %s AND day < %s GROUP BY day",
            (window.strategy_id, window.first, window.end),
        )
        return {day: _totals(row) for day, *row in rows}


def _totals(row: Any) -> rules.Totals:
    closed, won, sum_won, sum_lost, percent, ambiguous = row
    return rules.Totals(closed, won, rules.units(sum_won), rules.units(sum_lost), rules.units(percent), ambiguous)


def _stored_metrics(run: CheckRun, window: Window) -> dict[int, dict[str, Any]]:
    columns = list(schema_of("performance_metrics"))
    return {
        row["trade_id"]: row
        for month in window.pieces()
        for row in read_window(run.store, month, columns).iter_rows(named=True)
    }


@dataclass(frozen=True)
class _Account:
    """The trades of one strategy version in the run's days, in order of closing, with the account around them."""

    who: str
    window: Window
    candles: Window
    start: datetime
    initial: int
    before: rules.Totals
    trades: pl.DataFrame
    still_open: tuple[rules.OpenLot, ...]

    @classmethod
    def read(cls, run: CheckRun, settings: Settings, window: Window, last: date) -> _Account:
        """Read the account; ``window`` is of performance_metrics, recorded through ``last``."""
        version = settings.strategies[window.strategy_id]
        candles = settings.candles(run, window)
        ledger = Window("trade_history", window.first, last + DAY, strategy_id=window.strategy_id)
        trades = pl.concat([read_window(run.store, month, _TRADE) for month in ledger.pieces()])
        slot = floor_open(candles.interval, candles.phase, "exit_time").alias("slot")
        trades = trades.with_columns(slot).sort("slot", "exit_time", "entry_time")
        if trades.height:
            entered = trades.select(day_of(candles.interval, candles.phase, "entry_time").min()).item()
            costs, limits = settings.costs(entered, ledger.end), settings.limits(window.strategy_id)
            trades = with_terms(trades, candles, costs, limits).sort("slot", "exit_time", "entry_time")
        return cls(
            settings.who(window),
            window,
            candles,
            midnight(version["effective_from"]),
            rules.units(version["initial_balance"]),
            totals_before(run, window.strategy_id, window.first),
            trades,
            _open_lots(run, ledger, last),
        )

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


def _open_lots(run: CheckRun, ledger: Window, last: date) -> tuple[rules.OpenLot, ...]:
    recorded = run.handle().lineage(ledger.of(last, last + DAY)).get(last)
    if recorded is None or recorded.state_out is None:
        return ()
    account = read_state(recorded.state_out)
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

"""Trace one trade back to its signals, the strategy's inputs, its candles, and their source.

The strategy runs again from its recorded state, to show its inputs and to check its signal. Nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import psycopg
from psycopg.rows import dict_row

from algobot_assets.compute.carry import Days
from algobot_assets.compute.code_version import strategy_code_version
from algobot_assets.compute.strategies import get_strategy
from algobot_assets.compute.trace import Trace, trace
from algobot_assets.declared.parameters import from_json
from algobot_assets.errors import AlgobotError, WindowError
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import candle_end, day_of, days_between, floor_open
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.schema.windows import Window
from algobot_assets.store.archive import files_of, hold
from algobot_assets.store.connection import Store

DAY = timedelta(days=1)
INDICATORS = ("ema", "rsi", "atr", "vwap")


@dataclass(frozen=True)
class Input:
    """A series that the strategy used: its label, its name in the rule, and its values.

    The values are those at the deciding candle and at the candle before; None if missing.
    """

    label: str
    name: str | None
    value: float | None
    previous: float | None


@dataclass(frozen=True)
class Decision:
    """The signal of one candle.

    ``signal``: the stored signal; ``recomputed``: the signal of the strategy run again from its recorded state.
    ``rule``: the condition that decided. ``problem``: a message if the two differ or the signal cannot be recomputed.
    """

    step: str
    opened: datetime
    decided: datetime
    previous: datetime | None
    signal: int | None
    recomputed: int | None
    rule: str | None
    indicators: dict[str, float | None]
    inputs: tuple[Input, ...]
    problem: str | None


@dataclass(frozen=True)
class Candle:
    """A candle and its source.

    ``edited``: its day was changed by hand after it was fetched. ``archive_file``: the file of an archived
    candle, whose row has this ``id``, symbol, interval and ``opened``.
    """

    steps: tuple[str, ...]
    opened: datetime
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    close: Decimal | None
    volume: Decimal | None
    source_kind: str | None
    source_name: str | None
    source_sha256: str | None
    requested_at: datetime | None
    id: int | None
    archive_file: str | None
    edited: bool


@dataclass(frozen=True)
class Explanation:
    """One trade and its origin. ``trade``: its row, with its strategy; ``closed_because``: the reason as a sentence."""

    trade: dict[str, Any]
    closed_because: str
    decisions: tuple[Decision, ...]
    candles: tuple[Candle, ...]

    @property
    def problems(self) -> list[str]:
        """The contradictions found, as messages."""
        return [decision.problem for decision in self.decisions if decision.problem]


def explain_trade(store: Store, trade_id: int) -> Explanation:
    """Explain the trade with this id. WindowError if it does not exist."""
    trade = _trade(store, trade_id)
    legs = _legs(store, trade)
    market = _Market(store, trade["symbol"], trade["interval"])
    candles: dict[datetime, Candle] = {}
    for leg in legs:
        known = candles.get(leg["opened"])
        steps = (*(known.steps if known else ()), leg["step"])
        edited = known.edited if known else market.is_edited(leg["opened"])
        candles[leg["opened"]] = Candle(steps, edited=edited, **{k: leg[k] for k in _CANDLE})
    decisions = tuple(_decision(market, trade, leg) for leg in legs if leg["step"].endswith("signal"))
    return Explanation(trade, _why(trade, legs[-1]), decisions, tuple(candles.values()))


_CANDLE = ("opened", "open", "high", "low", "close", "volume", "source_kind", "source_name", "source_sha256",
           "requested_at", "id", "archive_file")  # fmt: skip


def _trade(store: Store, trade_id: int) -> dict[str, Any]:
    """Read the trade's row with its strategy and the risk parameters in force at its entry."""
    with store.transaction() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        row = cursor.execute(
            """SELECT t.id, s.strategy_name, s.version, s.strategy_type, s.parameters::text AS parameters,
                      t.strategy_id, t.symbol, t."interval", t.position_type, t.quantity, t.entry_time, t.entry_price,
                      t.exit_time, t.exit_price, t.exit_reason, t.ambiguous, t.gross_profit, t.commission_fee,
                      t.slippage_cost,
                      t.net_profit, t.profit_pct, t.duration, t.entry_signal_time, t.exit_signal_time, t.day,
                      r.stop_loss_percentage, r.take_profit_percentage
                 FROM trade_history AS t JOIN strategies AS s ON s.id = t.strategy_id
                 LEFT JOIN LATERAL (
                      SELECT * FROM risk_parameters AS r WHERE r.strategy_id = t.strategy_id
                         AND r.effective_from <= candle_day(t.symbol, t."interval", t.entry_time)
                       ORDER BY r.effective_from DESC LIMIT 1) AS r ON true
                WHERE t.id = %s""",
            (trade_id,),
        ).fetchone()
        if row is not None:
            return row
        ((first, last, count),) = connection.execute("SELECT min(id), max(id), count(*) FROM trade_history").fetchall()
    if not count:
        raise WindowError(f"There is no trade {trade_id}: no trades are stored yet. Run `algobot backfill` first.")
    raise WindowError(f"There is no trade {trade_id}: the {count:,} stored trades have ids from {first} to {last}.")


def _legs(store: Store, trade: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the steps of the trade. Rows of archived candles come from their files."""
    with store.transaction() as connection:
        hold(connection, *MONTHLY)
        cursor = connection.cursor(row_factory=dict_row)
        legs = cursor.execute("SELECT * FROM trade_trace WHERE trade_id = %s", (trade["id"],)).fetchall()
        for leg in legs:
            leg["id"] = leg.pop("market_data_id")
            if leg["archive_file"] is not None:
                leg["archive_file"] = store.archive.shown(leg["archive_file"])
                leg |= _archived(store, connection, trade, leg)
    return legs


def _archived(
    store: Store, connection: psycopg.Connection, trade: dict[str, Any], leg: dict[str, Any]
) -> dict[str, Any]:
    """Read candle, indicators and signal of a step whose month is archived."""
    instant = timedelta(microseconds=1)
    # the view returns grid points, but around outages the candle of the exit may open off the grid
    lo, hi = leg["opened"], (trade["exit_time"] if leg["step"] == "exit" else leg["opened"]) + instant
    found: dict[str, Any] = {}
    wanted: dict[str, tuple[str, ...]] = {"market_data": ("timestamp", "id", "open", "high", "low", "close", "volume")}
    wanted |= {"indicators": INDICATORS, "signals": ("signal",)}
    for table, columns in wanted.items():
        strategies = [trade["strategy_id"]] if table == "signals" else [0]
        files = files_of(connection, table, trade["symbol"], trade["interval"], lo, hi, strategies)
        rows = store.archive.rows(files, table, lo, hi, columns)
        found |= rows.row(-1, named=True) if rows.height else dict.fromkeys(columns)
    opened = found.pop("timestamp")
    return found | ({"opened": opened} if opened is not None else {})


def _why(trade: dict[str, Any], leg: dict[str, Any]) -> str:
    """Return the reason why the trade closed, as a sentence."""
    reason, long = trade["exit_reason"], trade["position_type"] == "long"
    if reason == "signal":
        said = "sell" if long else "buy"
        return f"the signal of {trade['exit_signal_time']:%Y-%m-%d %H:%M} said {said}; filled at the next open"
    if reason == "superseded":
        return "its strategy version was replaced or retired; closed at the next open"
    percent = trade["take_profit_percentage" if reason == "take_profit" else "stop_loss_percentage"]
    level = {
        "stop_loss": f"the stop, {_plain(percent)} % from the entry",
        "take_profit": f"the target, {_plain(percent)} % from the entry",
        "collateral": "twice the entry price, where the collateral of a short is used up",
    }[reason]
    inside = trade["exit_time"].microsecond > 0  # the last millisecond of a candle or minute
    if not inside:
        return f"the {'candle' if trade['exit_time'] == leg['opened'] else 'minute'} opened at or beyond {level}"
    side = "low" if long == (reason == "stop_loss") else "high"
    sentence = f"the candle's {side} {_plain(leg[side])} reached {level}"
    return f"{sentence}; it spans the target too, and the stop is taken first" if trade["ambiguous"] else sentence


def _plain(number: Decimal | None) -> str:
    return "an unknown number" if number is None else f"{number.normalize():f}"


@dataclass(frozen=True)
class _Market:
    """One market's stored candles and their days."""

    store: Store
    symbol: str
    interval: str

    @property
    def candles(self) -> Window:
        """A window of the market; set its days with ``of``."""
        table = Table(self.store, "market_data", date(2000, 1, 1), date(2000, 1, 2))
        return table.window(symbol=self.symbol, interval=self.interval)

    def day(self, opened: datetime) -> date:
        """Return the day to which a candle belongs."""
        frame = pl.DataFrame({"timestamp": [opened]}, schema={"timestamp": pl.Datetime("us", "UTC")})
        day: date = frame.select(day_of(self.interval, self.candles.phase)).item()
        return day

    def end(self, opened: datetime) -> datetime:
        """Return the end of a candle, at which its values are known."""
        frame = pl.DataFrame({"timestamp": [opened]}, schema={"timestamp": pl.Datetime("us", "UTC")})
        return candle_end(self.interval, frame.select(floor_open(self.interval, self.candles.phase)).item())

    def before(self, opened: datetime) -> datetime | None:
        """Return the open of the last stored candle before ``opened``."""
        with self.store.transaction() as connection:
            hold(connection, "market_data")
            rows = connection.execute(
                """SELECT "timestamp" FROM market_data WHERE symbol = %s AND "interval" = %s AND "timestamp" < %s
                    ORDER BY "timestamp" DESC LIMIT 1""",
                (self.symbol, self.interval, opened),
            ).fetchall()
            previous: datetime | None = rows[0][0] if rows else None
            files = files_of(connection, "market_data", self.symbol, self.interval, previous, opened)
            if files:
                archived = self.store.archive.rows(files[-1:], "market_data", None, opened, ["timestamp"])
                return max(archived["timestamp"].to_list(), default=None)
        return previous

    def is_edited(self, opened: datetime) -> bool:
        """Return whether the candle's day differs from its source."""
        day = self.day(opened)
        item = self.recorded(self.candles.of(day, day + DAY)).get(day)
        return item is not None and (item.dirty or item.inputs != item.output)

    def recorded(self, window: Window) -> dict[date, Any]:
        """Return the lineage of a window by day."""
        return Table(self.store, window.table, window.first, window.end).lineage(window)

    def read(self, window: Window, columns: list[str]) -> pl.DataFrame:
        """Read the rows of a window."""
        return Table(self.store, window.table, window.first, window.end).read(window, columns)


def _decision(market: _Market, trade: dict[str, Any], leg: dict[str, Any]) -> Decision:
    opened = leg["opened"]
    previous = market.before(opened)
    found: Trace | None = None
    candle = 0
    problem: str | None = None
    try:
        found, candle = _traced(market, trade, opened, previous or opened)
    except AlgobotError as error:
        problem = f"The signal could not be computed again. {error}"
    recomputed, rule = None, None
    inputs: tuple[Input, ...] = ()
    if found is not None:
        recomputed = found.signal[candle]
        decided_by = found.decided_by(candle)
        rule = None if decided_by is None else found.rules[decided_by].text
        inputs = tuple(
            Input(item.label, item.name, item.values[candle], item.values[candle - 1] if candle else None)
            for item in found.inputs
        )
        if recomputed != leg["signal"]:
            stored = "none" if leg["signal"] is None else leg["signal"]
            day = market.day(opened)
            problem = (
                f"The stored signal of {opened:%Y-%m-%d %H:%M} is {stored}, and computed again it is {recomputed}: "
                f"see `algobot status`, and `algobot verify {day}` for what differs."
            )
    values = {name: leg[name] for name in INDICATORS}
    return Decision(
        leg["step"], opened, market.end(opened), previous, leg["signal"], recomputed, rule, values, inputs, problem
    )


def _traced(market: _Market, trade: dict[str, Any], opened: datetime, previous: datetime) -> tuple[Trace, int]:
    """Run the strategy over the days of both candles, from the state before them; return the candle's index as well."""
    kind = trade["strategy_type"]
    first, end = market.day(previous), market.day(opened) + DAY
    window = market.candles.of(first, end)
    signals = Window("signals", first - DAY, end, window.symbol, window.interval, trade["strategy_id"], window.phase)
    recorded = market.recorded(signals)
    begin = Table(market.store, "market_data", first, end).first_day(window)
    before = recorded.get(first - DAY)
    if before is None and begin is not None and begin < first:
        raise WindowError(
            f"The strategy's state of {first - DAY} is not recorded: materialise signals of {first - DAY} first."
        )
    known = recorded.get(end - DAY)
    if known is not None and known.code_version != strategy_code_version(kind):
        raise WindowError(f"The code of strategy {kind} has changed since: run `algobot refresh` first.")
    prices = market.read(window, ["timestamp", "open", "high", "low", "close", "volume"])
    columns = list(get_strategy(kind).indicators)
    values = None
    if columns:
        of_values = Window("indicators", first, end, window.symbol, window.interval, 0, window.phase)
        values = market.read(of_values, ["timestamp", *columns])
    days = Days(days_between(first, end), prices.select(day_of(window.interval, window.phase).alias("day"))["day"])
    candle = prices["timestamp"].index_of(opened)
    if candle is None:
        raise WindowError(f"The candle of {opened:%Y-%m-%d %H:%M} is no longer stored.")
    parameters = from_json(trade["parameters"]).parameters
    found = trace(kind, prices, values, parameters, days, before.state_out if before else None)
    return found, candle

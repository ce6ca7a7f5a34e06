"""Compare two strategies, or two versions of one: find the first candle, signal and trade that differ, and the cause.

The cause is data, parameters or code. Only stored rows are read; nothing is recomputed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from algobot_assets.client import ledger_queries, queries
from algobot_assets.client.cache import FrameCache
from algobot_assets.errors import WindowError
from algobot_assets.schema.intervals import midnight
from algobot_assets.store import catalogue
from algobot_assets.store.catalogue import StoredVersion
from algobot_assets.store.connection import Store

#: Columns by which two trades are compared.
TRADE = ("position_type", "entry_time", "entry_price", "quantity", "exit_time", "exit_price",
         "exit_reason", "net_profit")  # fmt: skip
FIGURES = ("final_capital", "total_return", "max_drawdown", "sharpe_ratio", "win_rate", "profit_factor", "total_trades")
_CANDLE = ("timestamp", "open", "high", "low", "close", "volume")
_DECLARED = ("strategy_type", "symbol", "interval", "initial_balance", "risk_per_trade", "effective_from")
_RISK = ("max_risk_per_trade", "max_open_trades", "stop_loss_percentage", "take_profit_percentage")
DATA, PARAMETER, CODE = "data", "parameter", "code"


@dataclass(frozen=True)
class Cause:
    """One difference between the two: its kind (data, parameter or code), its name, and both values as text."""

    kind: str
    name: str
    a: str
    b: str


@dataclass(frozen=True)
class FirstDifference:
    """The first row that differs.

    `at`: its time, None if no row differs; `a`, `b`: its values, None if that side lacks the row; `compared`: number of
    rows compared; `differing`: number of rows that differ.
    """

    at: datetime | None
    a: dict[str, Any] | None
    b: dict[str, Any] | None
    compared: int
    differing: int


@dataclass(frozen=True)
class Comparison:
    """The differences between two strategy versions, and their causes.

    `candle`, `signal`, `trade`: the first difference, None if the two have no time in common. `days`: the days [first,
    end) on which both ledgers ran, or None. `figures`: the newest values of both by column of backtest_results.
    """

    a: StoredVersion
    b: StoredVersion
    causes: tuple[Cause, ...]
    days: tuple[date, date] | None
    candle: FirstDifference | None
    signal: FirstDifference | None
    trade: FirstDifference | None
    figures: dict[str, tuple[Any, Any]]
    curves: tuple[pl.DataFrame, pl.DataFrame]


def choose(store: Store, first: str, second: str | None) -> tuple[StoredVersion, StoredVersion]:
    """Return the two versions to compare.

    `first` and `second` are NAME (the version in force) or NAME@2 (version 2). Without `second`, `first` is paired with
    the version before it. WindowError if a version is not stored, or if both are the same.
    """
    stored, today = store.retrying(lambda c: (catalogue.versions(c), catalogue.now(c).date()), "Reading the strategies")

    def version(text: str) -> StoredVersion:
        name, at, number = text.partition("@")
        if at and not number.isdigit():
            raise WindowError(f"{text!r} is not a version. Versions are written like {name}@2.")
        return catalogue.choose_version(stored, name, int(number) if at else None, today)

    if second is not None:
        a, b = version(first), version(second)
    else:
        b = version(first)
        before = [item for item in stored if item.name == b.name and item.version < b.version]
        if not before:
            raise WindowError(f"{b} has no earlier version. Name a second strategy or version to compare it with.")
        a = before[-1]
    if a == b:
        raise WindowError(f"Both are {a}. Name two versions ({a.name}@1 {a.name}@2) or two strategies.")
    return a, b


def compare(store: Store, a: StoredVersion, b: StoredVersion) -> Comparison:
    """Find the first differences between two versions, and their causes."""
    results = [_ledger(store, "backtest_results", item) for item in (a, b)]
    days = _common(results)
    last = [dict.fromkeys(FIGURES) if frame.is_empty() else frame.row(-1, named=True) for frame in results]
    same = (a.symbol, a.interval) == (b.symbol, b.interval)
    return Comparison(
        a=a,
        b=b,
        causes=tuple(_causes(store, a, b)),
        days=days,
        candle=None if same or days is None else _candle(store, a, b, days),
        signal=_signal(store, a, b),
        trade=None if days is None else _trade(store, a, b, days),
        figures={name: (last[0][name], last[1][name]) for name in FIGURES},
        curves=(_curve(results[0]), _curve(results[1])),
    )


def _curve(results: pl.DataFrame) -> pl.DataFrame:
    return results.select("day", "initial_capital", "final_capital")


def _ledger(store: Store, table: str, item: StoredVersion) -> pl.DataFrame:
    return ledger_queries.read_ledger(store, table, item.name, item.version, None, None).frame


def _common(results: list[pl.DataFrame]) -> tuple[date, date] | None:
    """Return the days [first, end) on which both have results."""
    both = results[0].select("day").join(results[1].select("day"), on="day")["day"]
    days: list[date] = both.to_list()
    return (min(days), max(days) + timedelta(days=1)) if days else None


def _causes(store: Store, a: StoredVersion, b: StoredVersion) -> Iterator[Cause]:
    strategies = {
        row["id"]: row for row in ledger_queries.read_declared(store, "strategies").frame.iter_rows(named=True)
    }
    one, other = strategies[a.id], strategies[b.id]
    for name in _DECLARED:
        if one[name] != other[name]:
            kind = {"strategy_type": CODE, "symbol": DATA, "interval": DATA}.get(name, PARAMETER)
            yield Cause(kind, name, _text(one[name]), _text(other[name]))
    yield from _changed("", json.loads(one["parameters"]), json.loads(other["parameters"]))
    risks = ledger_queries.read_declared(store, "risk_parameters").frame
    newest = [
        (risks.filter(pl.col("strategy_id") == item.id).tail(1).select(_RISK).to_dicts() or [{}])[0] for item in (a, b)
    ]
    yield from _changed("risk: ", *newest)
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT table_name, strategy_id, string_agg(DISTINCT code_version, ', ' ORDER BY code_version)
                 FROM lineage WHERE strategy_id = ANY(%s) AND table_name IN ('signals', 'trade_history')
                GROUP BY 1, 2 ORDER BY 1""",
            ([a.id, b.id],),
        ).fetchall()
    code = {(table, strategy): version for table, strategy, version in rows}
    for table in ("signals", "trade_history"):
        versions = code.get((table, a.id), "none"), code.get((table, b.id), "none")
        # strategies of different types have different code anyway
        if versions[0] != versions[1] and one["strategy_type"] == other["strategy_type"]:
            yield Cause(CODE, f"code of {table}", *versions)


def _changed(prefix: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Cause]:
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield Cause(PARAMETER, prefix + name, _text(one.get(name)), _text(other.get(name)))


def _text(value: Any) -> str:
    return "-" if value is None else f"{value.normalize():f}" if hasattr(value, "normalize") else str(value)


def _candle(store: Store, a: StoredVersion, b: StoredVersion, days: tuple[date, date]) -> FirstDifference:
    bounds = midnight(days[0]), midnight(days[1])
    frames = [
        queries.read_by_candle(store, FrameCache(0), ("market_data",), i.symbol, i.interval, *bounds, _CANDLE).frame
        for i in (a, b)
    ]
    return _first(frames, "timestamp", _CANDLE[1:])


def _signal(store: Store, a: StoredVersion, b: StoredVersion) -> FirstDifference | None:
    """Compare all signals that both have: a version also has signals before its effective date."""
    frames = [
        queries.read_signals(store, FrameCache(0), i.symbol, i.interval, i.name, i.version, None, None).frame.select(
            "timestamp", "signal"
        )
        for i in (a, b)
    ]
    lo = max((frame["timestamp"][0] for frame in frames if frame.height), default=None)
    if not all(frame.height for frame in frames):
        return None
    hi = min(frame["timestamp"][-1] for frame in frames)
    frames = [frame.filter(pl.col("timestamp").is_between(lo, hi)) for frame in frames]
    return _first(frames, "timestamp", ("signal",)) if all(frame.height for frame in frames) else None


def _trade(store: Store, a: StoredVersion, b: StoredVersion, days: tuple[date, date]) -> FirstDifference:
    """Compare the trades that closed on common days, by entry."""
    inside = pl.col("day").is_between(*days, closed="left")
    frames = [_ledger(store, "trade_history", i).filter(inside).select("id", *TRADE).sort("entry_time") for i in (a, b)]
    return _first(frames, "entry_time", tuple(name for name in TRADE if name != "entry_time"))


def _first(frames: list[pl.DataFrame], key: str, values: tuple[str, ...]) -> FirstDifference:
    """Return the first row that only one frame has, or whose values differ."""
    one, other = frames
    both = one.with_columns(pl.lit(True).alias("here")).join(
        other.with_columns(pl.lit(True).alias("here")), on=key, how="full", coalesce=True, suffix="_b"
    )
    unequal = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_b")) for name in (*values, "here"))
    apart = both.filter(unequal).sort(key)
    if apart.is_empty():
        return FirstDifference(None, None, None, both.height, 0)
    at = apart[key][0]
    a, b = (next(frame.filter(pl.col(key) == at).iter_rows(named=True), None) for frame in frames)
    return FirstDifference(at, a, b, both.height, apart.height)

"""Rules for stored trades: order in time, fills at candles, costs of both sides, the limit of open trades.

Pure functions on a frame of one strategy's trades: the columns of trade_history, those that describe the market around
a trade (entry_open, decided, between, exit_open; see ``defs.checks.trades``), and the terms of ``with_terms``. Money is
compared in whole units of 1e-8, with the tolerance ``_NEAR``: a float64 quantity may move a notional by one unit.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
import polars as pl

from algobot_assets.audit.rules.figures import remedy
from algobot_assets.audit.rules.messages import at
from algobot_assets.compute.units import to_units
from algobot_assets.schema.intervals import day_of
from algobot_assets.schema.windows import Window

UNIT = 1e8
_NEAR = 2.0


def with_terms(trades: pl.DataFrame, candles: Window, costs: pl.DataFrame, limits: pl.DataFrame) -> pl.DataFrame:
    """Add entry_rate, entry_bps, exit_rate, exit_bps and max_open, as in force on the day of each fill.

    ``costs``: day (effective from), rate, bps. ``limits``: day, max_open.
    """
    frame = trades.with_columns(day_of(candles.interval, candles.phase, "entry_time").alias("entry_day"))
    for side, day in (("entry", "entry_day"), ("exit", "day")):
        named = costs.select(pl.col("day").alias("since"), **{f"{side}_rate": "rate", f"{side}_bps": "bps"})
        frame = frame.sort(day).join_asof(named.sort("since"), left_on=day, right_on="since").drop("since")
    frame = frame.sort("entry_day").join_asof(
        limits.select("max_open", since="day").sort("since"), left_on="entry_day", right_on="since"
    )
    return frame.drop("since").sort("entry_time")


def notionals(trades: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return entry and exit notional of each trade, r8(quantity x price), in units."""
    quantity = trades["quantity"].cast(pl.Float64).to_numpy()
    entry, exit_ = (to_units(trades[name]) for name in ("entry_price", "exit_price"))
    return np.rint(quantity * (entry / UNIT) * UNIT), np.rint(quantity * (exit_ / UNIT) * UNIT)


def costs_of(notional: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return r8(notional x rate) in units."""
    costs: np.ndarray = np.rint(notional / UNIT * rate * UNIT)
    return costs


def misplaced(who: str, trades: pl.DataFrame, oldest: datetime | None) -> list[str]:
    """Return a message for each trade that does not follow its candles and signals.

    ``oldest``: the first stored candle of the market. Decisions before it cannot be checked.
    """
    long = pl.col("position_type") == "long"
    wanted = pl.when(long).then(1).otherwise(-1)
    stored = pl.col("entry_signal_time") >= (oldest or datetime.max.replace(tzinfo=UTC))
    by_order = pl.col("exit_reason").is_in(["signal", "superseded"])
    wrong = {
        "ends no later than it begins": pl.col("exit_time") <= pl.col("entry_time"),
        "was decided no earlier than it was entered": pl.col("entry_signal_time") >= pl.col("entry_time"),
        "was ended by a signal that is not before its exit": (pl.col("exit_reason") == "signal")
        & ~(pl.col("exit_signal_time") < pl.col("exit_time")).fill_null(False),
        "was entered where no candle opens": stored & pl.col("entry_open").is_null(),
        "was not entered at the open of its candle": stored & (pl.col("entry_open") != pl.col("entry_price")),
        "was decided where its strategy gave no such signal": stored & pl.col("decided").ne_missing(wanted),
        "was not entered at the first candle after the decision": stored & pl.col("between"),
        "was ended at another price than the open of its exit's candle": stored
        & by_order
        & pl.col("exit_open").ne_missing(pl.col("exit_price")),
    }
    return [
        f"{who}: the {kind} trade of {at(entry)} {what}. {remedy(day)}"
        for what, condition in wrong.items()
        for kind, entry, day in trades.filter(condition).select("position_type", "entry_time", "day").iter_rows()
    ]


def mischarged(who: str, trades: pl.DataFrame) -> list[str]:
    """Return a message for each trade whose commission or slippage differs from that of both sides at their terms."""
    entry, exit_ = notionals(trades)
    sentences = []
    for column, term, scale in (("commission_fee", "rate", 1.0), ("slippage_cost", "bps", 1e4)):
        rates = [trades[f"{side}_{term}"].to_numpy() / scale for side in ("entry", "exit")]
        wanted = costs_of(entry, rates[0]) + costs_of(exit_, rates[1])
        sentences += _off(who, trades, column, wanted, "both sides at the terms in force cost")
    return sentences


def misadded(who: str, trades: pl.DataFrame) -> list[str]:
    """Return a message for each trade whose profits do not match its prices and costs."""
    entry, exit_ = notionals(trades)
    side = np.where((trades["position_type"] == "long").to_numpy(), 1.0, -1.0)
    gross, net, fee, slippage = (
        to_units(trades[name]) for name in ("gross_profit", "net_profit", "commission_fee", "slippage_cost")
    )
    hours = (trades["exit_time"] - trades["entry_time"]).dt.total_milliseconds().to_numpy() / 3_600_000.0
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = 100.0 * net / entry * UNIT
    return [
        *_off(who, trades, "net_profit", gross - fee - slippage, "gross_profit less its costs is", near=0.0),
        *_off(who, trades, "gross_profit", side * (exit_ - entry), "its prices and quantity give"),
        *_off(who, trades, "profit_pct", percent, "net_profit on the entry's notional is"),
        *_off(who, trades, "duration", hours * UNIT, "the hours from entry to exit are"),
    ]


def _off(who: str, trades: pl.DataFrame, column: str, wanted: np.ndarray, why: str, near: float = _NEAR) -> list[str]:
    stored = to_units(trades[column])
    wrong = ~(np.abs(stored - wanted) <= near + 1e-12 * np.abs(wanted))
    if not wrong.any():
        return []
    rows = trades.select("entry_time", "day", column).filter(pl.Series(wrong)).iter_rows()
    return [
        f"{who}: {column} of the trade of {at(entry)} is {value}, but {why} {right / UNIT:.8f}. {remedy(day)}"
        for (entry, day, value), right in zip(rows, wanted[wrong], strict=True)
    ]


def crowded(
    who: str, trades: pl.DataFrame, still_open: Iterable[tuple[datetime, str]], max_open_now: int | None
) -> list[str]:
    """Return a message for each entry that exceeded the limit of open trades, or opened the opposite side.

    ``still_open``: entry time and side of lots that have not closed; ``max_open_now``: their limit.
    """
    forever = datetime.max.replace(tzinfo=UTC)
    lots = [*trades.select("entry_time", "exit_time", "position_type", "max_open", "day").iter_rows()]
    lots += [(entry, forever, side, max_open_now, entry.date()) for entry, side in still_open]
    sentences = []
    held: list[tuple[datetime, str]] = []
    for entry, leave, side, limit, day in sorted(lots, key=lambda lot: lot[0]):
        while held and held[0][0] <= entry:
            heapq.heappop(held)
        heapq.heappush(held, (leave, side))
        if limit is not None and len(held) > limit:
            sentences.append(
                f"{who}: with the {side} trade of {at(entry)} {len(held)} are open, and max_open_trades is {limit}. "
                f"{remedy(day)}"
            )
        elif len({kind for _, kind in held}) > 1:
            sentences.append(f"{who}: at {at(entry)} a long and a short are open at once. {remedy(day)}")
    return sentences

"""The rules of the checks as pure functions on frames: what is right passes, what is wrong is named."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from algobot_assets.audit.rules import candles as rules_candles
from algobot_assets.audit.rules import figures as rules_figures
from algobot_assets.audit.rules import trades as rules_trades
from algobot_assets.audit.rules.check_run import day_sql, slot_sql
from algobot_assets.audit.rules.figures import UNIT, Close, OpenLot, Totals
from algobot_assets.audit.rules.look_ahead import cut_points, look_ahead
from algobot_assets.audit.rules.rows import unlike_candles
from algobot_assets.schema.frames import PRICE, QUANTITY
from algobot_assets.schema.frames import UTC as TIME
from algobot_assets.schema.intervals import INTERVALS, day_of, expected_opens, floor_open, midnight
from algobot_assets.schema.windows import Window

START = datetime(2024, 1, 1, tzinfo=UTC)


def candle(**numbers: str) -> pl.DataFrame:
    """One good candle but for ``numbers``."""
    row = {"open": "10", "high": "12", "low": "9", "close": "11", "volume": "5", "quote_asset_volume": "50"}
    row |= {"taker_buy_base": "2", "taker_buy_quote": "20", **numbers}
    columns = {name: pl.Series([Decimal(value)], dtype=QUANTITY) for name, value in row.items()}
    return pl.DataFrame({"timestamp": pl.Series([START], dtype=TIME), **columns, "trades": [1]})


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        ({"high": "10.9"}, "its high is below"),
        ({"low": "10.5"}, "its low is above"),
        ({"open": "0", "low": "0"}, "a price is not above 0"),
        ({"taker_buy_quote": "-1"}, "a volume is negative"),
        ({"taker_buy_base": "5.00000001"}, "takers bought more"),
    ],
)
def test_each_inconsistency_of_a_candle_has_its_message(numbers: dict[str, str], what: str):
    window = Window("market_data", date(2024, 1, 1), date(2024, 1, 2), "BTCUSDT", "1h")
    assert rules_candles.inconsistent(window, candle()) == []
    (sentence,) = rules_candles.inconsistent(window, candle(**numbers))
    assert what in sentence and "BTCUSDT 1h" in sentence and "2024-01-01" in sentence


def market(interval: str, phase: int | None = None) -> tuple[Window, pl.DataFrame, pl.DataFrame]:
    """A window of 90 days, its recorded days, and every candle of it."""
    window = Window("market_data", date(2024, 1, 1), date(2024, 3, 31), "BTCUSDT", interval, 0, phase)
    days = [window.first + timedelta(days=i) for i in range(90)]
    through = [midnight(day + timedelta(days=1)) for day in days]
    lo, hi = window.bounds
    opens = expected_opens(interval, lo, hi, phase).to_frame("timestamp")
    recorded = pl.DataFrame({"day": days, "complete_through": through}, {"day": pl.Date, "complete_through": TIME})
    return window, recorded, opens


NO_GAPS = pl.DataFrame(schema={"first_open": TIME, "end_open": TIME})


@pytest.mark.parametrize(("interval", "phase"), [(name, 1 if name == "3d" else None) for name in INTERVALS[5:]])
def test_absence_follows_each_intervals_calendar(interval: str, phase: int | None):
    window, days, opens = market(interval, phase)
    wanted = rules_candles.expected(window, days)
    assert wanted["timestamp"].equals(opens["timestamp"])
    assert rules_candles.unrecorded(window, wanted, opens, NO_GAPS) == []
    assert rules_candles.crowded(window, opens) == [] == rules_candles.unclosed(window, opens, days)
    gone = opens["timestamp"][1]
    without = opens.filter(pl.col("timestamp") != gone)
    (sentence,) = rules_candles.unrecorded(window, wanted, without, NO_GAPS)
    assert f"1 candle is absent at {gone:%Y-%m-%d %H:%M} UTC" in sentence
    gap = pl.DataFrame({"first_open": [gone], "end_open": [gone + timedelta(seconds=1)]}, schema=NO_GAPS.schema)
    assert rules_candles.unrecorded(window, wanted, without, gap) == []
    late = pl.DataFrame({"timestamp": [gone + timedelta(minutes=7)]}, schema=opens.schema)
    off_grid = pl.concat([without, late])  # as published around outages
    assert rules_candles.unrecorded(window, wanted, off_grid, NO_GAPS) == []
    both = pl.concat([opens, late])
    assert "2 candles lie between" in rules_candles.crowded(window, both)[0]
    partial = days.with_columns(pl.col("complete_through") - pl.duration(seconds=1))
    assert len(rules_candles.unclosed(window, opens, partial)) > 0


GRIDS = [(name, None) for name in INTERVALS if name != "3d"] + [("3d", phase) for phase in range(3)]


@pytest.mark.parametrize(("interval", "phase"), GRIDS)
def test_days_and_grids_in_sql_are_those_of_the_schema(store, interval: str, phase: int | None):
    times = [START + timedelta(days=5 * i, hours=7 * i, minutes=13 * i, seconds=i) for i in range(40)]
    frame = pl.DataFrame({"timestamp": times}, schema={"timestamp": TIME}).select(
        floor_open(interval, phase).alias("slot"), day_of(interval, phase).alias("day")
    )
    with store.transaction() as connection:
        expressions = f"{slot_sql(interval, phase)}, {day_sql(interval, phase)}"
        rows = connection.execute(
            f'SELECT {expressions} FROM unnest(%s::timestamptz[]) AS t("timestamp")', (times,)
        ).fetchall()
    assert rows == frame.rows()


def test_rows_of_other_candles_are_found_by_their_links():
    window = Window("indicators", date(2024, 1, 1), date(2024, 1, 3), "BTCUSDT", "1h")
    days = pl.DataFrame({"day": [date(2024, 1, 1), date(2024, 1, 2)]})
    candles = days.with_columns(rows=pl.lit(24), links=pl.Series([300, 876]))
    assert unlike_candles(window, candles, candles, days) == []
    other = candles.with_columns(links=pl.Series([300, 877]))
    assert "some are linked to other candles" in unlike_candles(window, other, candles, days)[0]
    assert "2024-01-02 has 0 rows for 24 candles" in unlike_candles(window, candles.head(1), candles, days)[0]


def test_cut_points_are_the_same_every_time_and_inside():
    assert cut_points(0) == cut_points(1) == []
    assert cut_points(2) == [1]
    for rows in (3, 10, 72, 4_320):
        cuts = cut_points(rows)
        assert cuts == cut_points(rows) and len(set(cuts)) == len(cuts)
        assert all(1 <= cut < rows for cut in cuts)
    assert not all(cut % 60 == 0 for cut in cut_points(4_320))


def rows(number: int = 300) -> pl.DataFrame:
    """A zigzag of prices."""
    close = pl.Series([100.0 + (i * 7919 % 101) / 10 for i in range(number)])
    times = pl.datetime_range(START, START + timedelta(minutes=number - 1), "1m", eager=True, time_unit="us")
    return pl.DataFrame({"timestamp": times, "close": close})


def test_a_computation_that_only_looks_back_is_never_accused():
    honest = [pl.col("close"), pl.col("close").shift(1), pl.col("close").cum_max(), pl.col("close").ewm_mean(span=9)]
    for expression in honest:
        assert look_ahead(lambda frame, e=expression: frame.select(e.alias("x")), rows(), ["close"]) is None


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("close").shift(-1),
        pl.col("close").rolling_mean(3, center=True),
        (pl.col("close") - pl.col("close").mean()) / pl.col("close").std(),
        pl.col("close").max().over(pl.col("timestamp").dt.date()),
        pl.col("close").last().over(pl.col("timestamp").dt.truncate("1h")),
    ],
    ids=["next", "centred", "whole sample", "day's maximum", "unclosed hour"],
)
def test_each_kind_of_look_ahead_is_found(expression: pl.Expr):
    change = look_ahead(lambda frame: frame.select(expression.alias("x")), rows(), ["close"])
    assert change is not None and change.column == "x"
    assert change.cut is not None and change.timestamp < change.cut


def trade(entry: int, exit_: int, side: str = "long", **other: object) -> dict[str, object]:
    """A trade by hours since START."""
    day = START + timedelta(hours=exit_)
    times = {"entry_time": START + timedelta(hours=entry), "exit_time": day}
    return {**times, "position_type": side, "max_open": 1, "day": day.date(), **other}


def test_the_limit_and_the_side_of_open_trades():
    schema = {"entry_time": TIME, "exit_time": TIME, "position_type": pl.String, "max_open": pl.Int32, "day": pl.Date}

    def crowded(*trades: dict[str, object], still_open=(), now: int | None = 1) -> list[str]:
        return rules_trades.crowded("cross", pl.DataFrame(list(trades), schema=schema), still_open, now)

    assert crowded(trade(0, 5), trade(5, 9), trade(9, 10)) == []  # an exit at an open comes before an entry there
    (sentence,) = crowded(trade(0, 5), trade(4, 9))
    assert "2 are open, and max_open_trades is 1" in sentence and "2024-01-01 04:00 UTC" in sentence
    assert crowded(trade(0, 5, max_open=2), trade(4, 9, max_open=2)) == []
    assert "a long and a short" in crowded(trade(0, 5, max_open=2), trade(4, 9, "short", max_open=2))[0]
    assert crowded(trade(0, 5), still_open=[(START + timedelta(hours=6), "long")]) == []
    assert len(crowded(trade(0, 5), still_open=[(START + timedelta(hours=3), "long")])) == 1


def test_costs_follow_the_terms_of_each_fills_own_day():
    window = Window("market_data", date(2024, 1, 1), date(2024, 1, 3), "BTCUSDT", "1h")
    costs = pl.DataFrame({"day": [date(2024, 1, 1), date(2024, 1, 2)], "rate": [0.001, 0.002], "bps": [0.0, 5.0]})
    limits = pl.DataFrame({"day": [date(2024, 1, 1)], "max_open": [1]})
    row = trade(20, 30) | {
        "entry_price": Decimal(100),
        "exit_price": Decimal(110),
        "quantity": Decimal(2),
        "commission_fee": Decimal("0.64"),  # 200 x 0.001 + 220 x 0.002
        "slippage_cost": Decimal("0.11"),  # 220 x 5 bps
        "gross_profit": Decimal(20),
        "net_profit": Decimal("19.25"),
        "profit_pct": Decimal("9.625"),
        "duration": Decimal(10),
    }
    del row["max_open"]
    money = [name for name, value in row.items() if isinstance(value, Decimal)]
    times = {"entry_time": TIME, "exit_time": TIME}
    frame = pl.DataFrame([row], schema_overrides=times | dict.fromkeys(money, PRICE) | {"quantity": QUANTITY})
    trades = rules_trades.with_terms(frame, window, costs, limits)
    assert rules_trades.mischarged("cross", trades) == [] == rules_trades.misadded("cross", trades)
    one_side = trades.with_columns(commission_fee=pl.lit(Decimal("0.44"), dtype=PRICE))
    assert "both sides at the terms in force cost 0.64000000" in rules_trades.mischarged("cross", one_side)[0]


def test_the_account_is_replayed_with_marks_of_open_lots():
    def at(hours: int) -> datetime:
        return START + timedelta(hours=hours)

    def closing(hours: int, *trades: tuple[int, int]) -> Close:
        return Close(at(hours), at(hours + 1), trades)

    lots = [
        OpenLot(at(0), at(2), True, 1.0, 100 * UNIT, UNIT),
        OpenLot(at(1), at(5), False, 2.0, 200 * UNIT, 2 * UNIT),  # short at 100, still open at hour 2
        OpenLot(at(9), None, True, 1.0, 100 * UNIT, 0),
    ]
    before = Totals(1, 1, 5 * UNIT, 0, 7 * UNIT)
    closes = [closing(2, (9 * UNIT, 9 * UNIT)), closing(5, (-4 * UNIT, -2 * UNIT))]
    first, second = rules_figures.replay(1_000 * UNIT, before, closes, lots, {at(2): 90 * UNIT})
    assert first.equity == (1_000 + 5 + 9 + 200 - 180 - 2) * UNIT and first.open_lots == 1
    assert second.equity == (1_000 + 5 + 9 - 4) * UNIT and second.open_lots == 0
    assert second.totals == Totals(3, 2, 14 * UNIT, -4 * UNIT, 14 * UNIT)
    assert next(iter(rules_figures.replay(1_000 * UNIT, before, closes, lots, {}))).equity is None


def test_figures_equal_values_computed_by_hand():
    totals = Totals(4, 3, 30 * UNIT, -10 * UNIT, 8 * UNIT)
    figures = rules_figures.figures(totals, 100 * UNIT, 120 * UNIT, 365.0)
    assert figures == pytest.approx(
        {
            "total_return": 0.2,
            "annual_return": 0.2,
            "win_rate": 0.75,
            "avg_profit_pct": 2.0,
            "risk_reward_ratio": 1.0,
            "profit_factor": 3.0,
        }
    )
    assert rules_figures.figures(Totals(), 100, 100, 29.9) == {"total_return": 0.0} | dict.fromkeys(
        ("annual_return", "win_rate", "avg_profit_pct", "risk_reward_ratio", "profit_factor")
    )
    losers = rules_figures.figures(Totals(1, 0, 0, -5, -5), 100, 95, 1.0)
    assert losers["profit_factor"] == 0 and losers["risk_reward_ratio"] is None


def test_rows_of_figures_are_compared_with_their_nulls():
    wanted = rules_figures.figures(Totals(4, 3, 30 * UNIT, -10 * UNIT, 8 * UNIT), 100, 120, 20.0)
    stored = {name: None if value is None else Decimal(f"{value:.8f}") for name, value in wanted.items()}
    stored |= {"sharpe_ratio": None, "max_drawdown": Decimal("-0.1")}
    assert list(rules_figures.unlike(stored, wanted, 20.0)) == []
    for change, what in [
        ({"win_rate": None}, "win_rate is NULL but computes as 0.75"),
        ({"annual_return": Decimal(1)}, "annual_return is 1 but computes as NULL"),
        ({"profit_factor": Decimal("3.0000001")}, "profit_factor is 3.0000001"),
        ({"sharpe_ratio": Decimal(1)}, "before 30 days"),
        ({"max_drawdown": Decimal("0.1")}, "above 0"),
    ]:
        (found,) = rules_figures.unlike(stored | change, wanted, 20.0)
        assert what in found

"""Runs about some of the markets: markets one after the other, or all at once, give the same rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from conftest import START, STATE, Project, published_candles
from tables import content, counts

from algobot_assets.cli.parallel_runs import CANDLES, COMPUTED
from algobot_assets.cli.run_parts import Part, split_markets
from algobot_assets.declared.reading import loads
from algobot_assets.schema.tables import NINE

LAST = START + timedelta(days=8)
MARKETS = ("BTCUSDT 1h", "ETHUSDT 1h")
SECOND = """  second:
    type: ema_cross
    market: ETHUSDT 1h
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 2, take_profit_percentage: 4}
configurations:
"""


@pytest.fixture
def two(project: Project) -> Project:
    """Two markets with strategies each."""
    project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9, seed=3), "ETHUSDT")
    market = f"  - {{symbol: ETHUSDT, interval: 1h, start: {START}}}\nstrategies:\n"
    state = STATE.format(start=START).replace("strategies:\n", market).replace("configurations:\n", SECOND)
    project.declare(state)
    return project


def only(market: str) -> dict[str, dict]:
    return {table: {"markets": [market]} for table in (*CANDLES, *COMPUTED)}


def test_markets_one_after_the_other_are_the_same_as_all_at_once(two: Project, database_url):
    small = tuple(table for table in NINE if table not in (*CANDLES, *COMPUTED))
    assert two.run(START, LAST, small).success
    for market in MARKETS:
        result = two.run(START, LAST, (*CANDLES, *COMPUTED), **only(market))
        assert result.success and not [line for line in result.skipped if "newest" not in line], result
        if market == MARKETS[0]:
            half = counts(database_url)
    apart = content(database_url)
    assert half["market_data"] == half["indicators"] == 24 * 9 and half["backtest_results"] == 2 * 9
    assert two.run(START, LAST).success
    assert content(database_url) == apart, "the run over everything found everything stored"
    assert counts(database_url)["backtest_results"] == 3 * 9


def test_each_partition_counts_the_rows_of_all_markets_whichever_the_run_was_about(two: Project):
    assert two.run(START, LAST).success
    result = two.run(START, LAST, ("indicators",), indicators={"markets": [MARKETS[1]], "recompute": True})
    assert result.success
    events = two.instance.all_logs(result.run_id)
    found = {
        event.dagster_event.partition: event.dagster_event.step_materialization_data.materialization.metadata
        for event in events
        if event.dagster_event is not None and event.dagster_event.event_type_value == "ASSET_MATERIALIZATION"
    }
    assert {data["dagster/partition_row_count"].value for data in found.values()} == {48} and len(found) == 9


@pytest.mark.parametrize("table", ["market_data", "indicators"])
def test_a_market_that_nobody_declared_is_refused_in_words(two: Project, table: str):
    assert two.run(START, START).success
    result = two.run(START, START, (table,), **{table: {"markets": ["BTCUSD 1h"]}})
    assert not result.success
    assert result.error == f"{table} has no data for market 'BTCUSD 1h'. Markets are written like 'BTCUSDT 1h'."


def test_parts_hold_each_market_once_and_weigh_about_the_same(tmp_path: Path):
    lines = "".join(f"  - {{symbol: {s}USDT, interval: {i}, start: 2024-01-01}}\n" for s, i in (
        ("A", "1m"), ("B", "1m"), ("C", "1m"), ("D", "1h"), ("E", "1M"), ("F", "1w")
    ))  # fmt: skip
    state = loads(f"markets:\n{lines}strategies: {{}}\nconfigurations: {{}}\n", {})
    day = date(2024, 1, 1)
    for number in (1, 2, 3, 6, 40):
        parts = split_markets(state, day, day, number)
        names = [name for part in parts for name in part.markets]
        assert sorted(names) == sorted(market.name for market in state.markets)
        assert len(parts) == min(number, 6) and all(part.markets for part in parts)
        if number == 3:
            assert sorted(sum(name.endswith("1m") for name in part.markets) for part in parts) == [1, 1, 1]
    some = split_markets(state, day, day, 3, ["BUSDT 1m", "EUSDT 1M"])
    assert [part.markets for part in some] == [("BUSDT 1m",), ("EUSDT 1M",)]
    assert split_markets(state, day, day, 3, ["ZUSDT 1m"]) == []
    assert str(Part(day, day, ("A 1m",))) == "2024-01-01 to 2024-01-01, A 1m"

"""Markets that a run skips: one cause is one line, and nothing to do is no error."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from conftest import Project, published_candles
from tables import counts

from algobot_assets.audit.verify import verify
from algobot_assets.pipeline.skipped import NO_CANDLES, PROVIDE, Skipped, by_cause
from algobot_assets.store.connection import Store

FIRST, LAST = date(2020, 1, 1), date(2020, 2, 7)
_MARKET = "markets:\n  - {symbol: BTCUSDT, interval: 1h, start: 2020-01-01}\n"
_STRATEGY = """
  {name}:
    type: {kind}
    market: BTCUSDT 1h
    initial_balance: 10000
    risk_per_trade: 0.01
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2, take_profit_percentage: 4}}"""


@pytest.fixture
def torn(project: Project) -> Project:
    """Three strategies on a market of which no file covers 2020-01-10 to 2020-02-02."""
    (project.klines / "spot" / "BTCUSDT-1h-all.parquet").unlink()
    candles = published_candles(datetime(2020, 1, 1, tzinfo=UTC), 24 * 38)
    project.publish(candles.head(24 * 9), period="2020-01")
    project.publish(candles.tail(24 * 5), period="2020-02")
    kinds = enumerate(("ema_cross", "macd", "btc"))
    project.declare(
        _MARKET + "strategies:" + "".join(_STRATEGY.format(name=f"s{i}", kind=kind) for i, kind in kinds) + "\n"
    )
    return project


def test_a_stretch_that_no_file_covers_is_one_line(torn: Project, database_url: str):
    result = torn.run(FIRST, LAST)
    assert result.success
    assert result.skipped == (
        "BTCUSDT 1h: no candles known for 2020-01-10 to 2020-02-02; 3 strategies stop at 2020-01-09. " + PROVIDE,
    )
    descriptions = {
        event.dagster_event.event_specific_data.description
        for event in torn.instance.all_logs(result.run_id)
        if event.dagster_event is not None and event.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION"
        and event.dagster_event.event_specific_data.check_name == "every_market_proceeded"
    }  # fmt: skip
    assert all("\n" not in text for text in descriptions)
    assert f"BTCUSDT 1h: no candles known for 2020-01-10 to 2020-02-02. {PROVIDE}" in descriptions
    assert counts(database_url)["signals"] == 3 * 24 * 9


def test_no_strategy_is_nothing_to_do(project: Project, database_url: str):
    project.declare("markets:\n  - {symbol: BTCUSDT, interval: 1h, start: 2024-01-30}\n")
    first = date(2024, 1, 30)
    result = project.run(first, first + timedelta(days=3))
    assert result.success and result.skipped == () and result.error is None
    assert counts(database_url)["indicators"] == 96
    with Store.open(run_id="test") as store:
        assert [finding.difference for finding in verify(store, first, first + timedelta(days=3))] == [None] * 6


def test_causes_are_grouped_whatever_tables_and_strategies_they_stop():
    days = {"first": date(2024, 1, 2), "last": date(2024, 1, 3), "stops_at": date(2024, 1, 1)}
    some = [
        Skipped(table, NO_CANDLES, PROVIDE, "BTCUSDT 1h", strategy, **days)
        for table in ("signals", "trade_history")
        for strategy in (f"s{i}" for i in range(100))
    ]
    other = Skipped("indicators", NO_CANDLES, PROVIDE, "ETHUSDT 1h", **days)
    assert by_cause([*some, other]) == [
        f"BTCUSDT 1h: no candles known for 2024-01-02 to 2024-01-03; 100 strategies stop at 2024-01-01. {PROVIDE}",
        f"ETHUSDT 1h: no candles known for 2024-01-02 to 2024-01-03; indicators stop at 2024-01-01. {PROVIDE}",
    ]
    assert by_cause([Skipped("market_data", "The file is damaged.")] * 2) == ["The file is damaged."]
    assert [Skipped.read(item.document()) for item in (*some, other)] == [*some, other]

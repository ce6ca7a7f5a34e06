"""Markets that a run skips: one cause is one line, and nothing to do is no error."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from click.testing import CliRunner, Result
from conftest import Project, published_candles
from tables import content, counts

from algobot_assets.audit.gaps import missing_days
from algobot_assets.audit.staleness import due, stale
from algobot_assets.audit.verify import verify
from algobot_assets.cli.app import cli
from algobot_assets.pipeline.candles.accepted_gaps import withdraw_gaps
from algobot_assets.pipeline.skipped import NO_CANDLES, PROVIDE, Skipped, by_cause
from algobot_assets.schema.intervals import midnight
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.records import DayInputs

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


def _gaps(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["gaps", *arguments], catch_exceptions=True)


def test_an_accepted_gap_is_computed_across_and_can_be_withdrawn(torn: Project, database_url: str):
    assert torn.run(FIRST, LAST).success
    (unknown,) = json.loads(_gaps("--json").output)["gaps"]
    assert (unknown["from"], unknown["to"]) == ("2020-01-10 00:00", "2020-02-02 23:59")
    assert unknown["reason"] == "unknown"
    stretch = ("BTCUSDT 1h", "2020-01-10", "2020-02-02")
    accepted = json.loads(_gaps("accept", *stretch, "--reason", "the exchange was down", "--json").output)["accepted"]
    assert accepted["reason"] == "the exchange was down" and getpass.getuser() in accepted["accepted_by"]
    again = _gaps("accept", *stretch, "--reason", "twice").exception
    assert "is accepted already" in str(again) and "algobot gaps withdraw" in str(again)

    result = torn.run(FIRST, LAST)
    assert result.success and result.skipped == ()
    assert counts(database_url)["signals"] == 3 * 24 * 14
    (gap,) = json.loads(_gaps("--json").output)["gaps"]
    assert (gap["from"], gap["to"], gap["reason"]) == ("2020-01-10 00:00", "2020-02-02 23:59", "accepted")
    assert "the exchange was down" in gap["evidence"]
    with Store.open(run_id="test") as store:
        assert [finding.difference for finding in verify(store, FIRST, LAST)] == [None] * 6
        assert due(store) is None and missing_days(store, [("BTCUSDT", "1h")]) == []
    whole = content(database_url)
    assert torn.run(FIRST, LAST).success
    assert content(database_url) == whole

    assert _gaps("withdraw", *stretch).exit_code == 0
    with Store.open(run_id="test") as store:
        late = stale(store).filter(pl.col("day") >= date(2020, 2, 3))
    assert set(late["table_name"]) >= {"indicators", "signals", "trade_history", "backtest_results"}
    assert set(late["day"]) == {date(2020, 2, 3) + timedelta(days=i) for i in range(5)}
    assert "no candles known for 2020-01-10 to 2020-02-02" in torn.run(FIRST, LAST).skipped[0]
    assert "no accepted gap lies within" in str(_gaps("withdraw", *stretch).exception)

    assert _gaps("accept", *stretch, "--reason", "the exchange was down").exit_code == 0
    assert torn.run(FIRST, LAST).skipped == ()
    with Store.open(run_id="test") as store:
        assert due(store) is None
    assert {table: rows for table, rows in content(database_url).items() if table != "lineage"} == {
        table: rows for table, rows in whole.items() if table != "lineage"
    }


def test_candles_that_arrive_in_an_accepted_gap_replace_it(torn: Project, database_url: str, new_database, monkeypatch):
    assert torn.run(FIRST, LAST).success
    assert _gaps("accept", "BTCUSDT 1h", "2020-01-10", "2020-02-02", "--reason", "lost").exit_code == 0
    assert torn.run(FIRST, LAST).success
    torn.publish(published_candles(datetime(2020, 1, 1, tzinfo=UTC), 24 * 38), period="all")
    assert torn.run(FIRST, LAST, ["market_data"]).success
    with Store.open(run_id="test") as store:
        run = due(store)
        assert run is not None and run.first == date(2020, 1, 10)
        assert torn.run(run.first, run.last, run.tables).success
        assert due(store) is None
    assert json.loads(_gaps("--json").output)["gaps"] == []
    filled = content(database_url)
    other = new_database()
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", other)
    assert torn.run(FIRST, LAST).success
    assert content(other) == filled


@pytest.mark.parametrize(("parameters", "marked"), [("{}", []), ('{"stop_path": "1m"}', [date(2024, 1, 5)])])
def test_withdrawing_a_gap_of_minutes_marks_the_ledgers_that_follow_minutes(store, parameters: str, marked: list[date]):
    with store.transaction() as connection:
        (strategy,) = connection.execute(
            """INSERT INTO strategies (strategy_name, strategy_type, symbol, "interval", initial_balance,
                                       risk_per_trade, parameters, effective_from)
               VALUES ('hourly', 'ema_cross', 'BTCUSDT', '1h', 1, 0.01, %s, '2024-01-01') RETURNING id""",
            (parameters,),
        ).fetchone()
        for day in (date(2024, 1, 3), date(2024, 1, 5)):
            key = ("trade_history", "", "", strategy)
            known = DayInputs(day, midnight(day + timedelta(days=1)))
            lineage.write(connection, [(key, known, 0, b"")], "test", new=True)
        connection.execute(
            """INSERT INTO accepted_gaps (symbol, "interval", first_day, last_day, reason, accepted_by)
               VALUES ('BTCUSDT', '1m', '2024-01-04', '2024-01-04', 'a test', 'a test')"""
        )
    withdraw_gaps(store, "BTCUSDT", "1m", date(2024, 1, 4), date(2024, 1, 4))
    with store.transaction() as connection:
        dirty = connection.execute("SELECT day FROM dirty_days WHERE table_name = 'trade_history'").fetchall()
    assert [day for (day,) in dirty] == marked


def test_only_an_unknown_stretch_can_be_accepted(torn: Project, database_url: str):
    assert torn.run(FIRST, LAST, ["market_data"]).success
    for first, last, words in (
        ("2020-01-02", "2020-01-03", "no candles are unknown"),
        ("2020-02-02", "2020-02-20", "a gap ends before that"),
        ("2020-02-02", "2020-01-20", "lies before the first day"),
    ):
        assert words in str(_gaps("accept", "BTCUSDT 1h", first, last, "--reason", "lost").exception)

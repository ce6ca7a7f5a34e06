"""Staleness: the view names exactly what changed and why, one run makes it fresh, and nothing else is touched."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from conftest import START, STATE, Project, days, published_candles
from tables import content

from algobot_assets.audit.staleness import complete_through, due, edited_days, stale
from algobot_assets.audit.verify import COMPUTED, verify
from algobot_assets.schema.intervals import midnight
from algobot_assets.store.connection import Store

LAST = START + timedelta(days=8)
REFERENCE = ("configurations", "strategies", "risk_parameters")


@pytest.fixture
def full(project: Project) -> Project:
    """The project with its nine days materialised."""
    assert project.run(START, LAST).success
    return project


def reasons(store: Store) -> dict[tuple[str, date], str]:
    return {(row["table_name"], row["day"]): row["reason"] for row in stale(store).iter_rows(named=True)}


def refresh(project: Project, store: Store, warning: str = "") -> None:
    for _ in range(2):
        run = due(store)
        if run is None:
            return
        result = project.run(run.first, run.last, run.tables)
        assert result.success
        assert [text for text in result.skipped if not warning or warning not in text] == [], result
    assert reasons(store) == {}


def equal_to_one_pass(project: Project, url: str, new_database, monkeypatch, *, without: tuple[str, ...] = ()) -> None:
    """Everything stored equals what one range run into an empty database gives."""
    stored = content(url)
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", new_database())
    import os

    assert project.run(START, LAST).success
    fresh = content(os.environ["ALGOBOT_DATABASE_URL"])
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", url)
    for table, rows in fresh.items():
        if table not in without:
            assert stored[table] == rows, table


def test_nothing_is_stale_after_a_run(full, store):
    assert reasons(store) == {}
    assert due(store) is None
    assert [f.difference for f in verify(store, START, LAST)] == [None] * 6
    assert complete_through(store) == midnight(LAST + timedelta(days=1))


def test_a_candle_changed_by_sql_makes_exactly_its_dependants_stale(full, store, database_url):
    day = START + timedelta(days=3)
    before = content(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """UPDATE market_data SET close = close + 0.01, high = high + 0.01
                WHERE "timestamp" = %s""",
            (datetime(day.year, day.month, day.day, 12, tzinfo=UTC),),
        )
    assert reasons(store) == {("market_data", day): "changed by hand"}
    assert edited_days(store) == [day]
    refresh(full, store)
    assert edited_days(store) == [day], "the edit is kept, and reported"
    after = content(database_url)
    changed = {row[2].date() for row in set(before["indicators"]) ^ set(after["indicators"])}
    assert min(changed) == day
    assert [f.difference for f in verify(store, START, LAST)] == [None] * 6
    result = full.run(day, tables=["market_data"], market_data={"from_source": True})
    assert result.success
    assert edited_days(store) == []
    refresh(full, store)
    assert content(database_url, ("market_data", "indicators", "signals", "trade_history")) == {
        table: before[table] for table in ("market_data", "indicators", "signals", "trade_history")
    }


def test_session_vwap_of_a_change_stays_within_its_day(full, store, database_url):
    day = START + timedelta(days=3)
    before = content(database_url, ("indicators",))["indicators"]
    with psycopg.connect(database_url) as connection:
        newest = connection.execute("SELECT max(written_at) FROM lineage").fetchone()[0]
        connection.execute(
            'UPDATE market_data SET volume = volume + 1 WHERE "timestamp" = %s',
            (datetime(day.year, day.month, day.day, 12, tzinfo=UTC),),
        )
    run = due(store)
    assert run.first == day
    refresh(full, store)
    after = content(database_url, ("indicators",))["indicators"]
    assert {row[2].date() for row in set(before) ^ set(after)} == {day}
    with psycopg.connect(database_url) as connection:
        written = connection.execute(
            "SELECT count(*) FROM lineage WHERE table_name = 'indicators' AND written_at > %s", (newest,)
        ).fetchone()[0]
    assert written == 1, "one changed day costs one day where the carried state is bit-equal again"


@pytest.mark.parametrize("table", ["indicators", "signals", "trade_history", "performance_metrics", "backtest_results"])
@pytest.mark.parametrize("change", ["UPDATE", "DELETE"])
def test_rows_changed_by_hand_are_recomputed(full, store, database_url, table, change):
    before = content(database_url)
    column = {"indicators": "rsi", "signals": "signal", "trade_history": "net_profit"}.get(table, "final_capital")
    with psycopg.connect(database_url) as connection:
        rows = f"(SELECT id FROM {table} ORDER BY id OFFSET 3 LIMIT 1)"
        value = "0" if table == "signals" else f"{column} + 1"
        statement = f"UPDATE {table} SET {column} = {value}" if change == "UPDATE" else f"DELETE FROM {table}"
        assert connection.execute(f"{statement} WHERE id IN {rows}").rowcount == 1
    assert {t for t, _ in reasons(store)} >= {table}
    refresh(full, store)
    assert content(database_url) == before


@pytest.mark.parametrize("table", ["indicators_2024_02", "signals", "trade_history", "backtest_results"])
def test_truncated_rows_are_recomputed(full, store, database_url, table):
    before = content(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(f"TRUNCATE {table} CASCADE")
        emptied = {row[0] for row in connection.execute("SELECT DISTINCT table_name FROM dirty_days").fetchall()}
    follows = {"trade_history": {"trade_history", "performance_metrics"}, "indicators_2024_02": {"indicators"}}
    assert emptied == follows.get(table, {table})
    refresh(full, store)
    assert content(database_url) == before


def test_a_candle_deleted_by_hand_deletes_the_rows_that_refer_to_it(full, store, database_url):
    day = START + timedelta(days=2)
    moment = datetime(day.year, day.month, day.day, 5, tzinfo=UTC)
    before = content(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute('DELETE FROM market_data WHERE "timestamp" = %s', (moment,))
    found = reasons(store)
    assert {table for table, at in found if at == day} == {"market_data", "indicators", "signals"}
    refresh(full, store, warning="2024-02-01 05:00")  # absent, and no gap that its source confirmed
    after = content(database_url)
    assert moment not in {row[2] for row in after["indicators"]}
    assert [f.difference for f in verify(store, START, LAST)] == [None] * 6
    assert full.run(day, tables=["market_data"], market_data={"from_source": True}).success
    refresh(full, store)
    assert content(database_url) == before


def test_changing_one_strategy_touches_only_it(full, store, database_url, new_database, monkeypatch):
    before = content(database_url)
    full.declare(STATE.format(start=START).replace("slow: 13", "slow: 21"))
    assert full.run(START, LAST, REFERENCE, **{table: {"rewrite": True} for table in REFERENCE}).success
    found = stale(store)
    assert set(found["strategy_id"]) == {1}
    assert set(found["table_name"]) == {"signals", "trade_history"}
    assert set(found["day"]) == set(days(START, 9))
    refresh(full, store)
    after = content(database_url)
    for table in ("signals", "trade_history", "backtest_results"):
        assert [r for r in after[table] if r[0] == "rules"] == [r for r in before[table] if r[0] == "rules"]
    equal_to_one_pass(full, database_url, new_database, monkeypatch)


def test_new_risk_parameters_touch_only_the_ledger_from_their_day(full, store, database_url, new_database, monkeypatch):
    change = START + timedelta(days=4)
    first = "max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 2, take_profit_percentage: 4"
    text = STATE.format(start=START).replace(
        f"    risk: {{{first}}}\n",
        "    risk:\n"
        f"      - {{{first}}}\n"
        f"      - {{effective_from: {change}, max_risk_per_trade: 0.01, max_open_trades: 1, "
        "stop_loss_percentage: 1, take_profit_percentage: 0}\n",
    )
    full.declare(text)
    assert full.run(START, LAST, REFERENCE).success
    found = stale(store)
    assert set(found["table_name"]) == {"trade_history"}
    assert set(found["day"]) == set(days(change, 5))
    assert set(found["reason"]) == {"parameters"}
    refresh(full, store)
    equal_to_one_pass(full, database_url, new_database, monkeypatch)


def test_other_code_makes_its_tables_stale(full, store):
    with store.transaction() as connection:
        connection.execute("UPDATE code_versions SET code_version = 'other' WHERE strategy_type = 'btc'")
    found = stale(store)
    assert set(found["reason"]) == {"code"} and set(found["table_name"]) == {"signals"}
    assert set(found["strategy_id"]) == {2}
    refresh(full, store)  # a run registers the code in force again


def test_older_history_is_picked_up(project, store, database_url, new_database, monkeypatch):
    late = START + timedelta(days=4)
    assert project.run(START, START, REFERENCE).success
    assert project.run(late, LAST).success
    assert project.run(START, late - timedelta(days=1), ["market_data"]).success
    found = reasons(store)
    assert found[("indicators", START)] == "missing"
    assert ("indicators", late) not in found, "it is stale once the day before it has a state"
    for _ in range(3):
        run = due(store)
        if run is None:
            break
        assert project.run(run.first, run.last, run.tables).success
    assert reasons(store) == {}
    equal_to_one_pass(project, database_url, new_database, monkeypatch)


def test_candles_that_arrive_late_are_picked_up(project, store, database_url, new_database, monkeypatch):
    import polars as pl

    whole = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9)
    project.publish(pl.concat([whole.head(30), whole.tail(-34)]))
    assert project.run(START, LAST).success
    project.publish(whole)
    day = START + timedelta(days=1)
    assert project.run(day, tables=["market_data"], market_data={"from_source": True}).success
    refresh(project, store)
    with store.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM gaps").fetchone()[0] == 0
    equal_to_one_pass(project, database_url, new_database, monkeypatch)


@pytest.mark.parametrize("table", COMPUTED)
def test_verify_names_the_first_difference(full, store, database_url, table):
    column = {"indicators": "rsi", "signals": "signal", "trade_history": "net_profit"}.get(table, "final_capital")
    value = "CASE signal WHEN 0 THEN 1 ELSE 0 END" if table == "signals" else f"{column} + 1"
    with psycopg.connect(database_url) as connection:
        connection.execute(f"UPDATE {table} SET {column} = {value} WHERE id = (SELECT max(id) - 2 FROM {table})")
    found = {f.table: f.difference for f in verify(store, START, LAST)}
    assert column in found[table]
    assert "and should be" in found[table]


def test_verify_sees_a_tampered_state(full, store, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE lineage SET state_out[3] = state_out[3] + 1 WHERE table_name = 'indicators' AND day = %s",
            (START + timedelta(days=2),),
        )
    found = {f.table: f.difference for f in verify(store, START, LAST)}
    assert found["indicators"] == "indicators of BTCUSDT 1h, 2024-02-01: the carried state differs"


def test_verify_sees_a_changed_candle(full, store, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute(
            'UPDATE market_data SET volume = volume + 1 WHERE "timestamp" = (SELECT max("timestamp") FROM market_data)'
        )
    found = {f.table: f.difference for f in verify(store, START, LAST)}
    assert "not those that were recorded" in found["market_data"]
    assert "vwap" in found["indicators"]


def test_a_trade_leads_to_its_source(full, store, database_url):
    with store.transaction() as connection:
        trade = connection.execute("SELECT max(id) FROM trade_history WHERE exit_reason = 'signal'").fetchone()[0]
        rows = connection.execute(
            "SELECT step, signal, open IS NOT NULL, ema IS NOT NULL, source_name, length(source_sha256) "
            "FROM trade_trace WHERE trade_id = %s",
            (trade,),
        ).fetchall()
    assert [row[0] for row in rows] == ["entry signal", "entry", "exit signal", "exit"]
    assert rows[0][1] in (1, -1) and rows[2][1] in (1, -1)
    assert all(row[2:] == (True, True, "spot/BTCUSDT-1h-all.parquet", 64) for row in rows)

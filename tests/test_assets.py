"""The nine assets in real Dagster runs: a day, a range, again, in pieces, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import psycopg
import pytest
from conftest import START, STATE, Project, days, published_candles
from tables import content, counts

from algobot_assets.audit.staleness import due
from algobot_assets.defs.assets import TABLES
from algobot_assets.schema.tables import NINE
from algobot_assets.store.connection import Store

LAST = START + timedelta(days=8)  # the last whole day of the project's candles


def test_the_definitions_load_and_describe_nine_partitioned_assets(defs):
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    tables = {key for key in graph.get_all_asset_keys() if key.path[-1] in NINE}
    assert len(tables) == len(NINE)
    for key in tables:
        node = graph.get(key)
        assert node.partitions_def is not None
        assert node.description
        assert node.group_name in ("reference", "market", "trading")
        assert node.kinds and node.owners and node.code_version
        assert node.metadata["dagster/table_name"] == f"public.{key.path[-1]}"
        columns = node.metadata["dagster/column_schema"].columns
        assert all(column.description for column in columns)
    parents = {key.path[-1]: sorted(p.path[-1] for p in graph.get(key).parent_keys) for key in tables}
    assert parents["signals"] == ["indicators", "market_data", "strategies"]
    assert parents["risk_parameters"] == ["strategies"]


def test_each_asset_for_one_day_and_for_a_range(project: Project, database_url):
    assert project.run(START).success
    one = counts(database_url)
    assert one["market_data"] == one["indicators"] == 24
    assert one["signals"] == 48
    assert one["backtest_results"] == 2
    assert (one["strategies"], one["risk_parameters"], one["configurations"]) == (2, 2, 1)
    assert project.run(START, LAST).success
    nine = counts(database_url)
    assert nine["market_data"] == nine["indicators"] == 24 * 9
    assert nine["signals"] == 2 * 24 * 9
    assert nine["backtest_results"] == 2 * 9
    assert nine["trade_history"] == nine["performance_metrics"] > 5


@pytest.mark.parametrize("table", [asset.key.path[-1] for asset in TABLES])
def test_every_asset_runs_alone_after_what_it_needs(project: Project, database_url, table):
    assert project.run(START, START + timedelta(days=1)).success
    before = content(database_url)
    result = project.run(START, START + timedelta(days=1), [table])
    assert result.success and result.skipped == ()
    assert content(database_url) == before


def test_a_second_run_rewrites_no_row(project: Project, database_url):
    assert project.run(START, LAST).success

    def stamps() -> list[tuple]:
        with psycopg.connect(database_url) as connection:
            return [
                connection.execute(f"SELECT id, updated_at, xmin::text FROM {table} ORDER BY id").fetchall()
                for table in NINE
            ] + [
                connection.execute(
                    "SELECT xmin::text FROM lineage ORDER BY table_name, symbol, strategy_id, day"
                ).fetchall()
            ]

    before = stamps()
    assert project.run(START, LAST).success
    assert stamps() == before
    forced = {table: {"recompute": True} for table in ("indicators", "signals", "trade_history")}
    assert project.run(START, LAST, **forced).success
    assert stamps() == before


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([1] * 9, id="day by day"),
        pytest.param([4, 5], id="two", marks=pytest.mark.slow),  # tests/test_exactness.py cuts at random
        pytest.param([2, 3, 1, 3], id="four", marks=pytest.mark.slow),
    ],
)
def test_any_batches_give_the_same_bits_as_one_range(project: Project, new_database, monkeypatch, database_url, pieces):
    assert project.run(START, LAST).success
    whole = content(database_url)
    assert len(whole["trade_history"]) > 5
    other = new_database()
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", other)
    day = START
    for number in pieces:
        result = project.run(day, day + timedelta(days=number - 1))
        assert result.success and result.skipped == ()
        day += timedelta(days=number)
    for table, rows in content(other).items():
        assert rows == whole[table], table


def test_today_is_recomputed_from_yesterdays_state(project: Project, database_url, new_database, monkeypatch):
    today = LAST + timedelta(days=1)
    assert project.run(START, today).success
    partial = content(database_url)
    assert partial["backtest_results"][-1][4] == datetime(2024, 2, 8, 7, tzinfo=UTC)
    assert {row[-1] for row in partial["lineage"] if row[5] == today and row[0] == "signals"} == {
        datetime(2024, 2, 8, 7, tzinfo=UTC)
    }
    project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 11))
    assert project.run(today).success
    assert project.run(today + timedelta(days=1)).success
    whole = content(database_url)
    other = new_database()
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", other)
    assert project.run(START, today + timedelta(days=1)).success
    assert content(other) == whole


def test_a_day_without_its_day_before_is_skipped_and_the_remedy_named(project: Project, database_url):
    assert project.run(START).success
    later = START + timedelta(days=4)
    assert project.run(later, tables=["market_data"]).success
    result = project.run(later, tables=["indicators"])
    assert not result.success
    assert result.error == (
        "BTCUSDT 1h: cannot start on 2024-02-03: the state of 2024-02-02 is missing; indicators skipped. "
        "Run `algobot backfill 2024-01-31 2024-02-03`."
    )
    assert counts(database_url)["indicators"] == 24


def test_a_day_after_an_incomplete_one_is_skipped(project: Project, database_url):
    today = LAST + timedelta(days=1)
    assert project.run(START, today).success
    project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 11))
    tomorrow = today + timedelta(days=1)
    assert project.run(tomorrow, tables=["market_data"]).success
    result = project.run(tomorrow, tables=["indicators"])
    assert not result.success
    assert f"the state of {today} is not complete yet" in result.error


def test_one_market_that_fails_does_not_stop_the_others(project: Project, database_url):
    text = STATE.format(start=START).replace(
        "markets:", f"markets:\n  - {{symbol: ETHUSDT, interval: 1h, start: {START}}}"
    )
    project.declare(text)
    result = project.run(START, LAST)
    assert result.success
    assert any("ETHUSDT" in sentence for sentence in result.skipped)
    assert counts(database_url)["market_data"] == 24 * 9


def test_unknown_markets_alone_fail_the_run_with_a_sentence(project: Project, database_url):
    project.declare(STATE.format(start=START).replace("BTCUSDT", "BTCUSTD"))
    result = project.run(START)
    assert not result.success
    assert "BTCUSTD" in result.error and "Traceback" not in result.error


def test_malformed_yaml_is_refused_with_its_line(project: Project, database_url):
    project.declare("markets:\n  - {symbol: BTCUSDT, interval: 7h, start: 2024-01-30}\n")
    result = project.run(START)
    assert not result.success
    assert "line 2" in result.error and "7h" in result.error


def test_a_new_version_replaces_the_old_from_its_day(project: Project, database_url, new_database, monkeypatch):
    change = START + timedelta(days=5)
    text = STATE.format(start=START).replace(
        "    parameters: {fast: 5, slow: 13}\n    initial_balance: 10000\n    risk_per_trade: 0.02\n",
        "    initial_balance: 10000\n    risk_per_trade: 0.02\n    versions:\n"
        "      - {parameters: {fast: 5, slow: 13}}\n"
        f"      - {{effective_from: {change}, parameters: {{fast: 3, slow: 8}}}}\n",
    )
    project.declare(text)
    assert project.run(START, LAST).success
    whole = content(database_url)
    versions = {(row[0], row[1]): row[2] for row in whole["backtest_results"]}
    assert set(versions) == {("cross", 1), ("cross", 2), ("rules", 1)}
    old_days = [row[2] for row in whole["backtest_results"] if row[:2] == ("cross", 1)]
    new_days = [row[2] for row in whole["backtest_results"] if row[:2] == ("cross", 2)]
    assert old_days[0] == START and max(old_days) <= change
    closing = [row for row in whole["trade_history"] if row[:2] == ("cross", 1) and row[-2] == "superseded"]
    assert all(row[2] == change for row in closing)
    open_at_the_end = {row[2]: row[-3] for row in whole["backtest_results"] if row[:2] == ("cross", 1)}
    assert open_at_the_end[max(open_at_the_end)] == 0, "a replaced version closes its lots"
    assert new_days == days(change, 4)
    assert {row[4] for row in whole["signals"] if row[:2] == ("cross", 2)} >= {datetime(2024, 1, 30, tzinfo=UTC)}
    other = new_database()
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", other)
    assert project.run(START, LAST, ["configurations", "strategies", "risk_parameters"]).success
    for begin, end in ((0, 3), (4, 4), (5, 5), (6, 8)):  # the day before the change and its own by themselves
        assert project.run(START + timedelta(days=begin), START + timedelta(days=end)).success
    for table, rows in content(other).items():
        assert rows == whole[table], table
    later = new_database()
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", later)
    project.declare(STATE.format(start=START))
    assert project.run(START, LAST).success
    project.declare(text)  # the old version has results of days on which the new one trades
    assert project.run(START, LAST, ["configurations", "strategies", "risk_parameters"]).success
    with Store.open() as store:
        run = due(store)
        assert project.run(run.first, run.last, run.tables).success
        assert due(store) is None
    for table, rows in content(later).items():
        assert rows == whole[table], table


def test_a_correction_is_refused_and_rewritten_when_asked(project: Project, database_url):
    assert project.run(START, LAST).success
    before = content(database_url)
    project.declare(STATE.format(start=START).replace("slow: 13", "slow: 21"))
    refused = project.run(START, LAST)
    assert not refused.success
    assert "rewrite" in refused.error and "13 -> 21" in refused.error
    assert content(database_url) == before
    reference = {table: {"rewrite": True} for table in ("configurations", "strategies", "risk_parameters")}
    assert project.run(START, LAST, **reference).success
    after = content(database_url)
    assert [r for r in after["signals"] if r[0] == "cross"] != [r for r in before["signals"] if r[0] == "cross"]
    assert [r for r in after["trade_history"] if r[0] == "rules"] == [
        r for r in before["trade_history"] if r[0] == "rules"
    ]


def test_changed_indicator_windows_hold_from_their_day_as_if_always(
    project: Project, database_url, new_database, monkeypatch
):
    change = START + timedelta(days=5)
    text = STATE.format(start=START).replace(
        "configurations:\n",
        f"configurations:\n  indicators.ema_window:\n    - 14\n    - {{value: 20, effective_from: {change}}}\n",
    )
    project.declare(text.replace("    - 14\n", f"    - {{value: 14, effective_from: {START}}}\n"))
    assert project.run(START, LAST).success
    changed = content(database_url, ("indicators",))["indicators"]
    other = new_database()
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", other)
    project.declare(
        STATE.format(start=START).replace("configurations:\n", "configurations:\n  indicators.ema_window: 20\n")
    )
    assert project.run(START, LAST).success
    always = content(other, ("indicators",))["indicators"]
    first = datetime(change.year, change.month, change.day, tzinfo=UTC)
    assert [row for row in changed if row[2] >= first] == [row for row in always if row[2] >= first]
    assert [row for row in changed if row[2] < first] != [row for row in always if row[2] < first]


def test_published_digits_are_what_select_shows(project: Project, database_url):
    assert project.run(START, LAST).success
    published = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT open::text, high::text, low::text, close::text, volume::text, quote_asset_volume::text "
            'FROM market_data ORDER BY "timestamp"'
        ).fetchall()
    for shown, name in zip(
        zip(*rows, strict=True), ("open", "high", "low", "close", "volume", "quote_volume"), strict=True
    ):
        assert [text.rstrip("0").rstrip(".") for text in shown] == [
            text.rstrip("0").rstrip(".") for text in published[name]
        ]


def test_a_confirmed_gap_is_recorded_and_not_fetched_again(project: Project, database_url):
    whole = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9)
    project.publish(pl.concat([whole.head(30), whole.tail(-34)]))
    assert project.run(START, LAST).success
    with psycopg.connect(database_url) as connection:
        gaps = connection.execute("SELECT first_open, end_open, reason, evidence FROM gaps").fetchall()
        complete = connection.execute(
            """SELECT bool_and(complete_through = (day + 1)::timestamp AT TIME ZONE 'UTC') FROM lineage
                WHERE table_name = 'market_data'"""
        ).fetchone()[0]
    opened = datetime(2024, 1, 31, 6, tzinfo=UTC)
    assert [(first, end, reason) for first, end, reason, _ in gaps] == [(opened, opened + timedelta(hours=4), "outage")]
    assert "has no candle there" in gaps[0][3]
    assert complete


def test_real_and_simulated_rows_never_mix(project: Project, database_url, monkeypatch):
    assert project.run(START).success
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE exchange SET name = 'simulated'")
    result = project.run(START)
    assert not result.success
    assert "must not mix" in result.error


def test_an_unreachable_database_is_one_sentence(project: Project, monkeypatch):
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", "postgresql://nobody:secret-word@127.0.0.1:9/none")
    monkeypatch.setenv("ALGOBOT_CONNECT_TIMEOUT", "1")
    result = project.run(date(2024, 1, 30))
    assert not result.success
    assert "could not be reached" in result.error or "No connection" in result.error
    assert "secret-word" not in result.error

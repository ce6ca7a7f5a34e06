"""The questions people ask are answered from the months they are about, and by keys where that is claimed.

The database is small, so whole leaves are cheap to read and the planner is told that they are not; what is tested is
that a key serves the question and that no other month is looked at. Times are the affair of benchmarks/scale.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest
from conftest import START, TEMPLATE, Project, published_candles, url_of

from algobot_assets.client import Client
from algobot_assets.schema.windows import Window
from algobot_assets.store.connection import Store
from algobot_assets.store.month_partitions import ensure_months
from algobot_assets.store.reader import scope
from algobot_assets.store.server.control import Server
from algobot_assets.store.writer import months_of
from benchmarks import queries

LAST = START + timedelta(days=8)
TABLES = ("market_data", "indicators", "signals")
KEYED = {"Index Scan", "Index Only Scan"}


@pytest.fixture(scope="module")
def filled(
    server: Server, dagster_instance: dg.DagsterInstance, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """Ten days at the turn of two months, after two years of months and before those made ahead; tests only read."""
    name = f"plans_{os.getpid()}"
    server.ensure_database(name, template=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALGOBOT_DATABASE_URL", url_of(server, name))
        patch.setenv("ALGOBOT_SOURCE", "binance")
        project = Project(tmp_path_factory.mktemp("plans"), dagster_instance)
        project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9))
        assert project.run(START, LAST).success
        with Store.open() as store:
            ensure_months(store, [date(2022 + number // 12, number % 12 + 1, 1) for number in range(29)])
            with psycopg.connect(store.database.conninfo(), autocommit=True) as connection:
                connection.execute("VACUUM (ANALYZE)")
        usual = Store.session.fget
        patch.setattr(Store, "session", property(lambda self: {**usual(self), "enable_seqscan": "off"}))
        with Store.open() as store:
            yield store
    server.drop_database(name)


@pytest.fixture
def store(filled: Store) -> Store:
    return filled


@pytest.fixture
def client(store: Store) -> Iterator[Client]:
    with Client(store.database) as opened:
        yield opened


def asked(client: Client, question: str) -> dict[str, set[str]]:
    """Leaves that the client's question looks at, each with how."""
    with queries.explained() as plans:
        answer = queries.asked("BTCUSDT", "cross", date(2024, 2, 1), "1h")[question](client)
    assert answer is not None and plans.statements
    return plans.scans(*TABLES)


def recent(found: dict[str, set[str]]) -> bool:
    """Whether nothing older is looked at than the month before the newest rows: a weekly candle opens there."""
    return min(leaf[-7:] for leaf in found) >= "2024_01"


def test_candles_with_indicators_are_read_from_their_month(client: Client):
    found = asked(client, "candles with indicators, a month")
    # the age of the data is asked for too, from the newest month with rows on
    assert {"market_data_2024_02", "indicators_2024_02"} <= set(found) and recent(found)
    with queries.explained() as plans:
        client.candles("BTCUSDT", "1h", "2024-01-30", "2024-01-31", columns=["timestamp", "close"])
    copied = [plan for text, plan in plans.statements if "close" in text]
    (leaf,) = queries.Plans([("", plan) for plan in copied]).scans(*TABLES).items()
    assert leaf[0] == "market_data_2024_01" and leaf[1] <= KEYED | {"Bitmap Heap Scan"}


def test_the_latest_signal_is_found_by_keys_in_the_newest_months(client: Client):
    found = asked(client, "latest signal")
    assert recent(found)
    assert set().union(*found.values()) <= KEYED
    assert {"signals_2024_02", "market_data_2024_02"} <= set(found)


def test_the_latest_signals_of_all_strategies_are_found_by_keys(client: Client, store: Store):
    with queries.explained() as plans, store.transaction() as connection:
        assert len(connection.execute(queries.LATEST_SIGNALS).fetchall()) == 2
    found = plans.scans(*TABLES)
    assert "signals_2024_02" in found and set().union(*found.values()) <= KEYED
    assert recent(found) and all(leaf.startswith("signals_") for leaf in found)


def test_trades_of_a_strategy_are_found_by_their_key_and_touch_no_candle(client: Client):
    with queries.explained() as plans:
        assert client.trades("cross").frame.height
    assert not plans.scans(*TABLES)
    (trades,) = plans.scans("trade_history").values()
    assert trades <= KEYED | {"Bitmap Heap Scan"}


def test_the_catalogue_reads_one_entry_of_a_key_at_each_end_of_a_market(client: Client, store: Store):
    found = asked(client, "markets")
    assert found and set().union(*found.values()) == {"Index Only Scan"}, "rows of candles are not looked at"
    with queries.explained() as plans:
        client.markets()
    rows = [
        node["Actual Rows"] * node["Actual Loops"]
        for node in plans.nodes()
        if node.get("Relation Name", "").startswith("market_data")
    ]
    assert sum(rows) == 2, "the first and the last candle"


def test_a_months_window_touches_its_leaf_only(client: Client, store: Store):
    window = Window("market_data", date(2024, 2, 1), date(2024, 2, 7), "BTCUSDT", "1h")
    condition, parameters = scope(window)
    with queries.explained() as plans, store.transaction() as connection:
        statement = psycopg.sql.SQL("SELECT count(*) FROM market_data AS t WHERE {}").format(condition)
        assert connection.execute(statement, parameters).fetchone()[0]
    assert set(plans.scans(*TABLES)) == {f"market_data_{month:%Y_%m}" for month in months_of(window)}

"""A dated contract in real runs: after its delivery nothing is missing, nothing is asked again, nothing is late."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from test_symbols import CONTRACT, DELIVERY, LIFE, PRICES

from algobot_assets.audit.gaps import missing_days
from algobot_assets.audit.staleness import complete_through, stale
from algobot_assets.cli import runs
from algobot_assets.cli.summary import CONFIRMED_GAPS
from algobot_assets.defs.checks.candle_age import find_late_markets
from algobot_assets.defs.resources import FeedResource, StateResource
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.schema.intervals import midnight
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store

TABLES = ("market_data", "indicators")
FIRST, TODAY = date(2021, 3, 20), date(2021, 3, 30)
MARKETS = [(CONTRACT, "1h"), (LIFE, "1h")]


def rows(url: str, query: str) -> list[tuple]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def state(tmp_path: Path) -> StateResource:
    path = tmp_path / "algobot.yaml"
    lines = [f"  - {{symbol: {symbol}, interval: {interval}, start: {FIRST}}}" for symbol, interval in MARKETS]
    path.write_text("\n".join(["markets:", *lines]))
    return StateResource(path=str(path))


def expect_an_end(url: str, now: datetime) -> None:
    """Both tables hold the contract's seven days, complete; only the other market is behind."""
    query = """SELECT table_name, max(day), count(*), max(complete_through), sum(rows)::int FROM lineage
                WHERE symbol LIKE 'BTCUSDT%' GROUP BY 1 ORDER BY 1"""
    whole = (date(2021, 3, 26), 7, datetime(2021, 3, 27, tzinfo=UTC), 6 * 24 + 8)
    assert rows(url, query) == [("indicators", *whole), ("market_data", *whole)]
    gaps = rows(url, "SELECT first_open, end_open, reason FROM gaps WHERE symbol LIKE 'BTCUSDT%'")
    assert gaps == [(DELIVERY, datetime(2021, 3, 27, tzinfo=UTC), "delivery")]
    assert rows(url, CONFIRMED_GAPS) == []
    with Store.open(Settings()) as store:
        assert complete_through(store) == midnight(TODAY) + timedelta(hours=12)
        assert missing_days(store, MARKETS) == []
        assert stale(store).is_empty()
        assert find_late_markets(store, MARKETS, now, timedelta(hours=2)) == []


def test_a_contract_of_the_exchange_ends_with_its_delivery(
    state: StateResource, database_url: str, dagster_instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2021, 3, 30, 12, 10, tzinfo=UTC)
    simulated = SimulatedExchange(PRICES, now=now)
    url = simulated.start()
    for name in ("EXCHANGE_URL", "FUTURES_URL", "ARCHIVE_URL"):
        monkeypatch.setenv(f"ALGOBOT_{name}", url)
    resources = {"feed": FeedResource(), "state": state}
    try:
        result = runs.materialise(dagster_instance, FIRST, TODAY, TABLES, resources=resources)
        assert result.success and result.skipped == (), (result.error, result.skipped)
        expect_an_end(database_url, now)
        simulated.advance(3600)
        simulated.requests.clear()
        for options in ({}, {table: {"markets": [f"{CONTRACT} 1h"]} for table in TABLES}):
            first = date(2021, 3, 28) if options else FIRST
            result = runs.materialise(dagster_instance, first, TODAY, TABLES, options=options, resources=resources)
            assert result.success and result.skipped == (), (result.error, result.skipped)
        assert not [path for path in simulated.requests if "fapi" in path or "210326" in path]
    finally:
        simulated.stop()


def test_a_contract_of_a_folder_ends_with_its_delivery(
    state: StateResource, database_url: str, dagster_instance, tmp_path: Path
) -> None:
    folder = tmp_path / "klines"
    folder.mkdir()
    end = datetime(2021, 3, 30, 12, tzinfo=UTC)
    for symbol, name in ((CONTRACT, "BTCUSDT_210326"), (LIFE, LIFE)):
        candles = PRICES.candles(symbol, "1h", date(2021, 3, 1), end)
        candles.filter(candles["open_time"] < int(end.timestamp() * 1000)).write_csv(folder / f"{name}-1h-2021-03.csv")
    resources = {"feed": FeedResource(source=str(folder)), "state": state}
    result = runs.materialise(dagster_instance, FIRST, TODAY, TABLES, resources=resources)
    assert result.success and result.skipped == (), (result.error, result.skipped)
    expect_an_end(database_url, end)
    later = date(2021, 4, 2)
    only = {table: {"markets": [f"{CONTRACT} 1h"]} for table in TABLES}
    result = runs.materialise(dagster_instance, date(2021, 4, 1), later, TABLES, options=only, resources=resources)
    assert result.success and result.skipped == (), (result.error, result.skipped)

"""Runs side by side: writers of one month wait and say for whom, and the exchange's limits hold over all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from conftest import published_candles

from algobot_assets.errors import StoreError
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.klines import from_published
from algobot_assets.feed.retry import Retry
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.simulated.faults import Answer
from algobot_assets.schema.frames import empty
from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store import connection as connections
from algobot_assets.store.advisory_locks import lock_months
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.month_partitions import ensure_months
from algobot_assets.store.writer import write_window

DAY = date(2024, 1, 31)


def test_a_writer_that_times_out_names_the_session_it_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "ATTEMPTS", 1)
    window = Window("market_data", DAY, DAY + timedelta(days=1), "BTCUSDT", "1h")
    inputs = [DayInputs(DAY, datetime(2024, 2, 1, tzinfo=UTC))]
    patient = store.database
    with Store(replace(patient, lock_timeout=0.1), "second") as second, Store(patient, "first") as first:
        with first.transaction() as connection:
            lock_months(connection, "market_data", [DAY.replace(day=1)])
            with pytest.raises(StoreError, match=r"2024-01-31 was not written.* by algobot first of \w+ \(process \d+"):
                write_window(second, window, empty("market_data"), inputs)
            other = replace(window, first=date(2024, 2, 1), end=date(2024, 2, 2))
            days = [DayInputs(other.first, datetime(2024, 2, 2, tzinfo=UTC))]
            assert write_window(second, other, empty("market_data"), days).rows == 0, "another month does not wait"
        assert write_window(second, window, empty("market_data"), inputs).rows == 0


def test_a_writer_that_times_out_on_a_table_lock_says_so(store: Store, new_database, monkeypatch):
    """Not for a writer of the same month in another database of the server, nor for one of another month."""
    monkeypatch.setattr(connections, "ATTEMPTS", 1)
    window = Window("market_data", DAY, DAY + timedelta(days=1), "BTCUSDT", "1h")
    inputs, month = [DayInputs(DAY, datetime(2024, 2, 1, tzinfo=UTC))], DAY.replace(day=1)
    ensure_months(store, [month])
    with (
        Store(replace(store.database, lock_timeout=0.1), "second") as second,
        psycopg.connect(new_database(), application_name="elsewhere") as elsewhere,
        Store(store.database, "next month") as other,
        other.transaction() as neighbour,
    ):
        lock_months(elsewhere, "market_data", [month])
        lock_months(neighbour, "market_data", [date(2024, 2, 1)])
        assert write_window(second, window, empty("market_data"), inputs).rows == 0
        with store.transaction() as connection:
            connection.execute("SELECT hold_month(%s)", (month,))
            again = [replace(inputs[0], code_version="another")]
            frame = from_published(published_candles(midnight(DAY), 24), "BTCUSDT", "1h", where="a test")
            with pytest.raises(StoreError, match=r"or a partition of it is locked by algobot test of \w+ \(") as said:
                write_window(second, window, frame, again)
        assert "elsewhere" not in str(said.value) and "next month" not in str(said.value)
        assert write_window(second, window, frame, again).inserted == 24


def test_the_exchanges_limit_holds_over_clients_that_do_not_know_of_one_another():
    simulated = SimulatedExchange(now=datetime(2024, 1, 31, 12, tzinfo=UTC), weight_limit=60)
    answered: Counter[int] = Counter()
    answer = simulated.answer

    def counted(target: str) -> Answer:
        found = answer(target)
        answered[found.status] += 1
        return found

    simulated.answer = counted
    url = simulated.start()
    retry = Retry(sleep=simulated.advance, clock=simulated.timestamp, chance=lambda: 0.0)
    clients = [Exchange(url, retry=retry) for _ in range(3)]
    lo = datetime(2024, 1, 1, tzinfo=UTC)
    for client in clients:
        client.server_time()
        client.rules("BTCUSDT")
    for number in range(40):
        found = list(clients[number % 3].fetch_closed("BTCUSDT", "1h", lo, lo + timedelta(hours=9), simulated.now()))
        assert sum(item.frame.height for item in found) == 9
    simulated.stop()
    # each knows the exchange's count as of its own last answer, so at a minute's end each may ask once too often
    assert answered[429] <= len(clients) and answered[200] >= 40 and set(answered) <= {200, 429}
    for client in clients:
        client.close()

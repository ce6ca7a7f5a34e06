"""The feed in real runs against the simulated exchange: nothing twice, killed and resumed, replaced files, gaps."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import psycopg
import pytest
from conftest import Project, published_candles
from tables import content

from algobot_assets.audit import staleness as freshness
from algobot_assets.cli import runs
from algobot_assets.cli.console import progress
from algobot_assets.cli.summary import CONFIRMED_GAPS
from algobot_assets.defs.resources import FeedResource, StateResource
from algobot_assets.feed.open import open_source
from algobot_assets.feed.simulated import faults
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.simulated.prices import SimulatedPrices
from algobot_assets.pipeline.candles.market_data import LOG
from algobot_assets.pipeline.candles.republished import republished
from algobot_assets.pipeline.code_versions import register_code
from algobot_assets.schema.intervals import days_between
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store

CANDLES = ("market_data",)


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)


class Live:
    """A simulated exchange that the settings name as Binance, and runs that fetch from it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, simulated: SimulatedExchange) -> None:
        self.state = folder / "algobot.yaml"
        self.instance = instance
        self.simulated = simulated

    def declare(self, *markets: str) -> None:
        """Markets written "BTCUSDT 1h 2024-01-01"."""
        rows = [dict(zip(("symbol", "interval", "start"), m.split(), strict=True)) for m in markets]
        lines = [f"  - {{{', '.join(f'{k}: {v}' for k, v in row.items())}}}" for row in rows]
        self.state.write_text("\n".join(["markets:", *lines, "strategies: {}", "configurations: {}"]))

    def run(self, first: date, last: date, tables: tuple[str, ...] = CANDLES, **options: dict) -> runs.RunResult:
        """One range run that succeeds and leaves nobody out."""
        resources = {"feed": FeedResource(), "state": StateResource(path=str(self.state))}
        result = runs.materialise(self.instance, first, last, tables, options=options, resources=resources)
        assert result.success and result.skipped == (), (result.error, result.skipped)
        return result

    def asked(self, text: str) -> int:
        """Requests so far whose path contains ``text``."""
        return sum(number for path, number in self.simulated.requests.items() if text in path)


@pytest.fixture
def live(
    tmp_path: Path, database_url: str, dagster_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Live]]:
    started: list[SimulatedExchange] = []

    def start(now: datetime, **options: object) -> Live:
        simulated = SimulatedExchange(now=now, **options)
        url = simulated.start()
        started.append(simulated)
        for name in ("EXCHANGE_URL", "FUTURES_URL", "ARCHIVE_URL"):
            monkeypatch.setenv(f"ALGOBOT_{name}", url)
        return Live(tmp_path, dagster_instance, simulated)

    yield start
    for simulated in started:
        simulated.stop()


def rows(url: str, query: str) -> list[tuple]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


GAPS = "SELECT first_open, end_open, reason, evidence FROM gaps ORDER BY first_open"


def test_a_second_run_fetches_nothing(live, database_url):
    now = utc(2024, 5, 10, 12, 34, 20)
    there = live(now)
    there.declare(
        "BTCUSDT 1h 2024-03-01", "BTCUSDT 1d 2024-03-01", "DOGEUSDT 3d 2024-03-01", "BTCUSDT.UM 15m 2024-04-20"
    )
    there.run(date(2024, 3, 1), now.date())
    assert there.asked("klines") > 0 and there.asked("/data/") > 0
    stored = content(database_url, ("market_data", "lineage"))
    for later in (timedelta(), timedelta(minutes=4)):  # no candle closes in these minutes
        there.simulated.set_time(now + later)
        there.simulated.requests.clear()
        there.run(date(2024, 3, 1), now.date())
        # the run's own question, and that of the check of the newest candle's age
        assert dict(there.simulated.requests) == {"/api/v3/time": 2}
        assert content(database_url, ("market_data", "lineage")) == stored
    there.simulated.set_time(utc(2024, 5, 10, 13, 0, 1))
    there.run(date(2024, 3, 1), now.date())
    newest = rows(database_url, """SELECT max("timestamp") FROM market_data WHERE "interval" = '1h'""")
    assert newest == [(utc(2024, 5, 10, 12),)]
    assert there.asked("/data/") == 0


_CHILD = """
import sys
from datetime import date
import dagster as dg
from algobot_assets.cli import runs
from algobot_assets.defs.resources import StateResource

with dg.DagsterInstance.ephemeral() as instance:
    state = StateResource(path=sys.argv[1])
    runs.materialise(instance, date(2024, 1, 1), date(2024, 4, 30), ("market_data",), resources={"state": state})
"""


def test_a_killed_backfill_resumes(live, database_url, new_database, monkeypatch):
    there = live(utc(2024, 5, 10, 12))
    there.declare("BTCUSDT 15m 2024-01-01")

    def path(month: int) -> str:
        return f"/data/spot/monthly/klines/BTCUSDT/15m/BTCUSDT-15m-2024-0{month}.zip"

    # March hangs in the middle of its file, so the kill comes while January is stored and April is not
    stall = faults.stalled("", 25)
    stall.where = lambda target: target == path(3)
    there.simulated.faults.append(stall)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_CHILD), str(there.state)],
        env={**os.environ, "DAGSTER_DISABLE_TELEMETRY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 120
        stored = "SELECT count(*) FROM lineage WHERE table_name = 'market_data' AND day < '2024-02-01'"
        while there.simulated.requests[path(3)] == 0 or rows(database_url, stored) != [(31,)]:
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    per_day = rows(
        database_url,
        """SELECT (SELECT count(*) FROM market_data AS m WHERE m."timestamp" >= day AND m."timestamp" < day + 1), rows
             FROM lineage WHERE table_name = 'market_data'""",
    )
    assert set(per_day) == {(96, 96)}
    assert rows(database_url, "SELECT count(*) FROM market_data") == [(96 * len(per_day),)]
    assert len(per_day) in (31, 60)
    there.simulated.requests.clear()
    there.run(date(2024, 1, 1), date(2024, 4, 30))
    assert there.simulated.requests[path(1)] == 0
    assert there.simulated.requests[path(3)] == there.simulated.requests[path(4)] == 1
    resumed = content(database_url, ("market_data", "lineage"))
    other = new_database()
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", other)
    there.run(date(2024, 1, 1), date(2024, 4, 30))
    assert content(other, ("market_data", "lineage")) == resumed
    assert len(resumed["market_data"]) == 96 * 121


def test_a_republished_archive_is_noticed_and_its_days_fetched_again(live, database_url, store: Store):
    there = live(utc(2024, 5, 10, 12))
    there.declare("BTCUSDT 1h 2024-02-01", "ETHUSDT 1h 2024-03-01")
    both = ("market_data", "indicators")
    there.run(date(2024, 2, 1), date(2024, 4, 30), both)
    april = "data/spot/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2024-04.zip"
    # a value of which REST's candle of the day says nothing, else the day would be taken from REST
    taker = rows(
        database_url,
        """SELECT taker_buy_base FROM market_data WHERE symbol = 'BTCUSDT' AND "timestamp" = '2024-04-17 05:00+00'""",
    )[0][0]
    register_code(store)
    assert freshness.due(store) is None

    def compare(**options: object) -> object:
        there.simulated.requests.clear()
        with open_source(Settings()) as source:
            return republished(store, source, **options)

    quiet = compare()
    assert (quiet.files, quiet.checked, quiet.replaced) == (5, 5, ())
    there.simulated.republish(april, faults.replaced(f",{taker:f},".encode(), b",0.00000001,"))
    noticed = compare()
    assert [(item.symbol, item.name) for item in noticed.replaced] == [("BTCUSDT", "BTCUSDT-1h-2024-04.zip")]
    assert noticed.days == days_between(date(2024, 4, 1), date(2024, 5, 1))
    assert sum(there.simulated.requests.values()) == there.asked(".CHECKSUM") == 5
    assert compare(limit=2).checked == 2
    there.simulated.requests.clear()
    there.run(date(2024, 4, 1), date(2024, 4, 30), market_data={"check_archives": True})
    assert there.asked(".zip") - there.asked(".CHECKSUM") == 1, "one file is fetched, the other's checksum only asked"
    changed = rows(database_url, 'SELECT "timestamp" FROM market_data WHERE taker_buy_base = 0.00000001')
    assert changed == [(utc(2024, 4, 17, 5),)]
    assert compare().replaced == ()
    due = freshness.due(store)
    assert due.first == date(2024, 4, 17) and due.tables[0] == "indicators"


def test_a_delisted_market_has_one_gap_that_grows(live, database_url, store: Store):
    there = live(utc(2024, 9, 20, 12))
    there.declare("GONEUSDT 1h 2024-08-25")
    there.run(date(2024, 8, 25), date(2024, 9, 20))
    last = utc(2024, 9, 8, 9)
    assert [row[:3] for row in rows(database_url, GAPS)] == [(last, utc(2024, 9, 20, 12), "delisting")]
    for now in (utc(2024, 9, 21, 7), utc(2024, 10, 3, 1)):
        there.simulated.set_time(now)
        there.run(date(2024, 9, 20), now.date())
        [(first, end, reason, evidence)] = rows(database_url, GAPS)
        assert (first, end, reason) == (last, now, "delisting")
    assert evidence.count("its status is BREAK") == 1 and "api/v3/klines has no candle there" in evidence
    assert rows(database_url, CONFIRMED_GAPS)[0][:4] == ("GONEUSDT", "1h", "delisting", 1)
    assert rows(database_url, "SELECT status FROM symbol_rules") == [("BREAK",)]


def test_a_halt_ends_when_trading_resumes(live, database_url):
    halt = (utc(2024, 5, 9, 10), utc(2024, 5, 10, 15))
    there = live(utc(2024, 5, 10, 12), prices=SimulatedPrices(outages=(halt,)))
    there.declare("BTCUSDT 1h 2024-05-08")

    def halted(answer: faults.Answer) -> faults.Answer:
        answer.body = answer.body.replace(b'"TRADING"', b'"HALT"')
        return answer

    there.simulated.faults.append(faults.Fault("exchangeInfo", halted))
    there.run(date(2024, 5, 8), date(2024, 5, 10))
    assert [row[:3] for row in rows(database_url, GAPS)] == [(halt[0], utc(2024, 5, 10, 12), "halt")]
    there.simulated.set_time(utc(2024, 5, 10, 18))
    there.run(date(2024, 5, 8), date(2024, 5, 10))
    assert [row[:3] for row in rows(database_url, GAPS)] == [(*halt, "outage")]


def test_a_symbol_used_for_another_coin_is_flagged(project: Project, database_url):
    start, gap = utc(2024, 1, 30), timedelta(hours=437)
    before = published_candles(start, 24 * 15, price=0.00005, decimals=8)
    after = published_candles(start + timedelta(days=15) + gap, 24 * 5, price=1.0, decimals=8, seed=2)
    project.publish(pl.concat([before, after]))
    for last in (date(2024, 2, 29), date(2024, 3, 6)):  # the gap lies in two months, fetched one after the other
        assert project.run(start.date(), last, CANDLES).success
    [(first, end, reason, evidence)] = rows(database_url, GAPS)
    assert (first, end, reason) == (start + timedelta(days=15), start + timedelta(days=15) + gap, "reuse?")
    assert f"its price went from {float(before['close'][-1]):.8f}".rstrip("0") in evidence and " to 1" in evidence
    # as long a gap without another price is an outage
    project.publish(pl.concat([before, published_candles(start, 2000, price=0.00005, decimals=8).slice(24 * 33, 120)]))
    assert project.run(start.date(), date(2024, 3, 6), CANDLES, market_data={"from_source": True}).success
    assert [row[2] for row in rows(database_url, GAPS)] == ["outage"]


def test_notes_of_the_source_are_stored_with_the_candles(live, database_url, caplog):
    there = live(utc(2024, 5, 10, 12))
    there.declare("ETHUSDT 1h 2024-03-01")
    there.simulated.faults.append(faults.wrong_checksum("2024-04.zip.CHECKSUM", times=9))
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        there.run(date(2024, 3, 1), date(2024, 4, 30))
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
    notes = rows(database_url, "SELECT day, kind, note FROM sources WHERE note IS NOT NULL")
    assert len(notes) == 1
    day, kind, note = notes[0]
    assert day == date(2024, 4, 1) and kind in ("rest", "daily archive")
    assert "ETHUSDT-1h-2024-04.zip does not have its published checksum" in note
    assert [r.planned for r in records if hasattr(r, "planned")] == [2]
    assert [r.fetching for r in records if hasattr(r, "fetching")] == ["ETHUSDT 1h 2024-03", "ETHUSDT 1h 2024-04"]


def test_a_market_that_fails_in_the_middle_keeps_what_came_before(live, database_url):
    there = live(utc(2024, 5, 10, 12))
    there.declare("BTCUSDT 1h 2024-02-01", "ETHUSDT 1h 2024-02-01")
    there.simulated.faults.append(faults.error("BTCUSDT-1h-2024-03.zip", 451, times=99))
    resources = {"feed": FeedResource(), "state": StateResource(path=str(there.state))}
    result = runs.materialise(there.instance, date(2024, 2, 1), date(2024, 4, 30), CANDLES, resources=resources)
    assert result.success
    assert len(result.skipped) == 1 and "BTCUSDT-1h-2024-03.zip" in result.skipped[0]
    stored = rows(database_url, "SELECT symbol, min(day)::text, max(day)::text FROM lineage GROUP BY 1 ORDER BY 1")
    assert stored == [("BTCUSDT", "2024-02-01", "2024-02-29"), ("ETHUSDT", "2024-02-01", "2024-04-30")]


def test_the_terminal_shows_market_month_and_share():
    with progress("nothing") as shown:
        for record in ({"planned": 3}, {"fetching": "BTCUSDT 1m 2024-03"}, {"rows": 44640, "days": "2024-03"}):
            LOG.info("", extra={"table": "market_data", **record})
        LOG.info("", extra={"table": "signals", "rows": 5, "days": "2024-03"})
        candles, signals = (next(t for t in shown.tasks if t.description == n) for n in ("market_data", "signals"))
        assert (candles.completed, candles.total, candles.fields["rows"]) == (1, 3, 44640)
        assert candles.fields["state"] == "BTCUSDT 1m 2024-03"
        assert (signals.total, signals.fields["rows"], signals.fields["state"]) == (None, 5, "2024-03")

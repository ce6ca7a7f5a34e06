"""Faults at any moment: what is stored is the old state or the new one, errors are sentences, the next run heals.

Everything is real: processes are killed, PostgreSQL is killed, wires are cut, disks are full. The default suite
injects a few faults of each kind; `pytest -m slow tests/test_faults.py` injects ALGOBOT_KILLS (default 200) of them,
drawn with the seed ALGOBOT_SEED (default 1); ALGOBOT_MIGRATIONS (default 1) migrations are killed. The
suite is itself tested: a writer without transactions fails it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import psycopg
import pytest
from conftest import TEMPLATE, url_of
from faults import (
    FIRST,
    LAST,
    WINDOW,
    Content,
    Wire,
    candles,
    inputs,
    publish,
    quiet,
    rest,
    run,
    run_here,
    torn,
    without_transactions,
)
from faults import Running as Started
from tables import content

from algobot_assets.audit.verify import verify
from algobot_assets.errors import StoreError
from algobot_assets.schema.windows import content_columns
from algobot_assets.settings import Settings
from algobot_assets.store import connection as connections
from algobot_assets.store import migrate
from algobot_assets.store.connection import Store
from algobot_assets.store.database import Database
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import day_digests
from algobot_assets.store.reader import read_window
from algobot_assets.store.server.control import Server, discard, ensure_running
from algobot_assets.store.writer import row_days, write_window

KILLS = int(os.environ.get("ALGOBOT_KILLS", "200"))
MIGRATIONS = int(os.environ.get("ALGOBOT_MIGRATIONS", "1"))
SEED = int(os.environ.get("ALGOBOT_SEED", "1"))
WHEN = ("before", "during", "after")
MakeDatabase = Callable[[], str]


class Undisturbed:
    """What runs that nobody disturbs leave behind: of the first candles, and of others that replace them."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.old, self.new = publish(folder / "old"), publish(folder / "new", seed=2)
        server.ensure_database("test_undisturbed", template=TEMPLATE)
        url = url_of(server, "test_undisturbed")
        first = run(self.old, url)
        assert first.success, first.error
        self.first = rest(url)
        server.ensure_database("template_first", template="test_undisturbed")
        again = run(self.new, url, anew=True)
        assert again.success, again.error
        self.second = rest(url)
        self.statements = {False: first.statements, True: again.statements}
        self.copies = {False: first.copies, True: again.copies}
        assert self.first["market_data"] != self.second["market_data"] and self.first["trade_history"]

    def folder(self, anew: bool) -> Path:
        return self.new if anew else self.old

    def states(self, anew: bool) -> list[Content]:
        return [self.first, self.second] if anew else [self.first]


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    yield Undisturbed(tmp_path_factory.mktemp("undisturbed"), server)
    for name in ("test_undisturbed", "template_first"):
        server.drop_database(name)


ZONES = (
    {},
    {"TZ": "Pacific/Kiritimati", "PGTZ": "Asia/Kathmandu", "PGDATESTYLE": "German"},
    {"TZ": "America/St_Johns"},
)


def killed(undisturbed: Undisturbed, server: Server, draw: random.Random, anew: bool, kills: int) -> tuple[int, int]:
    """Kill a run at a random statement, and the runs after it; after each nothing is torn, and a last one heals.

    Each run lives in a time zone of its own, some with a clock that jumps. How many were killed, and how many ended
    before their statement came because little was left to do.
    """
    name, was_killed, ended_before = f"test_kill_{os.getpid()}", 0, 0
    server.ensure_database(name, template="template_first" if anew else TEMPLATE)
    url, folder = url_of(server, name), undisturbed.folder(anew)
    try:
        for _ in range(kills):
            where = {"number": draw.randint(1, undisturbed.statements[anew]), "when": draw.choice(WHEN)}
            if draw.random() < 0.5:  # in the middle of a write
                where |= {"number": draw.randint(1, 12), "copy": draw.randint(1, undisturbed.copies[anew])}
            around = {"environment": draw.choice(ZONES), "jumps": draw.choice((0, 0, 200_000))}
            ended = run(folder, url, **where, **around, anew=anew)
            assert torn(rest(url), *undisturbed.states(anew)) == [], where
            assert ended.killed or ended.success, ended.error
            was_killed, ended_before = was_killed + ended.killed, ended_before + (not ended.killed)
        healed = run(folder, url, anew=anew)
        assert healed.success, healed.error
        assert rest(url) == undisturbed.states(anew)[-1], "the next run did not heal"
    finally:
        server.drop_database(name)
    return was_killed, ended_before


def test_a_run_is_killed_at_random_statements(undisturbed, server):
    killed(undisturbed, server, random.Random(SEED), anew=True, kills=1)


@pytest.mark.slow
def test_runs_are_killed_hundreds_of_times(undisturbed, server, capsys):
    draw, were_killed, ended_before, number = random.Random(SEED), 0, 0, 0
    while were_killed < KILLS:
        number += 1
        some = killed(undisturbed, server, draw, anew=number % 2 == 1, kills=4)
        were_killed, ended_before = were_killed + some[0], ended_before + some[1]
        with capsys.disabled():
            print(
                f"\n{were_killed} kills of a run, healed {number} times, seed {SEED}, statements per run: "
                f"{undisturbed.statements}; {ended_before} runs ended before their statement came",
                flush=True,
            )


def test_the_suite_finds_a_run_without_transactions(undisturbed, server):
    """A run whose writer keeps what each statement did, killed after the COPY of candles, before their lineage."""
    name = f"test_planted_{os.getpid()}"
    server.ensure_database(name, template=TEMPLATE)
    try:
        url = url_of(server, name)
        assert run(undisturbed.old, url, text="taker_buy_base", planted=True).killed
        assert any(found.startswith("market_data") for found in torn(rest(url), undisturbed.first))
    finally:
        server.drop_database(name)


# --- single windows: faults of the server, of the wire and of the database ---------------------------------------


def stored(store: Store) -> tuple[pl.DataFrame, int]:
    """The window's rows, and how many of its days lineage knows."""
    with store.transaction() as connection:
        known = connection.execute("SELECT count(*) FROM lineage").fetchone()[0]
    return read_window(store, WINDOW), known


def writer_killed(url: str, draw: random.Random, kills: int) -> int:
    """Kill writers that replace all rows of a window, at a random exchange with the server each; how many died.

    After each the window holds the rows of one writer, whole, with their lineage; every tenth writes undisturbed.
    """
    current, died = None, 0
    for number in range(kills):
        where = {} if number % 10 == 9 else {"number": draw.randint(1, 40), "when": draw.choice(WHEN)}
        ended = run(Path(), url, work="write", seed=number + 2, **where)
        quiet(url)
        assert ended.killed or ended.success, ended.error
        with Store.open() as store:
            (rows, known), recorded = stored(store), recorded_as(store)
        whole = {seed: candles(seed) for seed in (current, number + 2) if seed is not None}
        held = [seed for seed, frame in whole.items() if rows.equals(frame)]
        assert held or (current is None and rows.is_empty()), f"{number}: {where} left {rows.height} rows"
        assert ended.killed or held == [number + 2]
        assert known == (4 if held else 0) and recorded == day_digests_of(rows), where
        current, died = held[0] if held else None, died + ended.killed
    return died


def recorded_as(store: Store) -> dict[date, bytes]:
    with store.transaction() as connection:
        return {day: item.output for day, item in lineage.read(connection, WINDOW).items()}


def day_digests_of(rows: pl.DataFrame) -> dict[date, bytes]:
    found = day_digests(rows, content_columns("market_data"), row_days(WINDOW, rows))
    return {day: digest for day, (_, digest) in found.items()}


def test_a_writer_is_killed_at_random_statements(database_url):
    assert writer_killed(database_url, random.Random(SEED), 4) >= 2


@pytest.mark.slow
def test_writers_are_killed_hundreds_of_times(database_url, capsys):
    died = writer_killed(database_url, random.Random(SEED), 2 * KILLS)
    with capsys.disabled():
        print(f"\n{died} kills of a writer, seed {SEED}")


def raising(state: str, times: int) -> Callable[[psycopg.Connection], None]:
    """Something in the writer's transaction that the server fails with a SQLSTATE, the first few times."""
    left = iter(range(times))

    def extra(connection: psycopg.Connection) -> None:
        if next(left, None) is not None:
            connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '{state}'; END $$")

    return extra


@pytest.mark.parametrize("state", [*sorted(connections.RETRYABLE), "08006"])
def test_a_passing_failure_is_tried_again(store, monkeypatch, state):
    monkeypatch.setattr(connections.time, "sleep", lambda seconds: None)
    assert write_window(store, WINDOW, candles(), inputs(), raising(state, 2)).inserted == 96
    before = stored(store)
    with pytest.raises(StoreError, match=rf"planted|not written.*{state}|just been released") as refused:
        write_window(store, WINDOW, candles(2), inputs(), raising(state, connections.ATTEMPTS))
    assert "Traceback" not in str(refused.value) and "CONTEXT" not in str(refused.value)
    found = stored(store)
    assert found[0].equals(before[0]) and found[1] == before[1]
    assert write_window(store, WINDOW, candles(2), inputs()).changed > 0
    assert stored(store)[0].equals(candles(2))


@pytest.mark.parametrize(
    ("state", "said"),
    [("53100", "disk is full"), ("42501", "may not do this"), ("57014", "statement timeout"), ("23505", "planted")],
)
def test_a_lasting_failure_is_not_tried_again(store, state, said):
    refused(store, store, state, said)


def refused(store: Store, writing: Store, state: str, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        write_window(writing, WINDOW, candles(), inputs(), raising(state, 1))  # a second try would succeed
    assert stored(store)[0].is_empty() and stored(store)[1] == 0, "something of it was written"


def test_the_suite_finds_a_writer_without_transactions(store, monkeypatch):
    """The test above, with the bug planted: what was copied before the failure stays."""
    with Store(store.database, "planted") as planted:
        monkeypatch.setattr(planted, "_transaction", lambda: without_transactions(planted))
        with pytest.raises(AssertionError, match="something of it was written"):
            refused(store, planted, "23505", "planted")


def test_a_statement_that_takes_too_long_is_ended(store):
    hasty = replace(store.database, statement_timeout=0.1)
    with Store(hasty, "hasty") as other:
        with pytest.raises(StoreError, match=r"Writing market_data.*ALGOBOT_STATEMENT_TIMEOUT"):
            write_window(other, WINDOW, candles(), inputs(), lambda c: c.execute("SELECT pg_sleep(5)"))
        with pytest.raises(StoreError, match="ALGOBOT_STATEMENT_TIMEOUT"), other.transaction() as connection:
            connection.execute("SELECT pg_sleep(5)")
        assert stored(other)[0].is_empty(), "its connection is of use again"


def test_a_deadlock_with_another_session_is_retried(store, database_url):
    """A stranger holds the second month and asks for the first while the writer has it."""
    write_window(store, WINDOW, candles(), inputs())
    with psycopg.connect(database_url) as stranger:
        lock = "SELECT pg_advisory_xact_lock(hashtext('x'), %s)"
        stranger.execute(lock, (2,))
        met = threading.Event()
        lost: list[str] = []

        def extra(connection: psycopg.Connection) -> None:
            connection.execute(lock, (1,))
            met.set()
            connection.execute(lock, (2,))

        def other() -> None:
            met.wait()
            try:
                stranger.execute(lock, (1,))
            except psycopg.errors.DeadlockDetected as error:
                lost.append(str(error))
            stranger.rollback()

        thread = threading.Thread(target=other)
        thread.start()
        assert write_window(store, WINDOW, candles(2), inputs(), extra).changed > 0
        thread.join()
    assert stored(store)[0].equals(candles(2))


@pytest.mark.parametrize("writers", [2, 8])
def test_writers_on_the_same_and_on_neighbouring_windows(store, writers):
    """Each writes its own version of January, of February and of both, in its own order."""
    february = date(2024, 2, 1)
    parts = [WINDOW, WINDOW.of(FIRST, february), WINDOW.of(february, LAST + timedelta(days=1))]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            with Store(store.database, f"writer {seed}") as own:
                for part in random.Random(seed).sample(parts, 3):
                    frame = candles(seed).filter(pl.col("timestamp").is_between(*part.bounds, closed="left"))
                    write_window(own, part, frame, inputs(part))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows, known = stored(store)
    assert rows.height == 96 and known == 4
    for part in parts[1:]:
        found = rows.filter(pl.col("timestamp").is_between(*part.bounds, closed="left"))
        assert any(
            found.equals(candles(seed).filter(pl.col("timestamp").is_between(*part.bounds, closed="left")))
            for seed in range(writers)
        ), "a month is one writer's whole"


def cut(database_url: str, folder: Path, budget: int, cuts: int) -> tuple[Wire, Store]:
    """A store whose wire is cut."""
    parameters = psycopg.conninfo.conninfo_to_dict(database_url)
    folder.mkdir()
    wire = Wire(folder, f"{parameters['host']}/.s.PGSQL.{parameters.get('port', 5432)}", budget, cuts)
    url = database_url.split("?")[0] + f"?host={folder}&port=5432"
    return wire, Store.open(Settings(database_url=url, _env_file=None), "cut")


def some_cuts(number: int) -> list[int]:
    draw = random.Random(SEED)
    return sorted(draw.randint(1_500, 24_000) for _ in range(number))


def cut_in_copy(store: Store, database_url: str, folder: Path, budgets: list[int]) -> int:
    """Cut the wire after each budget of bytes, for good and for a while; how many cuts there were."""
    made = 0
    for number, budget in enumerate(budgets):
        before = stored(store)
        frame = candles(number + 10)
        wire, torn_store = cut(database_url, folder / str(number), budget, cuts=100)
        with torn_store:
            try:
                write_window(torn_store, WINDOW, frame, inputs())
            except StoreError as error:
                sentences = ("Writing market_data", "Making partitions", "could not be reached")
                assert any(words in str(error) for words in sentences), error
                found = stored(store)
                assert found[0].equals(before[0]) and found[1] == before[1], f"cut after {budget} bytes"
            made += wire.made
        wire.close()
        frame = candles(number + 50)
        wire, torn_store = cut(database_url, folder / f"{number}-passing", budget, cuts=1)
        with torn_store:
            write_window(torn_store, WINDOW, frame, inputs())
            assert stored(store)[0].equals(frame), "it heals by itself"
            made += wire.made
        wire.close()
    return made


def test_a_connection_is_cut_in_the_middle_of_copy(store, database_url, tmp_path, monkeypatch):
    monkeypatch.setattr(connections.time, "sleep", lambda seconds: None)
    assert cut_in_copy(store, database_url, tmp_path, some_cuts(4)) >= 4


@pytest.mark.slow
def test_connections_are_cut_many_times(store, database_url, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(connections.time, "sleep", lambda seconds: None)
    made = cut_in_copy(store, database_url, tmp_path, some_cuts(KILLS // 4))
    with capsys.disabled():
        print(f"\n{made} cuts of a connection, seed {SEED}")


def test_a_server_without_free_connections_is_one_sentence(database_url):
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE crowded LOGIN CONNECTION LIMIT 1")
        owner.execute("GRANT pg_read_all_data, pg_write_all_data TO crowded")
    try:
        url = database_url.replace("algobot@", "crowded@").replace("connect_timeout=10", "connect_timeout=1")
        settings = Settings(database_url=url, _env_file=None)
        with Store(Database.from_url(settings)) as crowded, psycopg.connect(url):
            with pytest.raises(StoreError, match=r"too many connections.*then run again"), crowded.transaction():
                pass
            with pytest.raises(StoreError, match="too many connections"):
                write_window(crowded, WINDOW, candles(), inputs())
        with Store(Database.from_url(settings)) as free, free.transaction() as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("crowded",)
    finally:
        with psycopg.connect(database_url, autocommit=True) as owner:
            owner.execute("DROP OWNED BY crowded")
            owner.execute("DROP ROLE crowded")


def test_a_tampered_state_is_noticed_and_healed(undisturbed, server, monkeypatch):
    """Verify names it, the next run computes the day again, a run that would start from it refuses."""
    server.ensure_database("test_tampered", template="template_first")
    url = url_of(server, "test_tampered")
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", url)
    monkeypatch.setenv("ALGOBOT_SOURCE", "binance")
    try:
        with psycopg.connect(url) as connection:
            connection.execute(
                """UPDATE lineage SET state_out[1] = coalesce(state_out[1], 0) + 1
                    WHERE table_name IN ('indicators', 'trade_history') AND day = '2024-01-31'"""
            )
            shown = connection.execute("SELECT table_name, day::text, reason FROM stale_partitions").fetchall()
            assert set(shown) == {(table, "2024-01-31", "changed by hand") for table in ("indicators", "trade_history")}
        with Store.open() as opened:
            said = {finding.table: finding.difference for finding in verify(opened, FIRST, LAST)}
        assert "carried state differs" in said["indicators"] and "carried state" in said["trade_history"]
        healed = run_here(undisturbed.old)
        assert healed.success, healed.error
        quiet(url)
        assert content(url) == undisturbed.first
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM stale_partitions").fetchone() == (0,)
    finally:
        server.drop_database("test_tampered")


def test_a_killed_migration_is_repeated_from_its_start(server, tmp_path):
    name = f"test_migration_{os.getpid()}"
    url = server.sqlalchemy_url(name)
    draw = random.Random(SEED)
    try:
        server.ensure_database(name)
        for _ in range(MIGRATIONS):
            assert run(tmp_path, url, work="migrate", number=draw.randint(5, 150), when=draw.choice(WHEN)).killed
            quiet(url_of(server, name))
            with psycopg.connect(url_of(server, name)) as connection:
                left = connection.execute(
                    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                ).fetchall()
            assert left == []
        migrate.upgrade(url)
        assert migrate.differences(url) == []
    finally:
        server.drop_database(name)


@pytest.mark.slow
def test_any_time_zone_gives_the_same_rows(undisturbed, server):
    name = f"test_zone_{os.getpid()}"
    server.ensure_database(name, template=TEMPLATE)
    url = url_of(server, name)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} SET timezone = 'America/St_Johns'")
        zones = {"TZ": "Pacific/Kiritimati", "PGTZ": "Asia/Kathmandu", "PGDATESTYLE": "German"}
        ended = run(undisturbed.old, url, environment=zones)
        assert ended.success, ended.error
        with psycopg.connect(url, autocommit=True) as connection:  # for the comparison; nothing stored depends on it
            connection.execute(f"ALTER DATABASE {name} RESET timezone")
        assert rest(url) == undisturbed.first
    finally:
        server.drop_database(name)


# --- the server itself ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A server that may be killed, with fsync as users have it."""
    settings = Settings(home=tmp_path_factory.mktemp("own"), database_url=None, source="binance", _env_file=None)
    ensure_running(settings)
    yield settings
    discard(settings)


def migrated(own: Settings) -> str:
    """A new migrated database there, which the settings mean."""
    running = ensure_running(own)
    running.drop_database(own.database)
    running.ensure_database()
    migrate.upgrade(running.sqlalchemy_url())
    return url_of(running, own.database)


def server_dies(own: Settings, undisturbed: Undisturbed, draw: random.Random, victim: str) -> bool:
    """Kill the server or one of its backends during a run, then run again; whether the first run survived."""
    url = migrated(own)
    environment = {"ALGOBOT_HOME": str(own.home), "ALGOBOT_CONNECT_TIMEOUT": "2"}
    started = Started(undisturbed.old, "", environment=environment)
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute("SELECT count(*) FROM lineage").fetchone()[0]:
            time.sleep(0.002)  # the run has begun to write
        time.sleep(draw.uniform(0, 0.4))
        pid = ensure_running(own).pid
        if victim == "backend":
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'algobot %' LIMIT 1"
            ).fetchone()
            pid = found[0] if found else connection.info.backend_pid
    os.kill(pid, signal.SIGKILL)
    ended = started.end()
    assert ended.success or (ended.error and "Stack Trace" not in ended.error), ended.error
    url = url_of(ensure_running(own), own.database)
    assert torn(rest(url), undisturbed.first) == []
    healed = run(undisturbed.old, "", environment=environment)
    assert healed.success, healed.error
    assert rest(url) == undisturbed.first
    return ended.success


def test_a_run_survives_a_killed_postgresql(own, undisturbed):
    server_dies(own, undisturbed, random.Random(SEED), "server")


@pytest.mark.slow
def test_postgresql_is_killed_many_times(own, undisturbed, capsys):
    draw, survived = random.Random(SEED), Counter()
    for number in range(KILLS // 5):
        victim = "server" if number % 2 else "backend"
        survived[victim] += server_dies(own, undisturbed, draw, victim)
    with capsys.disabled():
        print(f"\n{KILLS // 5} kills of PostgreSQL or a backend, seed {SEED}; runs that went on: {dict(survived)}")


def test_a_full_disk_changes_nothing(own, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a small disk can only be mounted by root")
    url = migrated(own)
    disk = Path("/var/lib/algobot") / f"disk{os.getpid()}"
    disk.mkdir(parents=True)
    owner = ensure_running(own).data.stat().st_uid
    options = f"size=256k,mode=700,uid={owner}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], capture_output=True)
    if mounted.returncode:
        disk.rmdir()
        pytest.skip(f"no disk may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            connection.execute("GRANT CREATE ON TABLESPACE small TO PUBLIC")
            connection.execute(f"ALTER DATABASE {own.database} SET default_tablespace = small")
        frame, wide = candles(rows=24 * 40), WINDOW.of(FIRST, FIRST + timedelta(days=40))
        with Store.open(own) as opened:
            with pytest.raises(StoreError, match="disk is full: free space"):
                write_window(opened, wide, frame, inputs(wide))
            assert stored(opened)[0].is_empty() and stored(opened)[1] == 0
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            assert write_window(opened, wide, frame, inputs(wide)).inserted == 24 * 40
            assert read_window(opened, wide).equals(frame)
    finally:
        running = ensure_running(own)
        running.drop_database(own.database)
        with running.connect("postgres", autocommit=True) as connection:
            connection.execute("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()

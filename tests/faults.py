"""What the fault suite is made of: a run that dies at a chosen statement, a wire that is cut, and what must hold after.

The process that dies is a real one, as is the server; nothing is simulated but the moment.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psycopg
from conftest import STATE, Project, days, published_candles
from tables import content

from algobot_assets.cli import runs
from algobot_assets.errors import AlgobotError
from algobot_assets.feed.klines import from_published
from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store import migrate
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.writer import write_window

FIRST = date(2024, 1, 30)
LAST = date(2024, 2, 2)

_processes = multiprocessing.get_context("forkserver")  # a fork of this process would have half of Polars' threads
_processes.set_forkserver_preload(["faults", "numba"])


class Statements:
    """Counts what this process asks the server, and kills it at the one it is told to.

    ``when``: "before" the statement is sent, "after" it is answered, or "during", at most two milliseconds later.
    ``copy``: count from the start of that COPY to the server on, so that writes, few among many reads, are met often.
    ``text``: instead, die when the first statement that holds this text has been answered.
    """

    def __init__(self, number: int = 0, when: str = "before", copy: int = 0, text: str = "") -> None:
        self.number, self.when, self.copy, self.text = number, when, copy, text
        self.seen = self.copies = 0

    def __enter__(self) -> Statements:
        counted, original, lock = self, psycopg.Connection.wait, threading.Lock()

        def wait(connection: psycopg.Connection, *args: Any, **options: Any) -> Any:
            with lock:
                counted.seen += counted.copies >= counted.copy
                mine = 0 < counted.number == counted.seen
            if mine and counted.when == "before":
                die()
            if mine and counted.when == "during":
                threading.Timer(random.uniform(0, 0.002), die).start()
            result = original(connection, *args, **options)
            if mine and counted.when == "after":
                die()
            return result

        begin = psycopg.Cursor.copy

        def copy(cursor: psycopg.Cursor, *args: Any, **options: Any) -> Any:
            with lock:
                counted.copies += "FROM STDIN" in repr(args[0])
            return begin(cursor, *args, **options)

        execute = psycopg.Cursor.execute

        def executed(cursor: psycopg.Cursor, query: Any, *args: Any, **options: Any) -> Any:
            result = execute(cursor, query, *args, **options)
            if counted.text and counted.text in repr(query):
                die()
            return result

        self._undo = contextlib.ExitStack()
        self._undo.callback(setattr, psycopg.Cursor, "execute", execute)
        psycopg.Cursor.execute = executed
        self._undo.callback(setattr, psycopg.Cursor, "copy", begin)
        psycopg.Cursor.copy = copy
        self._undo.callback(setattr, psycopg.Connection, "wait", original)
        psycopg.Connection.wait = wait
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


def die() -> None:
    """The end of this process, as a power cut or the kernel's out-of-memory killer makes it."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def without_transactions(self: Store) -> Iterator[psycopg.Connection]:
    """The bug that the suite must find: in place of ``Store._transaction``, every statement keeps what it did."""
    with self.connection() as connection:
        yield connection


def writing_without_a_transaction(store: Store, work: Callable[[psycopg.Connection], Any]) -> Any:
    """The same bug in the writer alone, so that a whole run gets by with it."""
    with store.connection() as connection:
        return work(connection)


def publish(folder: Path, seed: int = 1) -> Path:
    """A declared state and candles for it, in a folder."""
    (folder / "klines" / "spot").mkdir(parents=True, exist_ok=True)
    (folder / "algobot.yaml").write_text(STATE.format(start=FIRST))
    published_candles(datetime(2024, 1, 30, tzinfo=UTC), 96, seed=seed).write_parquet(
        folder / "klines" / "spot" / "BTCUSDT-1h-all.parquet"
    )
    return folder


WINDOW = Window("market_data", FIRST, LAST + timedelta(days=1), "BTCUSDT", "1h")


def candles(seed: int = 1, first: date = FIRST, rows: int = 96) -> pl.DataFrame:
    return from_published(published_candles(midnight(first), rows, seed=seed), "BTCUSDT", "1h", where="a test")


def inputs(window: Window = WINDOW) -> list[DayInputs]:
    return [DayInputs(day, end_of(day)) for day in days(window.first, (window.end - window.first).days)]


def run_here(folder: Path, anew: bool = False) -> runs.RunResult:
    """One range run of all tables over the folder's candles, in this process; ``anew`` asks the source again."""
    with dg.DagsterInstance.ephemeral() as instance:
        project = Project.__new__(Project)
        project.folder, project.instance = folder, instance
        project.state, project.klines = folder / "algobot.yaml", folder / "klines"
        return project.run(FIRST, LAST, **({"market_data": {"from_source": True}} if anew else {}))


def _run(answer: Connection, folder: Path, options: dict[str, Any]) -> None:
    """In a process of its own."""
    os.environ.clear()  # what is there is from when the server of these processes was started
    os.environ.update(options["environment"])
    time.tzset()
    random.seed(options.get("number", 0))
    if options.get("jumps"):
        clock, jumping = time.time, random.Random(1)
        time.time = lambda: clock() + jumping.choice((-1, 0, 1)) * options["jumps"]
    if options.get("planted"):
        retrying = Store.retrying
        Store.retrying = lambda store, work, what: (
            writing_without_a_transaction(store, work) if what.startswith("Writing") else retrying(store, work, what)
        )
    where = {name: options[name] for name in ("number", "when", "copy", "text") if name in options}
    with Statements(**where) as statements:
        try:
            if options.get("work") == "migrate":
                migrate.upgrade(options["url"])
                said = (True, "")
            elif options.get("work") == "write":
                with Store.open(run_id="killed") as store:
                    write_window(store, WINDOW, candles(options["seed"]), inputs())
                said = (True, "")
            else:
                result = run_here(folder, options.get("anew", False))
                said = (result.success, result.error or "")
        except AlgobotError as error:
            said = (False, str(error))
    answer.send((*said, statements.seen, statements.copies))


class Ended:
    """How a process ended: killed, or with success, an error's text, and the numbers of its statements and COPYs."""

    def __init__(self, process: Any, answer: Connection) -> None:
        self.killed = process.exitcode == -signal.SIGKILL
        self.success, self.error, self.statements, self.copies = (False, "", 0, 0) if self.killed else answer.recv()


class Running:
    """A run in a process of its own, to be joined by ``end``."""

    def __init__(self, folder: Path, url: str, **options: Any) -> None:
        environment = {"ALGOBOT_SOURCE": "binance", **({"ALGOBOT_DATABASE_URL": url} if url else {})}
        options["environment"] = {**os.environ, **environment, **options.get("environment", {})}
        self.answer, theirs = _processes.Pipe(duplex=False)
        self.process = _processes.Process(target=_run, args=(theirs, folder, {**options, "url": url}))
        self.process.start()
        theirs.close()

    def end(self) -> Ended:
        """Wait for its end."""
        self.process.join()
        return Ended(self.process, self.answer)


def run(folder: Path, url: str, **options: Any) -> Ended:
    """A run in a process of its own; ``number`` and ``when`` say where it dies."""
    return Running(folder, url, **options).end()


Content = dict[str, list[tuple[Any, ...]]]


def quiet(url: str) -> None:
    """Wait until the server has noticed that the killed process is gone, and has undone what it left."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(2_000):
            (busy,) = connection.execute(
                """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                      AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
            ).fetchone()
            if not busy:
                return
            connection.execute("SELECT pg_sleep(0.005)")
    raise AssertionError("a killed process still has a connection after ten seconds")


#: Where each table's rows name their strategy (None: they have none), and the time or day they belong to.
_PLACES = {
    "market_data": (None, 2),
    "indicators": (None, 2),
    "signals": (0, 4),
    "trade_history": (0, 2),
    "performance_metrics": (0, 3),
    "backtest_results": (0, 2),
}
Days = dict[tuple[str, str, date], tuple[Counter, Counter]]


def by_day(stored: Content) -> Days:
    """Rows and lineage of each (table, strategy, day)."""
    found: Days = defaultdict(lambda: (Counter(), Counter()))
    for table, (strategy, when) in _PLACES.items():
        for row in stored[table]:
            day = row[when].astimezone(UTC).date() if isinstance(row[when], datetime) else row[when]
            found[table, "" if strategy is None else row[strategy], day][0][_hashed(row)] += 1
    for row in stored["lineage"]:
        found[row[0], row[3], row[5]][1][_hashed(row)] += 1
    return found


def torn(found: Content, *states: Content) -> list[str]:
    """The days that are neither absent nor, rows and lineage together, those of one of ``states``.

    Not looked at where two states meet: performance_metrics, whose rows leave with a trade that is corrected away, in
    the trades' transaction, and come back with the run that heals.
    """
    known = [by_day(state) for state in states]
    return [
        f"{' '.join(map(str, key))}: {rows.total()} rows, {lineage.total()} of lineage, of no state"
        for key, (rows, lineage) in sorted(by_day(found).items())
        if all((rows, lineage) != state.get(key) for state in known)
        and not (len(states) > 1 and key[0] == "performance_metrics")
    ]


def _hashed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


def rest(url: str) -> Content:
    """What is stored once nobody is at it any more."""
    quiet(url)
    return content(url)


def end_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


class Wire:
    """A unix socket in ``folder`` that leads to the server's and is cut after ``budget`` bytes to the server.

    The first ``cuts`` connections that reach the budget are cut, later ones are not.
    """

    def __init__(self, folder: Path, target: str, budget: int, cuts: int) -> None:
        self.target, self.budget, self.cuts, self.made = target, budget, cuts, 0
        self.ends: list[socket.socket] = []
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(folder / ".s.PGSQL.5432"))
        self.listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self.listening.accept()[0]
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.target)
                self.ends += [near, far]
                for ends in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if counted and sent + len(data) > self.budget and self.made < self.cuts:
                    self.made += 1
                    sink.sendall(data[: self.budget - sent])
                    break
                sink.sendall(data)
                sent += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End all connections, and take no more."""
        for end in (self.listening, *self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # closed alone, it stays open to the server while a thread reads from it
            end.close()

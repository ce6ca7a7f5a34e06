"""Whoever does not answer is not waited for without end: the database, the exchange, the archive, the webhook."""

from __future__ import annotations

import ast
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import psycopg
import pytest
from faults import Wire
from pydantic import SecretStr

from algobot_assets import cli
from algobot_assets.cli.app import main
from algobot_assets.defs.automation import webhook
from algobot_assets.errors import SourceUnavailable, StoreError
from algobot_assets.feed import bounded_read
from algobot_assets.feed.archive import Archive
from algobot_assets.feed.archive_files import ArchiveName
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.retry import Retry
from algobot_assets.settings import Settings
from algobot_assets.store import database as databases
from algobot_assets.store import reader
from algobot_assets.store.connection import Store
from algobot_assets.store.database import Database
from algobot_assets.store.session import Session

PACKAGE = Path(cli.__file__).parents[1]
ONCE = Retry(attempts=1)


@pytest.fixture
def silent() -> Iterator[Callable[[bytes], int]]:
    """Ports at which somebody accepts, sends what is given, byte by byte for ever, and never ends."""
    ended = threading.Event()
    opened: list[socket.socket] = []

    def listen(head: bytes = b"") -> int:
        server = socket.create_server(("127.0.0.1", 0))
        opened.append(server)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=trickle, args=(server.accept()[0],), daemon=True).start()

        def trickle(client: socket.socket) -> None:
            opened.append(client)
            with contextlib.suppress(OSError):
                client.sendall(head)
                while head and not ended.wait(0.02):
                    client.sendall(b" ")

        threading.Thread(target=accept, daemon=True).start()
        return server.getsockname()[1]

    yield listen
    ended.set()
    for end in opened:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def test_a_database_that_never_answers_ends_a_command_with_a_sentence(silent, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", f"postgresql://bot@127.0.0.1:{silent()}/none")
    monkeypatch.setenv("ALGOBOT_CONNECT_TIMEOUT", "2")
    monkeypatch.setenv("ALGOBOT_HOME", str(tmp_path))
    for command in (["status"], ["backfill", "2024-01-01"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 1 and "timeout expired" in capsys.readouterr().err


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize("head", [b"", ANSWER], ids=["silent", "a byte now and then"])
def test_a_source_that_never_finishes_is_given_up(silent, monkeypatch, head):
    monkeypatch.setattr(bounded_read, "DEADLINE", 0.3)
    address = f"http://127.0.0.1:{silent(head)}"
    exchange = Exchange(address, timeout=(1.0, 0.3), retry=ONCE)
    with contextlib.closing(exchange), pytest.raises(SourceUnavailable, match="1 times in a row"):
        exchange.server_time()
    archive = Archive(address, timeout=(1.0, 0.3), deadline=0.3, retry=ONCE)
    with pytest.raises(SourceUnavailable, match="1 times in a row"):
        archive.read(ArchiveName("BTCUSDT", "1h", "daily", date(2024, 1, 31)))
    archive.close()


def test_a_webhook_that_never_answers_is_given_up(silent, monkeypatch):
    monkeypatch.setattr(webhook, "TIMEOUT", (1.0, 0.3))
    url = SecretStr(f"http://127.0.0.1:{silent()}/S3cretToken")
    assert webhook.post(url, {}) == "no answer (ReadTimeout)"


def test_a_clock_that_is_set_back_does_not_bar_a_source():
    clock, slept = [1_000_000.0], []
    retry = Retry(clock=lambda: clock[0], sleep=slept.append)
    retry._not_before, retry._asked = clock[0] + 5, 5  # as after an answer with Retry-After: 5
    clock[0] -= 86_400
    assert retry.call(lambda: "answered", "a question") == "answered" and slept == [5]


def test_every_session_has_its_timeouts(store):
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    ask = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    with store.transaction() as connection:
        assert connection.execute(ask).fetchone() == ("15min", "1min", "15min")
        assert isinstance(connection, Session) and connection.patience == 900 + databases.GRACE
    with store.database.connect() as connection:
        assert connection.execute(ask).fetchone()[:2] == ("15min", "1min") and connection.patience > 900
    dead_wire = {"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "connect_timeout"}
    assert dead_wire <= set(psycopg.conninfo.conninfo_to_dict(store.database.conninfo()))
    assert all(name in store.database.sqlalchemy_url(driver="psycopg2") for name in dead_wire)


class Frozen(Wire):
    """A wire that can stop carrying, with both ends open, as a machine that hangs does."""

    def __init__(self, folder: Path, target: str) -> None:
        self.frozen = threading.Event()
        super().__init__(folder, target, budget=1 << 40, cuts=0)

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if self.frozen.is_set():
                    return
                sink.sendall(data)


def test_a_server_that_hangs_ends_no_run_never(store, database_url, tmp_path, monkeypatch):
    """The server's own timeouts are of no use when nothing of it arrives any more."""
    monkeypatch.setattr(databases, "GRACE", 0.3)
    parameters = psycopg.conninfo.conninfo_to_dict(database_url)
    wire = Frozen(tmp_path, f"{parameters['host']}/.s.PGSQL.{parameters.get('port', 5432)}")
    behind = Database.from_url(
        Settings(database_url=database_url.split("?")[0] + f"?host={tmp_path}&port=5432&connect_timeout=2")
    )
    with Store(replace(behind, statement_timeout=0.4), "frozen") as frozen:
        with frozen.transaction() as connection:
            connection.execute("SELECT 1")
        threading.Timer(0.3, wire.frozen.set).start()
        with pytest.raises(StoreError, match=r"has not answered for 0\.7 s"):
            reader.query(frozen, "SELECT pg_sleep(5)::text AS slept")
        with pytest.raises(StoreError, match=r"has not answered for 0\.7 s"), frozen.transaction() as connection:
            connection.execute("SELECT 1")
        with pytest.raises(StoreError, match=r"Reading|could not be reached"):
            reader.read_table(frozen, "listings", "symbol")
    wire.close()


def test_nothing_is_called_without_a_timeout():
    """Of the calls that wait for something outside: requests, sockets, other programs."""
    waiting = {
        ("requests", "get"), ("requests", "post"), ("requests", "request"), ("subprocess", "run"),
        ("subprocess", "check_output"), ("urllib.request", "urlopen"), ("socket", "create_connection"),
    }  # fmt: skip
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = (ast.unparse(node.func.value), node.func.attr)
            named = {keyword.arg for keyword in node.keywords}
            if called in waiting and not named & {"timeout", None}:  # None: ** with a timeout among others
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
            if called == ("psycopg", "connect"):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} goes past Database")
    assert found == []

"""PostgreSQL by URL: a system's PostgreSQL of another version, over TLS, straight and through pgbouncer.

Each server is real, listens on loopback only and ends with the module. Tests are skipped with a reason where the
programs are not installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import connectorx
import polars as pl
import psycopg
import pytest
import sqlalchemy
from conftest import START, Project, published_candles
from test_roles import NOT_FOR_A_READER, NOT_FOR_A_WRITER, refused, written

from algobot_assets.audit.staleness import due
from algobot_assets.audit.verify import verify
from algobot_assets.cli import runs
from algobot_assets.cli.app import main
from algobot_assets.cli.commands.database import prepare
from algobot_assets.client import connect
from algobot_assets.errors import SettingsError, StoreError
from algobot_assets.settings import Settings
from algobot_assets.store import database as databases
from algobot_assets.store import migrate, roles
from algobot_assets.store.advisory_locks import hold_run_lock, is_running
from algobot_assets.store.connection import Store
from algobot_assets.store.database import Database, is_pooled
from algobot_assets.store.health import measure
from algobot_assets.store.month_partitions import vacuum_months
from algobot_assets.store.reader import query
from algobot_assets.store.retention.policy import archive_due_months, restore_months
from algobot_assets.store.server import account as accounts

LAST = START + timedelta(days=8)
ADMIN, ROLE, PASSWORD = "admin", "bot", "S3cret"
"""The role may connect and owns the databases that the administrator makes for it, and nothing else."""
SESSIONS = 3
"""Of the server, behind pgbouncer: fewer than what a run and its readers open, so that they meet one another's."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def administrator(port: int) -> psycopg.Connection:
    return psycopg.connect(url(port, "postgres").replace(ROLE, ADMIN, 1), autocommit=True)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder that the account of the servers owns."""
    folder = Path(tempfile.mkdtemp(prefix="algobot-servers-", dir="/tmp"))
    user = accounts.for_server()
    os.chown(folder, user.uid, user.gid)
    yield folder
    shutil.rmtree(folder)


def other_postgres() -> Path | None:
    """The programs that ALGOBOT_POSTGRES names, else the system's oldest of version 15 or newer."""
    if named := os.environ.get("ALGOBOT_POSTGRES"):
        return Path(named)
    found = {int(path.parents[1].name): path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")}
    return found.get(min((version for version in found if version >= 15), default=0))


@pytest.fixture(scope="module")
def port(scratch: Path) -> Iterator[int]:
    """The port of a PostgreSQL as an administrator would set it up: passwords, TLS only, another time zone."""
    programs = other_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL 15 or newer below /usr/lib/postgresql, and ALGOBOT_POSTGRES names none")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    user, data, number = accounts.for_server(), scratch / "data", free_port()

    def run(*command: str | Path) -> None:
        done = user.run(command, output=subprocess.DEVNULL)
        assert done.returncode == 0, command

    (scratch / "password").write_text(PASSWORD)
    os.chmod(scratch / "password", 0o644)
    run(programs / "initdb", "-D", data, "-U", ADMIN, "-A", "scram-sha-256", f"--pwfile={scratch / 'password'}",
        "--no-sync", "--no-locale", "-E", "UTF8")  # fmt: skip
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
        "subjectAltName=DNS:localhost", "-out", data / "server.crt", "-keyout", data / "server.key")  # fmt: skip
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    with open(data / "postgresql.conf", "a") as file:
        file.write(
            f"listen_addresses = '127.0.0.1'\nport = {number}\nunix_socket_directories = ''\nssl = on\nfsync = off\n"
            "timezone = 'Asia/Kolkata'\nmax_locks_per_transaction = 256\nshared_buffers = 64MB\n"
        )
    run(programs / "pg_ctl", "-D", data, "-w", "-l", scratch / "log", "start")
    try:
        with administrator(number) as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{PASSWORD}'")
        yield number
    finally:
        run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def pooler(scratch: Path, port: int) -> Iterator[int]:
    """The port of a pgbouncer in transaction mode in front of it."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    number, user = free_port(), accounts.for_server()
    (scratch / "users").write_text(f'"{ROLE}" "{PASSWORD}"\n')
    os.chmod(scratch / "users", 0o644)
    (scratch / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {number}\n"
        f"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {scratch / 'users'}\npool_mode = transaction\n"
        f"default_pool_size = {SESSIONS}\nserver_tls_sslmode = require\n"
        f"logfile = {scratch / 'pgbouncer.log'}\npidfile = {scratch / 'pgbouncer.pid'}\n"
    )
    os.chmod(scratch / "pgbouncer.ini", 0o644)
    done = user.run([program, "-d", "-q", scratch / "pgbouncer.ini"], output=subprocess.DEVNULL)
    assert done.returncode == 0
    deadline = time.monotonic() + 20
    while not (scratch / "pgbouncer.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int((scratch / "pgbouncer.pid").read_text())
    yield number
    os.kill(pid, signal.SIGTERM)


def url(port: int, name: str, more: str = "") -> str:
    return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{port}/{name}{more}"


@pytest.fixture
def straight(port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes a database and one for Dagster, as an administrator would, which the settings then name; gives the URL."""
    names: list[str] = []

    def use(name: str) -> str:
        with administrator(port) as connection:
            for made in (name, f"{name}_dagster"):
                names.append(made)
                connection.execute(f"CREATE DATABASE {made} OWNER {ROLE} TEMPLATE template0 ENCODING 'UTF8'")
        monkeypatch.setenv("ALGOBOT_DATABASE_URL", url(port, name, "?sslmode=require"))
        monkeypatch.setenv("ALGOBOT_DAGSTER_DATABASE", f"{name}_dagster")
        monkeypatch.setenv("ALGOBOT_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("ALGOBOT_ARCHIVE", str(tmp_path / "archive"))
        return url(port, name, "?sslmode=require")

    yield use
    with administrator(port) as connection:
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_tls_reaches_every_library(port: int, scratch: Path) -> None:
    encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    shutil.copy(scratch / "data" / "server.crt", scratch / "root.crt")
    for more in ("sslmode=require", f"sslmode=verify-ca&sslrootcert={scratch / 'root.crt'}"):
        database = Database.from_url(Settings(database_url=url(port, "postgres", f"?{more}"), direct_url=None))
        with database.connect() as connection:
            assert connection.execute(encrypted).fetchone() == (True,)
        for driver in ("psycopg", "psycopg2"):
            engine = sqlalchemy.create_engine(database.sqlalchemy_url(driver=driver), poolclass=sqlalchemy.NullPool)
            with engine.connect() as connection:
                assert connection.execute(sqlalchemy.text(encrypted)).scalar_one() is True
        assert connectorx.read_sql(database.connectorx_url(), encrypted, return_type="polars").item() is True
    for more, problem in (
        ("sslmode=disable", "no encryption"),
        (f"sslmode=verify-full&sslrootcert={scratch / 'root.crt'}", "does not match host name"),
    ):
        database = Database.from_url(Settings(database_url=url(port, "postgres", f"?{more}"), direct_url=None))
        with pytest.raises(StoreError, match=problem):
            database.connect()
    full = url(port, "postgres", f"?sslmode=verify-full&sslrootcert={scratch / 'root.crt'}")
    database = Database.from_url(Settings(database_url=full.replace("127.0.0.1", "localhost"), direct_url=None))
    with Store(database) as store:  # connectorx checks no names, so that the query goes another way
        assert query(store, encrypted).item() is True


def test_the_settings_of_one_never_meet_another_through_a_pooler(port: int, pooler: int) -> None:
    pooled = Database.from_url(
        Settings(database_url=url(pooler, "postgres"), direct_url=url(port, "postgres"), statement_timeout=77)
    )
    ask = "SELECT " + ", ".join(
        f"current_setting('{name}')"
        for name in ("transaction_read_only", "TimeZone", "statement_timeout", "application_name", "jit")
    )
    with Store(pooled, "writer") as writer, Store(pooled, "client", read_only=True) as reader:
        for _ in range(2 * SESSIONS):
            for store, read_only in ((writer, "off"), (reader, "on")):
                with store.transaction() as connection:
                    assert is_pooled(connection)
                    expected = (read_only, "UTC", "77s", f"algobot {store.run_id}", "off")
                    assert connection.execute(ask).fetchone() == expected
                    for number in range(7):  # psycopg would prepare from the sixth on
                        assert connection.execute("SELECT %s::int", [number]).fetchone() == (number,)
                    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            with psycopg.connect(url(pooler, "postgres"), autocommit=True, prepare_threshold=None) as stranger:
                row = stranger.execute(ask).fetchone()
            assert (row[0], row[2], row[4]) == ("off", "0", "on"), "what a transaction set ends with it"
        with pytest.raises(StoreError, match="cannot read through the pooler"):
            _ = reader.connectorx_url
        frame = query(reader, "SELECT g, g::numeric(20, 8) / 4 AS q FROM generate_series(1, 300) AS g")
        assert frame["g"].to_list() == list(range(1, 301)) and frame["q"].sum() == 300 * 301 / 8


def test_a_query_gives_the_same_frame_through_a_pooler(port: int, pooler: int) -> None:
    statement = """SELECT true AS a, 1::int2 AS b, 2 AS c, 3::int8 AS d, 1.5::float4 AS e, 0.1::float8 AS f, 'x' AS g,
        'y'::varchar(5) AS h, date '2024-01-02' AS i, timestamptz '2024-01-02 03:04:05.000006+00' AS j,
        1.00000001::numeric(20, 8) AS k, '\\x01'::bytea AS l, NULL::numeric AS m WHERE {}"""
    plain = Database.from_url(Settings(database_url=url(port, "postgres", "?sslmode=require"), direct_url=None))
    pooled = Database.from_url(Settings(database_url=url(pooler, "postgres"), direct_url=url(port, "postgres")))
    with Store(plain) as one, Store(pooled) as other:
        for rows in ("true", "false"):
            expected, found = (query(store, statement.format(rows)) for store in (one, other))
            assert found.schema == expected.schema and found.equals(expected)
            assert expected.height == (rows == "true")


def test_what_needs_a_session_goes_past_the_pooler(port: int, pooler: int) -> None:
    with pytest.raises(StoreError, match="Set ALGOBOT_DIRECT_URL to the server behind it"):
        Database.from_url(Settings(database_url=url(pooler, "postgres"), direct_url=None)).connect()
    with pytest.raises(SettingsError, match="one database under one name"):
        Database.from_url(Settings(database_url=url(pooler, "a"), direct_url=url(port, "b")))
    database = Database.from_url(Settings(database_url=url(pooler, "postgres"), direct_url=url(port, "postgres")))
    with database.connect() as connection:
        assert connection.info.port == port and not is_pooled(connection)
    assert sqlalchemy.make_url(database.sqlalchemy_url("other")).query["port"] == str(port)
    closed = free_port()
    away = Database.from_url(Settings(database_url=url(pooler, "postgres"), direct_url=url(closed, "postgres")))
    away.check()
    with pytest.raises(StoreError, match=f"No connection to database postgres at 127.0.0.1:{closed}"):
        away.connect()
    with Store(database) as store:
        with hold_run_lock(database, "a run"):
            assert is_running(store, "a run")
        deadline = time.monotonic() + 10
        while is_running(store, "a run") and time.monotonic() < deadline:
            time.sleep(0.05)  # the server notices the end of a connection by itself
        assert not is_running(store, "a run")


def test_a_server_that_is_too_old_is_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "OLDEST", 990000)
    database = Database.from_url(Settings(database_url=url(port, "postgres"), direct_url=None))
    with pytest.raises(StoreError, match=r"is PostgreSQL \d+\..*; 99 or newer is needed"):
        database.connect()


def test_roles_on_the_systems_version(port: int, straight, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that may make no roles, an administrator's script for it, and logins that may only write or only read."""
    reached = straight("privileges")
    prepare(Settings())
    with Database.from_url(Settings()).connect() as connection:
        assert roles.recorded(connection) is None
        script = roles.script(connection)
    with psycopg.connect(reached.replace(ROLE, ADMIN, 1), autocommit=True) as admin:
        admin.execute(script)
        admin.execute(f"CREATE ROLE robot LOGIN PASSWORD '{PASSWORD}' IN ROLE privileges_writer")
        admin.execute(f"CREATE ROLE visitor LOGIN PASSWORD '{PASSWORD}' IN ROLE privileges_reader")
    try:
        with Database.from_url(Settings()).connect() as connection:
            assert roles.establish(connection) == roles.Roles.of("privileges")
        for login, role in ((ROLE, "privileges_writer"), ("robot", "privileges_writer")):
            monkeypatch.setenv("ALGOBOT_DATABASE_URL", reached.replace(ROLE, login, 1))
            with Store.open(run_id=login) as store:
                assert written(store, seed=len(login)) or login == "robot"
                vacuum_months(store, "market_data", [START.replace(day=1)])
                with store.transaction() as connection:
                    assert connection.execute("SELECT session_user, current_user").fetchone() == (login, role)
        with psycopg.connect(reached.replace(ROLE, "robot", 1), autocommit=True) as connection:
            refused(connection, NOT_FOR_A_WRITER)
        with psycopg.connect(reached.replace(ROLE, "visitor", 1), autocommit=True) as connection:
            refused(connection, (*NOT_FOR_A_READER, *NOT_FOR_A_WRITER))
        with connect(database_url=reached.replace(ROLE, "visitor", 1)) as client:
            assert client.candles("BTCUSDT", "1h").frame.height == 96
    finally:
        monkeypatch.setenv("ALGOBOT_DATABASE_URL", reached)
        migrate.downgrade()
        with administrator(port) as admin:
            admin.execute("REVOKE SET ON PARAMETER session_replication_role FROM privileges_owner")
            for name in ("robot", "visitor", *(f"privileges_{purpose}" for purpose in roles.PURPOSES)):
                admin.execute(f"DROP ROLE {name}")


def live(project: Project, monkeypatch: pytest.MonkeyPatch) -> dict[str, pl.DataFrame]:
    """Schema, runs, reads, verify, a hand edit and its refresh, retention and back; what the client then reads."""
    monkeypatch.setenv("ALGOBOT_SOURCE", str(project.klines))
    monkeypatch.setenv("ALGOBOT_STATE_FILE", str(project.state))
    prepare(Settings())
    assert migrate.differences() == []
    with runs.instance(Settings()) as instance, Store.open(run_id="test") as store:
        project.instance = instance
        result = project.run(START, LAST)
        assert result.success, result.error
        assert instance.get_run_by_id(result.run_id).is_success
        assert due(store) is None
        with store.transaction() as connection:
            connection.execute(
                """UPDATE market_data SET close = close + 0.01, high = high + 0.01 WHERE "timestamp" = %s""",
                [datetime(2024, 2, 2, 12, tzinfo=UTC)],
            )
        for _ in range(2):
            run = due(store)
            if run is not None:
                assert project.run(run.first, run.last, run.tables).success
        assert due(store) is None
        assert [finding.difference for finding in verify(store, START, LAST)] == [None] * 6
        outcomes = list(archive_due_months(store, Settings(), date(2026, 2, 10)))
        assert [(outcome.month, outcome.kept) for outcome in outcomes] == [(date(2024, 1, 1), None)]
        with connect() as client:
            archived = client.candles("BTCUSDT", "1h").frame
        assert len(list(restore_months(store, date(2024, 1, 1), date(2024, 1, 1)))) == 1
        assert measure(store, [Settings().dagster_database]).measures
    main(["status"])
    with connect() as client:
        found = {
            "candles": client.candles("BTCUSDT", "1h").frame,
            "indicators": client.indicators("BTCUSDT", "1h").frame,
            "signals": client.signals("BTCUSDT", "1h").frame,
            "trades": client.trades().frame,
            "metrics": client.metrics().frame,
            "results": client.results().frame,
        }
    assert found["candles"].equals(archived) and found["candles"].height == 24 * 9
    # months are written side by side, so that which row gets which number is not settled
    return {name: frame.drop("id", "market_data_id", strict=False) for name, frame in found.items()}


@pytest.fixture
def candles(tmp_path: Path) -> Project:
    made = Project(tmp_path, None)
    made.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9))
    return made


@pytest.mark.slow
def test_everything_works_over_tls_on_the_systems_version_and_through_pgbouncer(
    candles: Project, straight, port: int, pooler: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = straight("straight")
    plain = live(candles, monkeypatch)
    migrate.downgrade()
    with psycopg.connect(reached) as connection:
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        ).fetchall()
    assert left == [("alembic_version",)]

    direct = straight("pooled")
    monkeypatch.setenv("ALGOBOT_DIRECT_URL", direct)
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", url(pooler, "pooled"))
    pooled = live(candles, monkeypatch)
    for name, frame in plain.items():
        assert pooled[name].equals(frame) and pooled[name].schema == frame.schema, name

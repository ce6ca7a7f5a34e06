"""Owner, writer and reader: what each may do, whose they are, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta

import psycopg
import pytest
from conftest import TEMPLATE, days, published_candles
from psycopg import sql

from algobot_assets.client import connect
from algobot_assets.errors import StoreError
from algobot_assets.feed.klines import from_published
from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.windows import Window
from algobot_assets.settings import Settings
from algobot_assets.store import migrate, roles
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.month_partitions import ensure_months
from algobot_assets.store.reader import query
from algobot_assets.store.roles import Roles
from algobot_assets.store.writer import write_window

FIRST = date(2024, 1, 30)
WINDOW = Window("market_data", FIRST, FIRST + timedelta(days=4), "BTCUSDT", "1h")


def written(store: Store, seed: int = 1) -> int:
    """Write a window; the rows it inserted."""
    frame = from_published(published_candles(midnight(FIRST), 96, seed=seed), "BTCUSDT", "1h", where="a test")
    inputs = [DayInputs(day, midnight(day + timedelta(days=1))) for day in days(FIRST, 4)]
    return write_window(store, WINDOW, frame, inputs).inserted


@pytest.fixture
def login(database_url: str) -> Iterator[Callable[..., str]]:
    """Makes a login that is a member of roles, and gives its URL."""
    made: list[str] = []

    def make(name: str, *members: str) -> str:
        with psycopg.connect(database_url, autocommit=True) as owner:
            owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
            made.append(name)
            for member in members:
                owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(member), sql.Identifier(name)))
        return database_url.replace("algobot@", f"{name}@", 1)

    yield make
    with psycopg.connect(database_url, autocommit=True) as owner:
        for name in made:
            for _ in range(500):  # sessions that end still drop their temporary tables
                row = owner.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (name,)).fetchone()
                if row == (0,):
                    break
                owner.execute("SELECT pg_sleep(0.01)")
            owner.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(name)))
            owner.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def names(store: Store) -> Roles:
    with store.connection() as connection:
        found = roles.recorded(connection)
    assert found == Roles.of(TEMPLATE), "a copy of a database keeps the roles that its rights name"
    return found


def test_the_owner_owns_everything_and_nobody_logs_in_as_one_of_them(store):
    ensure_months(store, [FIRST])
    with store.transaction() as connection:
        found = roles.recorded(connection)
        assert connection.execute(
            "SELECT count(*) FROM pg_roles WHERE rolname = ANY(%s) AND NOT (rolcanlogin OR rolsuper OR rolcreaterole)",
            ([found.owner, found.writer, found.reader],),
        ).fetchone() == (3,)
        others = connection.execute(
            """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> %(o)s::regrole
               UNION ALL
               SELECT proname FROM pg_proc
                WHERE pronamespace = 'public'::regnamespace AND proowner <> %(o)s::regrole""",
            {"o": found.owner},
        ).fetchall()
        assert others == []
        loose = connection.execute(
            """SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
                  AND NOT coalesce(proconfig @> ARRAY['search_path=public, pg_temp'], false)"""
        ).fetchall()
        assert loose == []


def test_the_pipeline_is_the_writer_and_the_client_the_reader(store, database_url):
    found = names(store)
    assert written(store) == 96
    with store.transaction() as connection:
        assert connection.execute("SELECT current_user").fetchone() == (found.writer,)
    assert query(store, "SELECT current_user::text AS u").item() == found.writer
    with connect() as client:
        assert client.candles("BTCUSDT", "1h").frame.height == 96
        with client._store.transaction() as connection:
            assert connection.execute("SELECT current_user").fetchone() == (found.reader,)
        assert query(client._store, "SELECT current_user::text AS u").item() == found.reader


NOT_FOR_A_WRITER = (
    "TRUNCATE market_data",
    "DROP TABLE lineage",
    "ALTER TABLE market_data DISABLE TRIGGER ALL",
    "ALTER TABLE market_data DETACH PARTITION market_data_2024_01",
    "DELETE FROM market_data_2024_01",
    "UPDATE indicators_2024_01 SET ema = 1",
    "CREATE TABLE public.mine (a int)",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION public.mark_dirty() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "UPDATE alembic_version SET version_num = '0001'",
    "SELECT watch('lineage', 'lineage')",
    "COPY lineage TO PROGRAM 'cat'",
    "COPY lineage TO '/tmp/lineage'",
    "SELECT pg_read_file('PG_VERSION')",
    "SET session_replication_role = replica",
    "ALTER SYSTEM SET fsync = off",
    "CREATE ROLE another",
)
NOT_FOR_A_READER = (
    "INSERT INTO exchange VALUES (true, 'x')",
    "UPDATE market_data SET close = close",
    "DELETE FROM lineage",
    "DELETE FROM dirty_days",
    "SELECT ensure_month('2030-01-01')",
    "SELECT hold_month('2024-01-01')",
    "SELECT drop_month('2024-01-01')",
    "SELECT * FROM market_data FOR UPDATE",
)


def refused(connection: psycopg.Connection, statements: tuple[str, ...]) -> None:
    """Every statement is refused for lack of the right, and for nothing else."""
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_a_writer_is_refused_what_it_does_not_need(store, login):
    assert written(store) == 96
    url = login("robot", names(store).writer)
    with psycopg.connect(url, autocommit=True) as connection:
        refused(connection, NOT_FOR_A_WRITER)
        refused(connection, (f"SET ROLE {names(store).owner}",))
        with pytest.raises(psycopg.errors.RaiseException, match="not archived"):
            connection.execute("SELECT drop_month('2024-01-01')")
        # what it makes of its own does not stand before the tables in a function of the owner
        connection.execute("CREATE TEMP TABLE dirty_days (LIKE public.dirty_days)")
        connection.execute("UPDATE market_data SET trades = trades + 1 WHERE symbol = 'BTCUSDT'")
        assert connection.execute("SELECT count(*) FROM public.dirty_days").fetchone() == (4,)
        assert connection.execute("SELECT count(*) FROM pg_temp.dirty_days").fetchone() == (0,)


def test_a_login_that_may_only_write_runs_the_pipeline_and_cannot_migrate(store, login, monkeypatch):
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", login("robot", names(store).writer))
    with Store.open(run_id="robot") as own:
        assert written(own) == 96
        with own.transaction() as connection:
            assert connection.execute("SELECT session_user, current_user").fetchone() == ("robot", names(store).writer)
    current, head = migrate.current_and_head()
    assert current == head
    with pytest.raises(StoreError, match="The migration failed in the database: must be owner"):
        migrate.upgrade()
    assert migrate.differences() == []


def test_a_reader_cannot_write(store, login):
    assert written(store) == 96
    url = login("visitor", names(store).reader)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        refused(connection, (*NOT_FOR_A_READER, *NOT_FOR_A_WRITER))
        for table in ("market_data", "market_data_2024_01", "lineage", "stale_partitions", "trade_trace"):
            connection.execute(f"SELECT count(*) FROM {table}")
    with connect(database_url=url) as client:
        assert client.candles("BTCUSDT", "1h").frame.height == 96
    with Store(client._store.database, "would write") as writing, pytest.raises(StoreError, match="may not do this"):
        written(writing, seed=2)


def test_a_login_that_may_make_no_roles_works_without_them(server, login):
    """And an administrator's script gives it what it may not make itself."""
    name, url = "test_unprivileged", login("plain")
    with server.connect("postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER plain")
    url = url[: url.rindex("/") + 1] + name + url[url.index("?") :]
    settings = Settings(database_url=url, direct_url=None, _env_file=None)
    engine = url.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        migrate.upgrade(engine)
        assert migrate.differences(engine) == []
        with Store.open(settings) as own:
            assert written(own) == 96
            with own.transaction() as connection:
                assert connection.execute("SELECT current_user").fetchone() == ("plain",)
                script = roles.script(connection)
        with server.connect(name, autocommit=True) as admin:
            admin.execute(script)
        with psycopg.connect(url) as connection:
            assert roles.establish(connection) == Roles.of(name)
        with Store.open(settings) as own, Store.open(settings) as reading:
            reading.read_only = True
            ensure_months(own, [date(2025, 1, 1)])
            for store, role in ((own, f"{name}_writer"), (reading, f"{name}_reader")):
                with store.transaction() as connection:
                    assert connection.execute("SELECT current_user").fetchone() == (role,)
        migrate.downgrade(engine)
        migrate.upgrade(engine)
    finally:
        server.drop_database(name)
        with server.connect("postgres", autocommit=True) as admin:
            for purpose in roles.PURPOSES:
                if purpose == "owner":  # it may set a parameter, which does not belong to the database
                    admin.execute(f"REVOKE SET ON PARAMETER session_replication_role FROM {name}_owner")
                admin.execute(f"DROP ROLE IF EXISTS {name}_{purpose}")


def test_databases_of_one_server_do_not_share_roles(server, store):
    """Down takes the roles along, but not those that another database uses."""
    url = server.sqlalchemy_url("test_another")
    server.ensure_database("test_another")
    try:
        migrate.upgrade(url)
        with server.connect("test_another", autocommit=True) as connection:
            assert roles.recorded(connection) == Roles.of("test_another")
            connection.execute(f"SET ROLE {names(store).writer}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT count(*) FROM lineage")
        migrate.downgrade(url)
        with server.connect("test_another") as connection:
            left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE %s"
            assert connection.execute(left, ("test\\_another\\_%",)).fetchone() == (0,)
        migrate.downgrade(store.database.sqlalchemy_url())
        with server.connect("test_another") as connection:
            assert connection.execute(left, (f"{TEMPLATE}\\_%",)).fetchone() == (3,)
    finally:
        server.drop_database("test_another")


def test_a_database_from_before_the_roles_gets_them_with_its_partitions(server):
    url = server.sqlalchemy_url("test_older")
    server.ensure_database("test_older")
    try:
        migrate.upgrade(url, "0007")
        with server.connect("test_older", autocommit=True) as connection:
            connection.execute("SELECT ensure_month('2024-01-01')")
            assert roles.role_to_take(connection, "writer") is None
        for _ in range(2):
            migrate.upgrade(url)
            with server.connect("test_older") as connection:
                owners = """SELECT DISTINCT relowner::regrole::text FROM pg_class
                             WHERE relnamespace = 'public'::regnamespace"""
                assert connection.execute(owners).fetchall() == [("test_older_owner",)]
                readable = "SELECT has_table_privilege('test_older_reader', 'signals_2024_01', 'SELECT')"
                assert connection.execute(readable).fetchone() == (True,)
            migrate.downgrade(url, "0007")
            with server.connect("test_older", autocommit=True) as connection:
                assert connection.execute(owners).fetchall() == [("algobot",)]
                assert connection.execute("SELECT drop_month('2024-01-01')").fetchone() == (True,)
                connection.execute("SELECT ensure_month('2024-01-01')")
    finally:
        server.drop_database("test_older")


def test_names_fit_whatever_the_database_is_called():
    long = ["a" * 63, "a" * 62 + "b", "é" * 31]
    found = [name for database in long for name in vars(Roles.of(database)).values()]
    assert len(set(found)) == 9 and max(len(name.encode()) for name in found) <= 63
    assert Roles.of("algobot") == Roles("algobot_owner", "algobot_writer", "algobot_reader")

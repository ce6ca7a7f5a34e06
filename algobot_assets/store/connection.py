"""Connect to the data database: pool, timeouts, transactions, and retries of transient failures.

Every statement of the platform runs through ``Store.transaction``. Only connectorx opens connections of its own, with
``Store.connectorx_url``, after a pooled connection has proved the login.
"""

from __future__ import annotations

import random
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from algobot_assets.errors import StoreError
from algobot_assets.settings import Settings
from algobot_assets.store.archive import Archive
from algobot_assets.store.database import Database
from algobot_assets.store.roles import role_to_take
from algobot_assets.store.server.choose import data_database
from algobot_assets.store.session import Session, is_pooled

T = TypeVar("T")
#: SQLSTATEs after which the whole transaction may be run again: it was rolled back, and the cause is transient.
#: 40001 serialization, 40P01 deadlock, 55P03 lock timeout, 57P01-57P03 server going down or coming up,
#: 53300 too many connections, class 08 connection lost.
RETRYABLE = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300"})
ATTEMPTS = 5


def is_retryable(error: psycopg.Error) -> bool:
    """Return whether running the transaction again can succeed (see RETRYABLE)."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state in RETRYABLE or state.startswith("08")


def _check(connection: psycopg.Connection) -> None:
    """Raise psycopg.Error for a pooled connection whose server is gone; no round trip if the socket is silent."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        if selector.select(0):  # a farewell, or a notice
            ConnectionPool.check_connection(connection)


#: Settings of sessions that write. Each statement covers one window, and starting a parallel worker costs as much as
#: it saves; windows are written in parallel instead. ANALYZE right after a load takes a small sample; autovacuum takes
#: a larger one later.
_WRITER = {"max_parallel_workers_per_gather": "0", "default_statistics_target": "20"}


class Store:
    """The data database: a pool of connections and the archive of months moved out of it.

    ``run_id`` becomes part of application_name, so that pg_stat_activity shows which Dagster run a statement serves.
    """

    def __init__(
        self, database: Database, run_id: str = "", *, read_only: bool = False, archive: str | None = None
    ) -> None:
        """Open the pool. ``read_only``: every transaction is READ ONLY and sees one snapshot. ``archive``: the
        place of archived months, by default that of the settings."""
        self.database = database
        self.archive = Archive(archive or Settings().archive_place)
        self.run_id = run_id
        self.read_only = read_only
        timeout = float(database.parameters.get("connect_timeout", 10))
        self._pooled = False
        self._role: str | None = None
        self._pool = ConnectionPool(
            database.conninfo(),
            connection_class=Session,
            kwargs={"autocommit": True},
            configure=self._configure,
            check=_check,
            min_size=0,
            max_size=4,
            max_idle=60,
            timeout=timeout,
            reconnect_timeout=timeout,
            open=True,
        )

    @property
    def session(self) -> dict[str, str]:
        """The settings of every connection, connectorx's included.

        They are set by statement, because poolers refuse libpq's start-up option, and again in each transaction
        through a pooler, because its session may have served another client. Among them is the database's role for
        writers or readers, if the database has roles and the login may take it.
        """
        patience = f"{self.database.statement_timeout * 1000:.0f}"
        return {
            "TimeZone": "UTC",
            "DateStyle": "ISO, MDY",  # in other styles neither psycopg nor connectorx reads a time
            "extra_float_digits": "1",  # floats arrive as text and need all their digits
            "statement_timeout": patience,
            "lock_timeout": f"{self.database.lock_timeout * 1000:.0f}",
            "idle_in_transaction_session_timeout": patience,
            "application_name": f"algobot {self.run_id}".strip(),
            "enable_partitionwise_join": "on",
            "jit": "off",
            **({"default_transaction_read_only": "on"} if self.read_only else _WRITER),
            **({"role": self._role} if self._role else {}),
        }

    def _configure(self, connection: Session) -> None:
        connection.patience = self.database.patience
        self._role = role_to_take(connection, "reader" if self.read_only else "writer")
        if is_pooled(connection):
            self._pooled = True
            connection.prepare_threshold = None  # the next transaction may run in another session
        else:
            self._set(connection, only_here=False)
        if self.read_only:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    def _set(self, connection: psycopg.Connection, *, only_here: bool) -> None:
        """Apply the settings to the session, or to the running transaction only."""
        calls = ", ".join(["set_config(%s, %s, %s)"] * len(self.session))
        connection.execute(f"SELECT {calls}", [v for pair in self.session.items() for v in (*pair, only_here)])

    @contextmanager
    def as_login(self, connection: psycopg.Connection) -> Iterator[None]:
        """Run the block with the rights of the login, outside of a transaction.

        Before PostgreSQL 17 only a table's owner may VACUUM it; since 17 the writer may, and nothing changes here.
        """
        if self._role is None or self._pooled or connection.info.server_version >= 170000:
            yield
            return
        connection.execute("SELECT set_config('role', 'none', false)")
        try:
            yield
        finally:
            if not connection.closed:
                connection.execute("SELECT set_config('role', %s, false)", (self._role,))

    @classmethod
    def open(cls, settings: Settings | None = None, run_id: str = "") -> Store:
        """Open the store of the settings; the embedded server is started if it is used and not running."""
        settings = settings or Settings()
        return cls(data_database(settings), run_id, archive=settings.archive_place)

    @cached_property
    def connectorx_url(self) -> str:
        """URL for connectorx. The login is proved first, because connectorx retries a bad one for 30 s.

        Once is enough, as every query begins on a pooled connection. Raises StoreError if connectorx cannot connect
        this way, for example through a pooler: it prepares its statements in whatever session it meets.
        """
        if self._pooled:
            raise StoreError(f"connectorx cannot read through the pooler at {self.database.location}.")
        return self.database.connectorx_url()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """Lend a pooled connection outside of any transaction, for statements that cannot run inside one.

        Raises StoreError if the server cannot be reached; errors of statements pass through as psycopg raised them.
        """
        try:
            connection = self._pool.getconn()
        except PoolTimeout as error:
            raise StoreError(
                f"{self.database!r} could not be reached within {self._pool.timeout:g} s. {self._obstacle()}"
            ) from error
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def _obstacle(self) -> str:
        """Return why the pool got no connection, with the remedy; the pool itself reports only a timeout."""
        try:
            self.database.connect().close()
        except StoreError as error:
            if "too many" in str(error) or "remaining connection slots" in str(error):
                return f"{error}. Close other connections or raise the limit, then run again."
            return "Start it (`algobot db start`) or correct ALGOBOT_DATABASE_URL."
        return "All connections of this process are in use, or the server has just come back. Run it again."

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """Run the block as one transaction on a pooled connection: commit at its end, roll back on an error.

        Raises StoreError if the server, and not the statement, is the cause (connection lost, timeout, disk full,
        deadlock); other errors of statements pass through as psycopg raised them.
        """
        try:
            with self._transaction() as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise StoreError(f"{explain(error, 'A query')} Run it again.") from error

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection]:
        with self.connection() as connection, connection.transaction():
            if self._pooled:
                self._set(connection, only_here=True)
            yield connection

    def retrying(self, work: Callable[[psycopg.Connection], T], what: str) -> T:
        """Run ``work`` in a transaction, and repeat it after a transient failure; errors begin with ``what``."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._transaction() as connection:
                    return work(connection)
            except psycopg.Error as error:
                if not is_retryable(error):
                    raise StoreError(explain(error, what)) from error
                if attempt == ATTEMPTS:
                    raise StoreError(
                        f"{explain(error, what)} Tried {ATTEMPTS} times. Nothing was changed; run it again later."
                    ) from error
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_REMEDIES = {
    "42P01": "A table is missing: run `algobot db migrate`.",
    "42703": "A column is missing: run `algobot db migrate`.",
    "42501": "The database role may not do this: grant it the right, or connect as the owner.",
    "53100": "The server's disk is full: free space, then run again.",
    "55P03": "Another session still holds the lock (ALGOBOT_LOCK_TIMEOUT).",
    "57014": "It took longer than the statement timeout (ALGOBOT_STATEMENT_TIMEOUT).",
}


def explain(error: psycopg.Error, what: str) -> str:
    """Return the failure and its remedy in one sentence, with the server's message but without its context."""
    message = error.diag.message_primary or str(error).strip().split("\n")[0]
    remedy = _REMEDIES.get(error.sqlstate or "", "")
    state = f"({error.sqlstate})." if error.sqlstate else ""
    return f"{what} failed in the database: {message} {state} {remedy}".strip()

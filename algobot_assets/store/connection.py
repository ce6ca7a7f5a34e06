"""Connections to the data database: pool, timeouts, transactions, and which failures are worth another try.

Every statement of the platform runs through ``Store.transaction``; nobody else opens connections, except
connectorx, which is handed ``Store.connectorx_url`` after a connection of the pool has proved the login.
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
from algobot_assets.store.database import Database, is_pooled
from algobot_assets.store.roles import role_to_take
from algobot_assets.store.server.choose import data_database
from algobot_assets.store.session import Session

T = TypeVar("T")
#: SQLSTATEs after which the whole transaction may be run again: nothing of it was kept, and the cause passes.
#: 40001 serialization, 40P01 deadlock, 55P03 lock timeout, 57P01-57P03 server going down or coming up,
#: 53300 too many connections, class 08 connection lost.
RETRYABLE = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300"})
ATTEMPTS = 5


def is_retryable(error: psycopg.Error) -> bool:
    """True where running the transaction again can succeed (see RETRYABLE)."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state in RETRYABLE or state.startswith("08")


def _check(connection: psycopg.Connection) -> None:
    """Raise psycopg.Error for a kept connection whose server has gone; costs no question where nothing was said."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        if selector.select(0):  # a goodbye, or a notice
            ConnectionPool.check_connection(connection)


#: Of sessions that write. Their statements are about one window, and starting a parallel worker for one costs what it
#: saves; windows go side by side instead. What is analysed has just been loaded: autovacuum looks closer later.
_WRITER = {"max_parallel_workers_per_gather": "0", "default_statistics_target": "20"}


class Store:
    """The data database, as the rest of the platform sees it.

    ``run_id`` goes into application_name, so that pg_stat_activity shows which Dagster run a statement serves.
    """

    def __init__(
        self, database: Database, run_id: str = "", *, read_only: bool = False, archive: str | None = None
    ) -> None:
        """``read_only``: every transaction is READ ONLY and sees one snapshot. ``archive``: the place of archived
        months, default that of the settings."""
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

        Set by statement and not by the start-up option of libpq, which connection poolers refuse; through a pooler
        anew in each transaction, which may have a session that served somebody else. With them a session takes the
        database's role for writers or readers, where the database has roles and its login may take it.
        """
        patience = f"{self.database.statement_timeout * 1000:.0f}"
        return {
            "TimeZone": "UTC",
            "DateStyle": "ISO, MDY",  # in other styles neither psycopg nor connectorx reads a time
            "extra_float_digits": "1",  # floats arrive as text, and fewer digits would not be all of them
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
            connection.prepare_threshold = None  # what was prepared would be in another session
        else:
            self._set(connection, only_here=False)
        if self.read_only:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    def _set(self, connection: psycopg.Connection, *, only_here: bool) -> None:
        """Make the settings those of the session, or of the running transaction only."""
        calls = ", ".join(["set_config(%s, %s, %s)"] * len(self.session))
        connection.execute(f"SELECT {calls}", [v for pair in self.session.items() for v in (*pair, only_here)])

    @contextmanager
    def as_login(self, connection: psycopg.Connection) -> Iterator[None]:
        """Outside of a transaction, before PostgreSQL 17: the block has the rights of the login, which may own what the
        writer may not VACUUM. Since 17 the writer may."""
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
        """The store of the settings; starts the embedded server where it is used and not running."""
        settings = settings or Settings()
        return cls(data_database(settings), run_id, archive=settings.archive_place)

    @cached_property
    def connectorx_url(self) -> str:
        """URL for connectorx. The login is proved first, because connectorx retries a bad one for 30 s; once is
        enough, as every query begins on a pooled connection. StoreError where connectorx cannot connect that way, as
        through a pooler: it prepares its statements and sets its settings in whatever session it meets.
        """
        if self._pooled:
            raise StoreError(f"connectorx cannot read through the pooler at {self.database.location}.")
        return self.database.connectorx_url()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """One pooled connection outside of any transaction, for what cannot run inside one.

        Raises StoreError with a sentence where the server cannot be reached; errors of statements pass through
        as psycopg raised them.
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
        """Why the pool got no connection, and what to do: the pool itself only knows that time is up."""
        try:
            self.database.connect().close()
        except StoreError as error:
            if "too many" in str(error) or "remaining connection slots" in str(error):
                return f"{error}. Close other connections or raise the limit, then run again."
            return "Start it (`algobot db start`) or correct ALGOBOT_DATABASE_URL."
        return "All connections of this process are in use, or the server has just come back; run it again."

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """One transaction on one pooled connection: committed at the end of the block, else rolled back.

        StoreError where the server, and not the statement, is the cause (connection lost, timeout, disk full,
        deadlock); other errors of statements pass through as psycopg raised them.
        """
        try:
            with self._transaction() as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise StoreError(f"{explain(error, 'A question')} Run it again.") from error

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection]:
        with self.connection() as connection, connection.transaction():
            if self._pooled:
                self._set(connection, only_here=True)
            yield connection

    def retrying(self, work: Callable[[psycopg.Connection], T], what: str) -> T:
        """Run ``work`` in a transaction, again from the start after a passing failure; ``what`` names it in errors."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._transaction() as connection:
                    return work(connection)
            except psycopg.Error as error:
                if not is_retryable(error):
                    raise StoreError(explain(error, what)) from error
                if attempt == ATTEMPTS:
                    raise StoreError(
                        f"{explain(error, what)} Tried {ATTEMPTS} times; nothing was changed, run it again later."
                    ) from error
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Give all connections back to the server."""
        self._pool.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_SENTENCES = {
    "42P01": "A table is missing: run `algobot db migrate`.",
    "42703": "A column is missing: run `algobot db migrate`.",
    "42501": "The database role may not do this; grant it or use the owner.",
    "53100": "The server's disk is full: free space, then run again.",
    "55P03": "Another run holds the lock; it was waited for in vain.",
    "57014": "The statement took longer than the statement timeout (ALGOBOT_STATEMENT_TIMEOUT).",
}


def explain(error: psycopg.Error, what: str) -> str:
    """One sentence for a person: what failed and what to do; the server's message without its context."""
    message = error.diag.message_primary or str(error).strip().split("\n")[0]
    cure = _SENTENCES.get(error.sqlstate or "", "")
    return f"{what} failed in the database: {message} {f'({error.sqlstate}).' if error.sqlstate else ''} {cure}".strip()

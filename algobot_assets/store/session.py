"""Open a connection that gives up when the server stops answering, and fetch single rows and values."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from algobot_assets.errors import StoreError

T = TypeVar("T")
Row = tuple[Any, ...]

_STARTING = "FATAL: the database system is "
"""The start of the message of 57P03; libpq gives no SQLSTATE for a failed connection."""


class Session(psycopg.Connection[Row]):
    """A connection that raises OperationalError and closes after ``patience`` seconds without an answer (0: never).

    A server that is stopped or hangs keeps its end of the connection alive, and does not enforce its own timeouts.
    """

    patience: float = 0

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Wait as psycopg does, but not beyond ``patience``."""
        answer: T = super().wait(self._limit(gen) if self.patience else gen, *args, **options)
        return answer

    def _limit(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        until = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: T = end.value
            return answer


def open_session(parameters: Mapping[str, str], name: str) -> Session:
    """Connect to database ``name``; a server that is starting or recovering may use the whole connect timeout.

    Raises StoreError, without a password in it or in its context.
    """
    deadline = time.monotonic() + float(parameters.get("connect_timeout", 10))
    while True:
        session, problem = None, ""
        try:
            session = Session.connect(make_conninfo("", **parameters, dbname=name), autocommit=True)
        except psycopg.Error as error:
            problem = " ".join(str(error).split())
        if session is not None:
            return session
        if _STARTING not in problem or time.monotonic() > deadline:
            # raised outside the handler, so that no context carries libpq's text along
            raise StoreError(f"No connection to database {name} at {place_of(parameters)}: {problem}")
        time.sleep(0.05)


def place_of(parameters: Mapping[str, str]) -> str:
    """Return host and port for people, without user and password."""
    host = parameters.get("host") or parameters.get("hostaddr") or "the default host"
    port = parameters.get("port")
    return f"{host}:{port}" if port else host


def is_pooled(connection: psycopg.Connection[Row]) -> bool:
    """Return whether a pooler is in between: the process number it reports differs from the session's own."""
    return connection.info.backend_pid != fetch_value(connection.execute("SELECT pg_backend_pid()"), int)


def fetch_row(cursor: psycopg.Cursor[Row]) -> Row:
    """Return the next row of a query that always has one; LookupError if it has none."""
    row = cursor.fetchone()
    if row is None:
        raise LookupError("the query returned no row")
    return row


def fetch_value(cursor: psycopg.Cursor[Row], kind: type[T]) -> T:
    """Return the first column of the next row, checked to be of type ``kind``; LookupError if there is no row."""
    value = fetch_row(cursor)[0]
    if not isinstance(value, kind):
        raise TypeError(f"the query returned {type(value).__name__}, not {kind.__name__}")
    return value

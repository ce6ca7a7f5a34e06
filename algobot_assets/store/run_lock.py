"""Whether the process of a run still lives: told by an advisory lock that it holds and the server gives back.

Dagster does not learn that a run ended with a power cut or a kill; the server does, because the connection ends. A run
holds the lock from its start to its end; whoever can take it knows that the run is gone.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from algobot_assets.errors import StoreError
from algobot_assets.store.connection import Store
from algobot_assets.store.database import Database

_CLASS = zlib.crc32(b"algobot run") - 2**31
#: Seconds between two looks at the connection that holds the lock; the server may be restarted under a run.
_LOOK = 15.0


def _number(run_id: str) -> int:
    return zlib.crc32(run_id.encode()) - 2**31


@contextmanager
def present(database: Database, run_id: str) -> Iterator[None]:
    """Hold the run's lock for the time of the block, on a connection of its own that is made again when it breaks."""
    ended = threading.Event()
    connection = _held(database, run_id)

    def keep() -> None:
        nonlocal connection
        while not ended.wait(_LOOK):
            try:
                if connection is None:
                    connection = _held(database, run_id)
                else:
                    connection.execute("SELECT 1")
            except (psycopg.Error, StoreError):
                if connection is not None:
                    connection.close()
                connection = None

    thread = threading.Thread(target=keep, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if connection is not None:
            with suppress(psycopg.Error):  # closing alone gives it back a moment later
                connection.execute("SELECT pg_advisory_unlock(%s::int, %s::int)", (_CLASS, _number(run_id)))
            connection.close()


def _held(database: Database, run_id: str) -> psycopg.Connection:
    connection = database.connect(autocommit=True)
    connection.execute("SELECT set_config('application_name', %s, false)", (f"algobot {run_id}",))
    # never waited for: a second process with this id would be the same run
    connection.execute("SELECT pg_try_advisory_lock(%s::int, %s::int)", (_CLASS, _number(run_id)))
    return connection


def is_present(store: Store, run_id: str) -> bool:
    """Whether a process holds the lock of the run."""
    with store.transaction() as connection:
        free = connection.execute(
            "SELECT pg_try_advisory_xact_lock(%s::int, %s::int)", (_CLASS, _number(run_id))
        ).fetchone()[0]
    return not free

"""A PostgreSQL of the benchmark's own, with fsync on, in a temporary folder; all of it is gone in the end.

Here belong the server, the settings that name it, and the state in which a phase begins. What is stored in it and what
is timed are each benchmark's affair.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from algobot_assets.settings import Settings
from algobot_assets.store import migrate
from algobot_assets.store.server import control as servers

#: A migrated database without rows, of which others are made.
TEMPLATE = "template_benchmark"


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables for the time of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextmanager
def throwaway(**more: str) -> Iterator[tuple[servers.Server, Path]]:
    """The server with its template, and a folder: ``klines`` in it is the source, ``algobot.yaml`` the declared state.

    ``more``: environment variables that say otherwise.
    """
    folder = Path(tempfile.mkdtemp(prefix="algobot_benchmark_"))
    folder.chmod(0o755)  # a server of root runs as somebody else
    (folder / "klines" / "spot").mkdir(parents=True)
    names = {
        "ALGOBOT_HOME": str(folder / "home"),
        "ALGOBOT_STATE_FILE": str(folder / "algobot.yaml"),
        "ALGOBOT_SOURCE": str(folder / "klines"),
        "ALGOBOT_ARCHIVE": str(folder / "archive"),
    }
    with environment(**{**names, **more}):
        settings = Settings()
        if settings.database_url is not None:
            sys.exit("The benchmark needs a server of its own: unset ALGOBOT_DATABASE_URL.")
        server = servers.ensure_running(settings, durable=True)
        try:
            server.ensure_database(TEMPLATE)
            migrate.upgrade(server.sqlalchemy_url(TEMPLATE))
            yield server, folder
        finally:
            servers.discard(settings)
            shutil.rmtree(folder)


def checkpoint(server: servers.Server) -> None:
    """Flush what earlier phases left, so that no phase pays for another."""
    with server.connect("postgres", autocommit=True) as connection:
        connection.execute("CHECKPOINT")

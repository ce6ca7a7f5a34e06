"""A temporary database for tests of a project: real PostgreSQL, migrated, without rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from algobot_assets.settings import Settings
from algobot_assets.store import migrate
from algobot_assets.store.server import control
from algobot_assets.store.server.choose import data_database


@contextmanager
def temporary_database(folder: Path, source: str = "simulated") -> Iterator[str]:
    """Start an embedded PostgreSQL in an empty folder, name it to the settings, and delete it after the block.

    Yields its URL. ``source``: where candles come from, by default the simulated exchange. Settings of the project and
    of the environment that name a database do not apply within the block.
    """
    names = ("ALGOBOT_HOME", "ALGOBOT_DATABASE_URL", "ALGOBOT_DIRECT_URL", "ALGOBOT_SOURCE", "ALGOBOT_ARCHIVE")
    before = {name: os.environ.get(name) for name in names}
    own = Settings(home=folder, database_url=None)
    url = control.ensure_running(own, durable=False).sqlalchemy_url()
    try:
        os.environ.update(zip(names, (str(folder), url, url, source, str(folder / "archive")), strict=True))
        database = data_database(Settings())
        migrate.upgrade(database.sqlalchemy_url())
        yield database.sqlalchemy_url()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        control.discard(own)

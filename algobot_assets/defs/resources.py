"""Resources of the assets: the database, the source of candles, the declared state.

They hold no secrets in their configuration: the database's URL comes only from the environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from algobot_assets.declared.model import DeclaredState
from algobot_assets.declared.state_file import StateFile
from algobot_assets.defs.io_manager import PostgresIOManager
from algobot_assets.feed.open import CandleFeed
from algobot_assets.pipeline.code_versions import register_code
from algobot_assets.settings import Settings
from algobot_assets.store.advisory_locks import hold_run_lock
from algobot_assets.store.connection import Store


class DatabaseResource(dg.ConfigurableResource[Any]):
    """The data database for the duration of a run. Its connections carry the run's id."""

    _store: Store | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[DatabaseResource]:
        """Open the store for the duration of the run."""
        run_id = context.run.run_id if context.run else ""
        with Store.open(run_id=run_id) as store:
            if Settings().database_url is None:
                _migrate_if_empty(store)
            with hold_run_lock(store.database, run_id) if run_id else nullcontext():
                register_code(store)
                self._store = store
                yield self

    @property
    def store(self) -> Store:
        """The store of this run."""
        if self._store is None:
            raise RuntimeError("the database resource was used outside a run")
        return self._store


def _migrate_if_empty(store: Store) -> None:
    """Create the tables in an empty embedded database, so that Dagster's own commands work in a new project.

    An older schema stays as it is: migrating it is the user's decision (`algobot db migrate`).
    """
    with store.transaction() as connection:
        if connection.execute("SELECT 1 FROM pg_class WHERE oid = to_regclass('alembic_version')").fetchone():
            return
    from algobot_assets.store import migrate  # imports alembic, which is needed only here

    migrate.upgrade(store.database.sqlalchemy_url())


class FeedResource(dg.ConfigurableResource[Any]):
    """The source of candles. ``source`` overrides ALGOBOT_SOURCE: binance, simulated, or a folder of klines."""

    source: str = ""

    @property
    def feed(self) -> CandleFeed:
        """The configured feed."""
        return CandleFeed(self.source)


class StateResource(dg.ConfigurableResource[Any]):
    """The declared state. ``path`` overrides ALGOBOT_STATE_FILE."""

    path: str = ""

    @property
    def file(self) -> StateFile:
        """The configured state file."""
        return StateFile(self.path)

    def load(self) -> DeclaredState:
        """Read and validate the file. SettingsError names the line of an error."""
        return self.file.load()


def build_resources(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build the resources of the assets. ``overrides`` replaces them by name (database, feed, state, io_manager)."""
    return {
        "database": DatabaseResource(),
        "io_manager": PostgresIOManager(),
        "feed": FeedResource(),
        "state": StateResource(),
        **(overrides or {}),
    }

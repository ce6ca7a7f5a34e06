"""What assets are given by Dagster: the database, the source of candles, the declared state.

Resources open things for a run and close them after it; they hold no logic of their own, and no secret is part
of their configuration (the database's URL comes from the environment only).
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


class DatabaseResource(dg.ConfigurableResource):
    """The data database for the time of a run; its connections carry the run's id."""

    _store: Store | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[DatabaseResource]:
        """Open the store for the run, close it after it."""
        run_id = context.run.run_id if context.run else ""
        with Store.open(run_id=run_id) as store:
            if Settings().database_url is None:
                _prepare_empty(store)
            with hold_run_lock(store.database, run_id) if run_id else nullcontext():
                register_code(store)
                self._store = store
                yield self

    @property
    def store(self) -> Store:
        """The open store of this run."""
        if self._store is None:
            raise RuntimeError("the database resource is used outside of a run")
        return self._store


def _prepare_empty(store: Store) -> None:
    """Make the tables in an embedded database that has none, so that Dagster's own commands work from a checkout.

    An older schema is left to `algobot db migrate`: what changes tables is somebody's decision.
    """
    with store.transaction() as connection:
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone()[0] is not None:
            return
    from algobot_assets.store import migrate  # alembic is needed here alone

    migrate.upgrade(store.database.sqlalchemy_url())


class FeedResource(dg.ConfigurableResource):
    """The source of candles. ``source`` overrides ALGOBOT_SOURCE: binance, simulated, or a folder of klines."""

    source: str = ""

    @property
    def feed(self) -> CandleFeed:
        """The feed this resource configures."""
        return CandleFeed(self.source)


class StateResource(dg.ConfigurableResource):
    """The declared state. ``path`` overrides ALGOBOT_STATE_FILE."""

    path: str = ""

    @property
    def file(self) -> StateFile:
        """The state file this resource configures."""
        return StateFile(self.path)

    def load(self) -> DeclaredState:
        """Read and validate the file anew. SettingsError names the line of what is wrong."""
        return self.file.load()


def build_resources(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The resources of the assets; ``overrides`` replaces some by name (database, feed, state, io_manager)."""
    return {
        "database": DatabaseResource(),
        "io_manager": PostgresIOManager(),
        "feed": FeedResource(),
        "state": StateResource(),
        **(overrides or {}),
    }

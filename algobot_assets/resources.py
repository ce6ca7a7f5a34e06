"""What assets are given by Dagster: the database, the source of candles, the declared state.

Resources open things for a run and close them after it; they hold no logic of their own, and no secret is part
of their configuration (the database's URL comes from the environment only).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from algobot_assets.code import register_code
from algobot_assets.compute.strategies import get_strategy, strategy_types
from algobot_assets.declared.model import DeclaredState
from algobot_assets.declared.reading import load
from algobot_assets.feed.open import open_source
from algobot_assets.feed.source import Source
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store
from algobot_assets.store.presence import present


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
            with present(store.database, run_id) if run_id else nullcontext():
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

    @contextmanager
    def opened(self) -> Iterator[Source]:
        """The source, open for the time of the block."""
        settings = Settings(source=self.source) if self.source else Settings()
        with open_source(settings) as source:
            yield source

    @property
    def is_folder(self) -> bool:
        """Whether candles come from files, which end where they end."""
        return (self.source or Settings().candles_from) not in ("binance", "simulated")

    @property
    def exchange(self) -> str:
        """Which exchange the candles are of: binance or simulated."""
        return (Settings(source=self.source) if self.source else Settings()).exchange


class StateResource(dg.ConfigurableResource):
    """The declared state. ``path`` overrides ALGOBOT_STATE_FILE."""

    path: str = ""

    def load(self) -> DeclaredState:
        """Read and validate the file anew. SettingsError names the line of what is wrong."""
        path = Path(self.path) if self.path else Settings().state_file
        return load(path, {name: get_strategy(name).resolve for name in strategy_types()})

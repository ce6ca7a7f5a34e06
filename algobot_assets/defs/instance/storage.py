"""Keep Dagster's runs, events and schedules in a separate database on the server of the data.

dagster.yaml names this class, so every Dagster process loads it: webserver, daemon, code server, run. This makes it
the place to start the embedded server and to set defaults that all processes must share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events.log import EventLogEntry
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine

from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings
from algobot_assets.store.server.choose import resolve

ENVIRONMENT = {
    # Batches the events of a range run. One event per asset and partition, each on its own connection, took 54 s for
    # 730 days; batches take 2 s.
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
    "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1",
}
"""Dagster reads these variables at each use, so it is enough to set them when the storage is created."""

_TABLES_KEY = 0x6461677374
"""Advisory lock for creating Dagster's tables; without it, all processes would create them at once."""


class EventLog(PostgresEventLogStorage):
    """Dagster's event log without two costs of range runs that grow with the number of days.

    It keeps one connection open (1 ms per event), whereas Dagster opens one to three per event (7 ms). It plans a check
    once per run, whereas Dagster plans it for every day of the run and never records an outcome for these days.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        # pinged before each use: the server may have been restarted
        self._engine = create_pg_engine(
            url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=20, pool_pre_ping=True
        )

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event."""
        happened = event.dagster_event
        if happened is not None and isinstance(happened.event_specific_data, AssetCheckEvaluationPlanned):
            # no check is partitioned (a preview feature of Dagster), so no result names a partition
            planned = happened.event_specific_data
            whole = AssetCheckEvaluationPlanned(asset_key=planned.asset_key, check_name=planned.check_name)
            event = event._replace(dagster_event=happened._replace(event_specific_data=whole))
        super().store_event(event)

    def dispose(self) -> None:
        """Close the kept connection."""
        super().dispose()
        self._engine.dispose()


class AlgobotDagsterStorage(DagsterPostgresStorage):
    """PostgreSQL storage that takes its configuration from Settings.

    So the URL, which may hold a password, stays out of the configuration that Dagster passes on and displays.
    Raises SettingsError or StoreError if there is no database.
    """

    def __init__(self, settings: Settings | None = None, inst_data: ConfigurableClassData | None = None) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        settings = settings or Settings()
        name = settings.dagster_database
        database = resolve(settings)
        if name == database.name:
            raise SettingsError(
                f"Dagster's tables cannot share the database {name} with the data: both have a table "
                "alembic_version. Set ALGOBOT_DAGSTER_DATABASE to another name."
            )
        database.ensure_database(name)
        with database.connect(name) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_TABLES_KEY])
            url = database.sqlalchemy_url(name, driver="psycopg2")
            super().__init__(url, inst_data=inst_data)
        self._event_log_storage = EventLog(url)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of the configuration in dagster.yaml, which is empty."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> AlgobotDagsterStorage:
        """Create the storage; the configuration comes from Settings."""
        return cls(inst_data=inst_data)

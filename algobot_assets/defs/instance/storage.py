"""Dagster's own storage (runs, events, schedules) on the server of the data, in a database of its own.

dagster.yaml names this class, so every Dagster process loads it: webserver, daemon, code server, run. It
therefore is the place to start the embedded server and to default what all of them must agree on. Nothing
about the data itself belongs here.
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
    # A range run writes its events in batches: one per asset and partition, on a connection each, took
    # 54 s for 730 days, batches take 2 s.
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
    "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1",
}
"""Read by Dagster at every use, so it is early enough to set them when the storage is made."""

_TABLES_KEY = 0x6461677374
"""Advisory lock under which Dagster's tables are made: its own processes would do so all at once."""


class EventLog(PostgresEventLogStorage):
    """Dagster's event log without two costs of a range run that grow with its days and serve nobody.

    One connection is kept, where Dagster opens one to three for every event (7 ms an event instead of 1). And a
    check that looks at a whole run is planned once, where Dagster plans it for every day of the run and never
    says of those days how it ended.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        # tested before each use: the server may have been stopped and started in between
        self._engine = create_pg_engine(
            url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=20, pool_pre_ping=True
        )

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event."""
        happened = event.dagster_event
        if happened is not None and isinstance(happened.event_specific_data, AssetCheckEvaluationPlanned):
            # no check here is partitioned (that is a preview of Dagster's), so its result names no partition either
            planned = happened.event_specific_data
            whole = AssetCheckEvaluationPlanned(asset_key=planned.asset_key, check_name=planned.check_name)
            event = event._replace(dagster_event=happened._replace(event_specific_data=whole))
        super().store_event(event)

    def dispose(self) -> None:
        """Close the connection that is kept."""
        super().dispose()
        self._engine.dispose()


class AlgobotDagsterStorage(DagsterPostgresStorage):
    """PostgreSQL storage that needs no configuration; what Settings says about the database counts.

    The URL, which may hold a password, is not part of the configuration that Dagster hands around and shows.
    Raises SettingsError or StoreError with a sentence where there is no database.
    """

    def __init__(self, settings: Settings | None = None, inst_data: ConfigurableClassData | None = None) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        settings = settings or Settings()
        name = settings.dagster_database
        database = resolve(settings)
        if name == database.name:
            raise SettingsError(
                f"Dagster's tables cannot share the database {name} with the data, both keep a table "
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
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> AlgobotDagsterStorage:
        return cls(inst_data=inst_data)

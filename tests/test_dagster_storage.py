"""Dagster's instance as dagster.yaml describes it: everything it records is in PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage

from algobot_assets.defs.instance.storage import ENVIRONMENT, AlgobotDagsterStorage
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings
from algobot_assets.store.server.choose import resolve
from algobot_assets.store.server.control import discard, ensure_running, stop

ROOT = Path(__file__).resolve().parents[1]
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-10")

BOOT = """
import sys, dagster as dg
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    print(type(instance.event_log_storage).__name__, instance.get_runs_count())
"""


@dg.multi_asset(specs=[dg.AssetSpec("candles", partitions_def=DAYS)], backfill_policy=dg.BackfillPolicy.single_run())
def candles(context):  # Dagster cannot resolve an annotation that is kept as text
    yield dg.MaterializeResult(metadata={"days": len(context.partition_keys)})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    found = Settings(home=tmp_path_factory.mktemp("home"), database_url=None, _env_file=None)
    ensure_running(found, durable=False)
    yield found
    discard(found)


@pytest.fixture
def dagster_home(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME with the project's dagster.yaml, and none of its variables set."""
    for name in (*ENVIRONMENT, "ALGOBOT_DATABASE_URL", "ALGOBOT_DAGSTER_DATABASE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch forgets what the storage sets
        monkeypatch.delenv(name)
    monkeypatch.setenv("ALGOBOT_HOME", str(settings.home))
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    return tmp_path


def test_processes_that_boot_at_once_all_work(dagster_home: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(dg.__file__).parents[1])])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BOOT, str(dagster_home)],
            env=environment,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert outputs == ["EventLog 0\n"] * 3


def test_a_range_run_is_recorded_in_postgresql(dagster_home: Path, settings: Settings) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        assert isinstance(instance.run_storage, PostgresRunStorage)
        assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
        assert isinstance(instance.schedule_storage, PostgresScheduleStorage)
        assert {name: os.environ[name] for name in ENVIRONMENT} == ENVIRONMENT
        result = dg.materialize(
            [candles],
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": "2024-01-01",
                "dagster/asset_partition_range_end": "2024-02-09",
            },
        )
        assert result.success
        assert len(instance.get_materialized_partitions(dg.AssetKey("candles"))) == 40
        assert instance.get_run_by_id(result.run_id).is_success
        with resolve(settings).connect(settings.dagster_database) as connection:
            counts = dict(
                connection.execute(
                    "SELECT dagster_event_type, count(*) FROM event_logs WHERE run_id = %s GROUP BY 1",
                    [result.run_id],
                ).fetchall()
            )
        # One event says which partitions are planned, where without the variable there is one for each.
        assert counts["ASSET_MATERIALIZATION_PLANNED"] == 1 and counts["ASSET_MATERIALIZATION"] == 40


@dg.multi_asset(
    specs=[dg.AssetSpec("checked", partitions_def=DAYS)],
    check_specs=[dg.AssetCheckSpec("whole", asset="checked")],
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def checked(context):
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)])


def test_a_check_of_a_range_is_planned_and_answered_once(dagster_home: Path, settings: Settings) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-02-09"}
        result = dg.materialize([checked], instance=instance, tags=tags)
        with resolve(settings).connect(settings.dagster_database) as connection:
            recorded = connection.execute(
                "SELECT partition, execution_status FROM asset_check_executions WHERE run_id = %s", [result.run_id]
            ).fetchall()
    assert recorded == [(None, "FAILED")]


def test_events_are_written_after_the_server_was_restarted(dagster_home: Path, settings: Settings) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        assert dg.materialize([candles], instance=instance, partition_key="2024-01-01").success
        stop(settings)
        ensure_running(settings, durable=False)
        assert dg.materialize([candles], instance=instance, partition_key="2024-01-02").success


def test_the_queue_takes_a_chain_one_by_one(dagster_home: Path) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None and queue.max_concurrent_runs == 2
        limit = {"key": "algobot/chain", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
        assert queue.tag_concurrency_limits == [limit]
        assert not instance.telemetry_enabled and not instance.run_retries_enabled


def test_the_queue_lets_one_run_at_a_time_ask_the_exchange(dagster_home: Path, defs) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert pools.pool_granularity.value == "run" and pools.default_pool_limit == 1
    assert {key.path[-1] for asset in defs.assets for key in asset.keys if asset.op.pool} == {"market_data"}


def test_the_reference_that_processes_hand_on_holds_no_secret(
    dagster_home: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = resolve(settings).parameters["host"]
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", f"postgresql://algobot:S3cret@/algobot?host={host}")
    reference = InstanceRef.from_dir(str(dagster_home))
    with dg.DagsterInstance.from_ref(reference) as instance:
        assert "S3cret" not in repr(instance.get_ref()) + instance.info_str()
        with dg.DagsterInstance.from_ref(instance.get_ref()) as second:
            assert second.get_runs_count() == instance.get_runs_count()


def test_the_data_has_a_database_of_its_own(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="ALGOBOT_DAGSTER_DATABASE"):
        AlgobotDagsterStorage(settings.model_copy(update={"dagster_database": settings.database}))


def test_workspace_names_the_definitions() -> None:
    (location,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert location == {"python_module": {"module_name": "algobot_assets.definitions", "working_directory": "."}}

"""Retention and restore killed between any two steps: the month is stored or archived, and the next run heals."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from conftest import START, TEMPLATE, Project, published_candles, url_of

from algobot_assets.schema.windows import Window
from algobot_assets.settings import Settings
from algobot_assets.store import archive as archives
from algobot_assets.store.connection import Store
from algobot_assets.store.month_partitions import leaf
from algobot_assets.store.reader import read_window
from algobot_assets.store.retention import months
from algobot_assets.store.retention.policy import archive_due_months, restore_months
from algobot_assets.store.server.control import Server

JANUARY, TODAY = date(2024, 1, 1), date(2026, 2, 10)
#: Where the process is killed: object, attribute, before or after which of its calls.
OUT: dict[str, tuple[Any, str, str, int]] = {
    "the month is locked": (months, "_export", "before", 1),
    "a file lies beside its name": (archives.os, "replace", "before", 1),
    "the first file is there": (archives.Archive, "put", "after", 1),
    "the third file has been read back": (archives.Archive, "read", "after", 3),
    "all files are there": (months, "_write_manifest", "before", 1),
    "the manifest is there": (months, "_write_manifest", "after", 1),
    "the files are recorded": (months, "_record", "after", 1),
    "the leaves are dropped": (months, "_drop", "after", 1),
    "it is committed": (Store, "retrying", "after", 1),
}
BACK: dict[str, tuple[Any, str, str, int]] = {
    "the leaves are made": (months, "_import", "before", 1),
    "candles and indicators are back": (months, "_import", "after", 2),
    "all rows are back": (months.Moved, "of", "before", 1),
    "it is committed": (Store, "retrying", "after", 1),
}
_processes = multiprocessing.get_context("forkserver")  # a fork of this process would have half of Polars' threads
_processes.set_forkserver_preload(["algobot_assets.store.retention.policy"])


def killed_at(environment: dict[str, str], direction: str, point: str) -> None:
    """In a process of its own, under these settings: archive or restore, and die at the point."""
    os.environ.clear()  # what is there is from when the server of these processes was started
    os.environ.update(environment)
    owner, name, when, number = (OUT if direction == "out" else BACK)[point]
    original, calls = getattr(owner, name), []

    def dying(*args: Any, **options: Any) -> Any:
        calls.append(None)
        if when == "before" and len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **options)
        if when == "after" and len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)
    with Store.open() as store:
        if direction == "out":
            list(archive_due_months(store, Settings(), TODAY))
        else:
            list(restore_months(store, JANUARY, JANUARY))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed") / "archive"


@pytest.fixture(scope="module")
def store(
    server: Server, place: Path, tmp_path_factory: pytest.TempPathFactory, dagster_instance: dg.DagsterInstance
) -> Iterator[Store]:
    """Three days at a month's end: candles, indicators, and signals of two strategies."""
    server.ensure_database("test_killed", template=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALGOBOT_DATABASE_URL", url_of(server, "test_killed"))
        patch.setenv("ALGOBOT_SOURCE", "binance")
        patch.setenv("ALGOBOT_ARCHIVE", str(place))
        project = Project(tmp_path_factory.mktemp("project"), dagster_instance)
        project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 3))
        tables = ["configurations", "strategies", "risk_parameters", "market_data", "indicators", "signals"]
        assert project.run(START, START + timedelta(days=2), tables).success
        with Store.open() as opened:
            yield opened
    server.drop_database("test_killed")


@pytest.fixture(scope="module")
def whole(store: Store) -> list[pl.DataFrame]:
    """What any reader sees before anything has moved."""
    return seen(store)


def seen(store: Store) -> list[pl.DataFrame]:
    """All rows of January and after, with ids and stamps, wherever they are."""
    first, end = START, START + timedelta(days=3)
    windows = [Window(table, first, end, "BTCUSDT", "1h") for table in ("market_data", "indicators")]
    windows += [Window("signals", first, end, "BTCUSDT", "1h", strategy) for strategy in (1, 2)]
    columns = ["id", "timestamp", "created_at", "updated_at"]
    values = {"market_data": ["close", "volume"], "indicators": ["market_data_id", "rsi"], "signals": ["signal"]}
    return [read_window(store, window, [*columns, *values[window.table]]) for window in windows]


def is_archived(store: Store) -> bool:
    """Whether January is recorded as archived; it then has no leaves, else all three."""
    with store.transaction() as connection:
        recorded = connection.execute("SELECT count(*) FROM archived_files").fetchone()[0]
        leaves = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relname = ANY(%s)",
            ([leaf(table, JANUARY) for table in months.MONTHLY],),
        ).fetchone()[0]
    assert (recorded, leaves) in ((4, 0), (0, 3))
    return recorded > 0


def die(direction: str, point: str) -> None:
    process = _processes.Process(target=killed_at, args=(dict(os.environ), direction, point))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("point", OUT)
def test_a_killed_retention_loses_nothing(point, store, place, whole):
    die("out", point)
    with store.transaction() as connection:  # the server notices that nobody is there any more
        for table in months.MONTHLY:
            months.lock_months(connection, table, [JANUARY])
    assert is_archived(store) == (point == "it is committed")
    assert all(one.equals(other) for one, other in zip(seen(store), whole, strict=True))
    assert [outcome.kept for outcome in archive_due_months(store, Settings(), TODAY)] in ([], [None])
    assert is_archived(store)
    assert all(one.equals(other) for one, other in zip(seen(store), whole, strict=True))
    list(restore_months(store, JANUARY, JANUARY))
    assert not is_archived(store)


@pytest.mark.parametrize("point", BACK)
def test_a_killed_restore_loses_nothing(point, store, place, whole):
    assert [outcome.kept for outcome in archive_due_months(store, Settings(), TODAY)] == [None]
    die("back", point)
    with store.transaction() as connection:
        for table in months.MONTHLY:
            months.lock_months(connection, table, [JANUARY])
    assert is_archived(store) == (point != "it is committed")
    assert all(one.equals(other) for one, other in zip(seen(store), whole, strict=True))
    if is_archived(store):
        list(restore_months(store, JANUARY, JANUARY))
    assert not is_archived(store)
    assert all(one.equals(other) for one, other in zip(seen(store), whole, strict=True))

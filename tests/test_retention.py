"""Retention: months leave for the archive and come back, and nothing that reads them can tell the difference."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import psycopg
import pytest
from conftest import START, TEMPLATE, Project, published_candles, url_of
from tables import content

from algobot_assets.audit.explain import explain_trade
from algobot_assets.audit.explain_text import as_text
from algobot_assets.audit.staleness import complete_through
from algobot_assets.audit.staleness import due as stale_due
from algobot_assets.audit.verify import verify
from algobot_assets.cli.app import main
from algobot_assets.client import connect
from algobot_assets.defs.automation.retention import retention
from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.errors import ArchiveError, SettingsError
from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.tables import MONTHLY
from algobot_assets.settings import Settings
from algobot_assets.store.archive import Archive, path_of
from algobot_assets.store.connection import Store
from algobot_assets.store.retention.policy import archive_due_months, cutoff, due_months, restore_months
from algobot_assets.store.server.control import Server

LAST = START + timedelta(days=8)
JANUARY, FEBRUARY = date(2024, 1, 1), date(2024, 2, 1)
#: With 24 months kept, January 2024 is due and February is not; a month later February is too.
TODAY, LATER = date(2026, 2, 10), date(2026, 3, 10)


@pytest.fixture(scope="module")
def original(
    server: Server, tmp_path_factory: pytest.TempPathFactory, dagster_instance: dg.DagsterInstance
) -> Iterator[Project]:
    """A project whose database, ``test_retention``, holds nine days of two months in all nine tables."""
    server.ensure_database("test_retention", template=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALGOBOT_DATABASE_URL", url_of(server, "test_retention"))
        patch.setenv("ALGOBOT_SOURCE", "binance")
        project = Project(tmp_path_factory.mktemp("retention"), dagster_instance)
        project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9))
        assert project.run(START, LAST).success
    yield project
    server.drop_database("test_retention")


@pytest.fixture
def full(
    original: Project, server: Server, tmp_path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Project]:
    """The project with a copy of its database, which the settings name, and an archive of the test's own."""
    name = f"retention_{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
    server.ensure_database(name, template="test_retention")
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", url_of(server, name))
    monkeypatch.setenv("ALGOBOT_SOURCE", "binance")
    monkeypatch.setenv("ALGOBOT_ARCHIVE", str(tmp_path / "archive"))
    yield original
    server.drop_database(name)


@pytest.fixture
def url(full: Project) -> str:
    return Settings().database_url.get_secret_value()


@pytest.fixture
def store(full: Project) -> Iterator[Store]:
    with Store.open(run_id="test") as opened:
        yield opened


def rows(url: str) -> dict[str, list[tuple]]:
    """Every row of the three tables with ids and stamps."""
    with psycopg.connect(url) as connection:
        return {
            table: connection.execute(f'SELECT * FROM {table} ORDER BY "timestamp", id').fetchall() for table in MONTHLY
        }


def opened(row: tuple) -> date:
    return next(value for value in row if isinstance(value, datetime)).astimezone(UTC).date()


def archive(store: Store, today: date = LATER) -> None:
    outcomes = list(archive_due_months(store, Settings(), today))
    assert outcomes and [outcome.kept for outcome in outcomes] == [None] * len(outcomes)


def leaves(store: Store) -> int:
    with store.transaction() as connection:
        return connection.execute("SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r'").fetchone()[0]


def test_archived_months_come_back_with_the_same_bits(store, url, tmp_path):
    before, everything = rows(url), content(url)
    assert due_months(store, Settings(), TODAY) == [JANUARY]
    archive(store, TODAY)
    assert rows(url) == {table: [row for row in found if opened(row) >= FEBRUARY] for table, found in before.items()}
    assert leaves(store) == 3
    assert list(archive_due_months(store, Settings(), TODAY)) == []
    assert stale_due(store) is None and complete_through(store) == midnight(LAST + timedelta(days=1))
    assert content(url, ("lineage", "trade_history"))["lineage"] == everything["lineage"]
    (manifest,) = (tmp_path / "archive").rglob("manifest.json")
    listed = json.loads(manifest.read_text())["files"]
    assert [item["table"] for item in listed] == ["market_data", "indicators", "signals", "signals"]
    for item in listed:
        data = (tmp_path / "archive" / item["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (item["bytes"], item["sha256"])
        assert (item["rows"], item["first_open"][:16], item["last_open"][:16]) == (
            48,
            "2024-01-30T00:00",
            "2024-01-31T23:00",
        )
    (moved,) = restore_months(store, JANUARY, JANUARY)
    assert (moved.rows, moved.files) == (48 * 4, 4)
    assert rows(url) == before
    assert content(url) == everything
    archive(store, TODAY)  # what was brought back leaves again
    assert leaves(store) == 3


def test_days_that_are_fresh_go_through_and_verify_over_the_archive(full, store, url):
    before = content(url)
    archive(store)
    assert leaves(store) == 0
    result = full.run(START, LAST)
    assert (result.success, result.skipped) == (True, ())
    again = {table: {"recompute": True} for table in ("indicators", "signals", "trade_history", "backtest_results")}
    result = full.run(START, LAST, market_data={"from_source": True}, **again)
    assert (result.success, result.skipped) == (True, ())
    assert leaves(store) == 0, "nothing had to be written"
    assert [f.difference for f in verify(store, START, LAST)] == [None] * 6
    assert sum(moved.rows for moved in restore_months(store, JANUARY, FEBRUARY)) == 9 * 24 * 4
    assert content(url) == before


def test_changes_to_an_archived_month_are_refused(full, store, url):
    archive(store, TODAY)
    before = content(url)
    changed = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9, seed=2)
    full.publish(changed)
    try:
        result = full.run(START, START, ["market_data"], market_data={"from_source": True})
    finally:
        full.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9))
    assert not result.success
    assert result.error == (
        "market_data of BTCUSDT 1h, 2024-01-30: the month is archived, so its rows cannot be changed. Bring it "
        "back first: `algobot restore 2024-01`."
    )
    assert content(url) == before
    list(restore_months(store, JANUARY, JANUARY))
    assert full.run(START, LAST).success


def test_days_that_were_never_stored_are_refused_before_anything_is_fetched(full, store, tmp_path):
    archive(store, TODAY)
    with store.transaction() as connection:
        connection.execute("DELETE FROM lineage WHERE table_name = 'market_data' AND day = %s", (START,))
    result = full.run(START, START, ["market_data"])
    assert not result.success
    assert (
        "candles that were never stored cannot be added to it" in result.error
        and "`algobot restore 2024-01`" in result.error
    )


def test_the_client_reads_archived_months_with_the_same_bits(store, url):
    def answers() -> list[pl.DataFrame]:
        with connect(database_url=url) as client:
            everything = {name: client.candles("BTCUSDT", "1h").newest for name in ("newest",)}
            assert everything["newest"] == datetime(2024, 2, 8, tzinfo=UTC)
            newest = [dataclasses.asdict(client.latest_signal(name)) for name in ("cross", "rules")]
            for item in newest:
                item.pop("as_of")
            frames = [pl.DataFrame(newest)]
            for start, end in ((None, None), ("2024-01-31T05:00", "2024-02-01T03:00"), ("2024-02-03", None)):
                frames += [
                    client.candles("BTCUSDT", "1h", start, end).frame,
                    client.candles("BTCUSDT", "1h", start, end, columns=["close", "id"]).frame,
                    client.indicators("BTCUSDT", "1h", start, end).frame,
                    client.candles_with_indicators("BTCUSDT", "1h", start, end).frame,
                    client.candles_with_indicators("BTCUSDT", "1h", start, end, columns=["rsi", "open"]).frame,
                    client.signals("BTCUSDT", "1h", start, end).frame,
                    client.signals("BTCUSDT", "1h", start, end, strategy="rules").frame,
                ]
            return [*frames, client.markets().frame.drop("age")]

    before = answers()
    for today in (TODAY, LATER):  # half of it archived, then all of it
        archive(store, today)
        after = answers()
        for one, other in zip(before, after, strict=True):
            assert one.schema == other.schema
            assert one.equals(other, null_equal=True)


def test_a_trade_of_archived_candles_is_explained(store, url):
    def explained() -> list:
        with psycopg.connect(url) as connection:
            trades = [row[0] for row in connection.execute("SELECT id FROM trade_history ORDER BY id LIMIT 12")]
        return [explain_trade(store, trade) for trade in trades]

    before = explained()
    archive(store)
    after = explained()
    for one, other in zip(before, after, strict=True):
        assert other.problems == []
        assert (other.trade, other.decisions, other.closed_because) == (one.trade, one.decisions, one.closed_because)
        assert [dataclasses.replace(candle, archive_file=None) for candle in other.candles] == list(one.candles)
        for candle in other.candles:
            assert candle.archive_file.endswith(f"/{candle.opened:%Y-%m}/market_data/BTCUSDT_1h.parquet")
        text = as_text(other)
        assert "archived" in text and f"key      id {other.candles[0].id}, timestamp" in text


def test_a_damaged_archive_file_is_named_with_the_remedy(store, tmp_path):
    archive(store)
    (file,) = (tmp_path / "archive").rglob("2024-01/indicators/*.parquet")
    data = file.read_bytes()
    for offset in (len(data) // 2, len(data) - 1):
        file.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(ArchiveError, match=r"indicators/BTCUSDT_1h.parquet is damaged.*undamaged copy"):
            list(verify(store, START, LAST))
        with pytest.raises(ArchiveError, match="is damaged"):
            list(restore_months(store, JANUARY, JANUARY))
    file.unlink()
    with connect() as client:
        with pytest.raises(ArchiveError, match=r"indicators/BTCUSDT_1h.parquet is missing.*ALGOBOT_ARCHIVE"):
            client.indicators("BTCUSDT", "1h")
        assert client.candles("BTCUSDT", "1h").frame.height == 9 * 24, "other files are not concerned"
    with pytest.raises(ArchiveError, match="is missing"):
        list(restore_months(store, JANUARY, JANUARY))
    assert leaves(store) == 0, "a restore that failed leaves nothing behind"
    file.write_bytes(data)
    assert [moved.rows for moved in restore_months(store, JANUARY, FEBRUARY)] == [48 * 4, 7 * 24 * 4]


def test_a_month_with_wrong_rows_is_not_archived(store, url):
    moment = datetime(2024, 1, 31, 5, tzinfo=UTC)
    with psycopg.connect(url) as connection:
        connection.execute('UPDATE indicators SET rsi = rsi + 1 WHERE "timestamp" = %s', (moment,))
    first, second = archive_due_months(store, Settings(), LATER)
    assert first.kept == (
        "indicators of BTCUSDT 1h, 2024-01-31 is stale (changed by hand): run `algobot refresh`, then "
        "`algobot retention`."
    )
    assert (second.kept, second.moved.rows) == (None, 7 * 24 * 4)
    with psycopg.connect(url) as connection:  # behind the triggers' back
        connection.execute("DELETE FROM dirty_days")
    (outcome,) = archive_due_months(store, Settings(), LATER)
    assert "2024-01-31: the rows are not those that were recorded" in outcome.kept
    with psycopg.connect(url) as connection:
        connection.execute('UPDATE indicators SET rsi = rsi - 1 WHERE "timestamp" = %s', (moment,))
        connection.execute("DELETE FROM dirty_days")
        connection.execute(
            """INSERT INTO signals (market_data_id, strategy_id, symbol, "interval", "timestamp", signal)
               SELECT id, 1, symbol, '2h', "timestamp", 0 FROM market_data LIMIT 1"""
        )
    (outcome,) = archive_due_months(store, Settings(), LATER)
    assert "rows that no run has recorded" in outcome.kept
    assert leaves(store) == 3


def test_files_that_cannot_be_written_change_nothing(store, url, tmp_path, monkeypatch):
    before = rows(url)
    (tmp_path / "archive").write_text("a file where the folder should be")
    first, _ = archive_due_months(store, Settings(), LATER)
    assert "cannot be written" in first.kept and "nothing has left the database" in first.kept
    assert rows(url) == before
    (tmp_path / "archive").unlink()
    put = Archive.put
    monkeypatch.setattr(Archive, "put", lambda self, path, data: put(self, path, data[:-1] + b"?"))
    first, _ = archive_due_months(store, Settings(), LATER)
    assert "is damaged" in first.kept, "what was written is read back before anything is dropped"
    assert rows(url) == before


def test_the_archive_can_be_any_fsspec_url(store, url, monkeypatch):
    monkeypatch.setenv("ALGOBOT_ARCHIVE", "memory://months")
    before = rows(url)
    with Store.open() as other:
        archive(other)
        assert [f.difference for f in verify(other, START, LAST)] == [None] * 6
        list(restore_months(other, JANUARY, FEBRUARY))
    assert rows(url) == before
    assert Archive("ftp://me:secret@host/months").shown("x") == "ftp://host/months/x"
    with pytest.raises(ArchiveError, match="nowhere://a cannot be opened"):
        Archive("nowhere://a").put("x", b"")


def test_reading_waits_for_no_month_that_leaves_and_loses_none(store, url):
    with store.transaction() as reader:
        assert reader.execute("SELECT count(*) FROM market_data").fetchone()[0] == 9 * 24
        with Store.open() as other, pytest.MonkeyPatch.context() as patch:
            patch.setattr("algobot_assets.store.retention.months._PATIENCE", "50ms")
            patch.setattr("algobot_assets.store.retention.months._ATTEMPTS", 2)
            (outcome,) = archive_due_months(other, Settings(), TODAY)
            assert "reading candles in one transaction for long" in outcome.kept
        assert reader.execute("SELECT count(*) FROM market_data").fetchone()[0] == 9 * 24
    archive(store, TODAY)


def test_month_arguments_are_parsed(store):
    assert [cutoff(date(2026, 1, 31), 24), cutoff(date(2026, 12, 1), 12)] == [date(2024, 1, 1), date(2025, 12, 1)]
    assert path_of("a", "signals", JANUARY, "BTCUSDT", "1M", 7) == "a/2024-01/signals/BTCUSDT_1mo_7.parquet"
    with pytest.raises(SettingsError, match="2024-01 is not archived; nothing is archived"):
        list(restore_months(store, JANUARY, JANUARY))
    archive(store, TODAY)
    with pytest.raises(SettingsError, match="2023-01 to 2023-05 is not archived; archived are 2024-01 to 2024-01"):
        list(restore_months(store, date(2023, 1, 1), date(2023, 5, 1)))
    for months in ("11", "25", "many"):
        with pytest.raises(SettingsError, match="ALGOBOT_RETENTION_MONTHS"):
            Settings(retention_months=months)


def test_one_run_of_the_job_does_all_months(full, store):
    config = {"ops": {"archive_months": {"config": {"today": LATER.isoformat()}}}}
    result = retention.execute_in_process(resources={"database": DatabaseResource()}, run_config=config)
    assert result.success
    assert leaves(store) == 0
    with store.transaction() as connection:
        runs = connection.execute("SELECT DISTINCT run_id FROM archived_files").fetchall()
        connection.execute("UPDATE lineage SET complete_through = complete_through - interval '1 day'")
    assert runs == [(result.run_id,)]
    list(restore_months(store, JANUARY, JANUARY))
    result = retention.execute_in_process(
        resources={"database": DatabaseResource()}, run_config=config, raise_on_error=False
    )
    assert not result.success
    assert leaves(store) == 3


def test_months_are_archived_and_restored_on_the_command_line(store, url, monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
            raise SystemExit(0)
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    monkeypatch.setenv("ALGOBOT_RETENTION_MONTHS", "12")  # by the database's clock
    before = rows(url)
    code, said = run("retention", "--dry-run")
    assert code == 0 and "Due: 2024-01" in said and rows(url) == before
    code, said = run("retention")
    assert code == 0 and "2024-01           192 rows" in said
    assert rows(url) != before
    code, said = run("restore", "2024-01", "2024-02")
    assert code == 0 and "rows in 4 files restored" in said
    assert rows(url) == before
    code, said = run("restore", "2019-01")
    assert code == 1 and "2019-01 is not archived; nothing is archived" in said
    code, said = run("restore", "January")
    assert code == 2 and "'January' is not a valid month. Use YYYY-MM, for example 2023-01" in said


WIDE = """
markets:
  - {symbol: BTCUSDT, interval: 1w, start: 2024-01-01}
  - {symbol: BTCUSDT, interval: 3d, start: 2024-01-01}
strategies: {}
configurations: {}
"""


def test_candles_that_end_in_the_next_month(project, database_url, tmp_path, monkeypatch):
    """The last week of January belongs to a day of February, and leaves with January."""
    monkeypatch.setenv("ALGOBOT_ARCHIVE", str(tmp_path / "archive"))
    project.declare(WIDE)
    for interval, days in (("1w", 7), ("3d", 3)):
        candles = published_candles(datetime(2024, 1, 1, tzinfo=UTC), 84 // days, minutes=days * 1440)
        project.publish(candles, interval=interval)
    first, last = date(2024, 1, 1), date(2024, 3, 24)
    tables = ["market_data", "indicators"]
    assert project.run(first, last, tables).success
    with Store.open() as store:
        before = rows(database_url)
        archive(store, TODAY)
        assert {opened(row).month for row in rows(database_url)["market_data"]} == {2, 3}
        for begin in (first, date(2024, 2, 1), date(2024, 2, 4), date(2024, 2, 5)):
            result = project.run(begin, last, tables, indicators={"recompute": True}, market_data={"from_source": True})
            assert (result.success, result.skipped) == (True, ())
        found = {f.table: f.difference for f in verify(store, first, last)}
        assert (found["market_data"], found["indicators"]) == (None, None)
        list(restore_months(store, JANUARY, JANUARY))
        assert rows(database_url) == before

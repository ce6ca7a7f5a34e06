"""The command line as a user meets it: real database, candles from a folder, exit codes, tables, JSON, errors."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import polars as pl
import psycopg
import pytest
from conftest import START, STATE, published_candles
from tables import counts

from algobot_assets.cli.app import cli, main
from algobot_assets.cli.console import progress
from algobot_assets.cli.source_choice import choose_source
from algobot_assets.errors import SettingsError
from algobot_assets.schema.tables import metadata


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of klines with nine days of BTCUSDT 1h, and a declared state for it."""
    (tmp_path / "spot").mkdir()
    candles = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9)
    candles.write_parquet(tmp_path / "spot" / "BTCUSDT-1h-all.parquet")
    (tmp_path / "algobot.yaml").write_text(STATE.format(start=START))
    return tmp_path


class Said(NamedTuple):
    """How a command ended and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def algobot(folder: Path, new_database, server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """Runs the command in this process as the console script does; gives exit code, output and errors."""
    url = new_database()
    settings = {
        "ALGOBOT_DATABASE_URL": url,
        "ALGOBOT_DAGSTER_DATABASE": f"dagster_{os.getpid()}",
        "ALGOBOT_SOURCE": str(folder),
        "ALGOBOT_STATE_FILE": str(folder / "algobot.yaml"),
        "ALGOBOT_HOME": str(folder / "home"),
        "COLUMNS": "80",
    }

    def run(*arguments: str, **environment: str) -> Said:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            for name, value in {**settings, **environment}.items():
                patch.setenv(name, value)
            try:
                main(list(arguments))
                code = 0
            except SystemExit as ended:
                code = ended.code
        return Said(code, *capfd.readouterr())

    run.url = url
    yield run
    server.drop_database(f"dagster_{os.getpid()}")


def test_the_console_script_ends_with_the_exit_code_and_knows_its_name(tmp_path):
    program = Path(sys.executable).parent / "algobot"
    wrong = subprocess.run([program, "backfill"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "Usage: algobot backfill" in wrong.stderr and wrong.stdout == ""


def test_help_fits_the_terminal_and_names_every_command(algobot):
    shown = algobot("--help")
    assert shown.returncode == 0
    for name in cli.commands:
        assert f"  {name} " in shown.stdout
        assert "--json" in algobot(name, "--help").stdout or name in ("up", "db", "explain")
    for code in ("0 done", "1 failed", "2 wrong", "3 the database", "4 something is stale", "5 a"):
        assert code in " ".join(shown.stdout.split())
    pages = [shown.stdout] + [algobot(name, "--help").stdout for name in cli.commands]
    assert max(len(line) for page in pages for line in page.splitlines()) <= 80


def test_demo_status_verify_and_a_second_backfill(algobot):
    demo = algobot("demo", "--to", "2024-02-07")
    assert demo.returncode == 0, demo.stderr
    for text in ("market_data", "216", "backtest_results", "cross", "rules", "the UI, at http://127.0.0.1:3000"):
        assert text in demo.stdout
    assert "Materialising" not in demo.stdout and "━" not in demo.stderr, "no bar in a pipe"
    assert max(map(len, demo.stdout.splitlines()[:-4])) <= 80
    before = counts(algobot.url)
    again = algobot("backfill", "2024-01-30", "2024-02-07", "--json")
    assert again.returncode == 0, again.stderr
    assert counts(algobot.url) == before
    told = json.loads(again.stdout)
    assert told["rows"] == before
    assert (
        told["runs"][0].items() >= {"first": "2024-01-30", "last": "2024-02-07", "skipped": [], "left_out": []}.items()
    )
    status = algobot("status")
    assert status.returncode == 0, status.stderr
    assert "Nothing is stale." in status.stdout
    assert max(map(len, status.stdout.splitlines())) <= 80
    verified = algobot("verify", "2024-01-30", "2024-02-07")
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.count("equal") == 6
    with psycopg.connect(algobot.url) as connection:
        connection.execute("UPDATE indicators SET rsi = rsi + 1 WHERE id = (SELECT max(id) FROM indicators)")
        stored = connection.execute(
            "SELECT final_capital::text FROM backtest_results ORDER BY strategy_id, day DESC LIMIT 1"
        ).fetchone()[0]
    status = algobot("status", "--json")
    assert status.returncode == 4
    told = json.loads(status.stdout)
    assert told["stale"][0].items() >= {"table": "indicators", "partitions": 1, "from": "2024-02-07"}.items()
    assert [s["strategy"] for s in told["strategies"]] == ["cross", "rules"]
    assert told["strategies"][0]["final_capital"] == stored, "every digit"
    assert told["markets"][0]["complete_through"] == "2024-02-08T00:00:00+00:00"
    differs = algobot("verify", "2024-01-30", "2024-02-07", "--json")
    assert differs.returncode == 5
    told = json.loads(differs.stdout)
    assert not told["equal"]
    wrong = [table for table in told["tables"] if table["difference"]]
    assert wrong[0]["table"] == "indicators" and "rsi of BTCUSDT, 1h, 2024-02-07" in wrong[0]["difference"]
    refreshed = algobot("refresh", "--stored-only", "--json")
    assert refreshed.returncode == 0, refreshed.stderr
    assert "1 stale in indicators" in refreshed.stderr
    assert json.loads(refreshed.stdout)["stale"] is None
    assert algobot("verify", "2024-01-30", "2024-02-07").returncode == 0
    applied = algobot("apply", "--json")
    assert json.loads(applied.stdout)["strategy_versions"] == 2
    due = json.loads(algobot("retention", "--dry-run", "--json").stdout)
    assert due["due"] == ["2024-01", "2024-02"] and due["archived"] == []


def test_status_shows_the_database_in_use(algobot):
    said = algobot("db", "status", "--json")
    assert said.returncode == 0
    told = json.loads(said.stdout)
    assert told["running"] and told["schema"] == told["schema_wanted"]
    embedded = algobot("db", "status", ALGOBOT_DATABASE_URL="")
    assert embedded.returncode == 3 and "is not running. Start it: algobot db start" in embedded.stdout
    schema = json.loads(algobot("db", "schema", "--json").stdout)
    assert set(schema["tables"]) == set(metadata.tables)


def test_errors_are_one_sentence_and_traceback_is_an_option(algobot, monkeypatch):
    with pytest.raises(SettingsError, match="There is no table candles"):
        algobot("--traceback", "backfill", "2024-01-30", "--table", "candles")
    failed = algobot("backfill", "2024-01-30", "--table", "candles", "--json")
    assert (failed.returncode, failed.stdout) == (1, "") and failed.stderr.startswith("algobot: There is no table")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("algobot_assets.store.server.control.status", broken)
    bug = algobot("db", "status")
    assert bug.returncode == 1 and "ZeroDivisionError: division by zero" in bug.stderr
    assert "Traceback" not in bug.stderr
    with pytest.raises(ZeroDivisionError):
        algobot("--traceback", "db", "status")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("algobot_assets.store.server.control.status", interrupted)
    ended = algobot("db", "status")
    assert ended.returncode == 130 and "complete and stays" in ended.stderr


def test_the_source_chosen_before_is_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ALGOBOT_HOME", str(tmp_path))
    monkeypatch.setenv("ALGOBOT_SOURCE", "")
    (tmp_path / "source").write_text("simulated\n")
    assert choose_source(None).candles_from == "simulated"
    assert "To use Binance: --source binance" in capsys.readouterr().err
    assert choose_source("binance").candles_from == "binance"


def test_each_table_has_its_own_clock():
    log = logging.getLogger("algobot.windows")
    with progress("nothing") as shown:
        tasks = {task.description: task for task in shown.tasks}
        log.info("", extra={"table": "strategies"})
        assert tasks["strategies"].started and not tasks["market_data"].started
        log.info("", extra={"table": "strategies", "finished": True})
        assert tasks["strategies"].finished and tasks["strategies"].fields["rows"] == 0
        log.info("", extra={"table": "market_data", "planned": 1})
        log.info("", extra={"table": "market_data", "rows": 24, "days": "2024-01"})
        assert tasks["market_data"].finished_time is not None
        log.info("", extra={"table": "market_data", "planned": 1})
        assert tasks["market_data"].finished_time is None, "the next market goes on"


def sentence(result: Said) -> str:
    """The one sentence on standard error of a command that failed as it should."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr + result.stdout
    return result.stderr


def test_bad_input_is_refused_in_one_sentence_and_changes_nothing(algobot, folder):
    assert algobot("backfill", "2024-01-30").returncode == 0
    before = counts(algobot.url)
    assert "lies before the first partition, 2017-07-01" in sentence(algobot("backfill", "2016-01-01", "2016-01-02"))
    assert "is not a valid date. Use YYYY-MM-DD, for example 2024-01-31" in sentence(algobot("backfill", "yesterday"))
    assert "has no data for market 'BTCUSD 1h'" in sentence(algobot("backfill", "2024-01-30", "--market", "BTCUSD 1h"))
    assert "There is no table candles" in sentence(algobot("backfill", "2024-01-30", "--table", "candles"))
    unknown = folder / "unknown.yaml"
    unknown.write_text(STATE.format(start=START).replace("BTCUSDT", "BTCUSTD"))
    assert "BTCUSTD" in sentence(algobot("backfill", "2024-01-30", ALGOBOT_STATE_FILE=str(unknown)))
    unknown.write_text(STATE.format(start=START).replace("1h", "7h"))
    assert "line 3" in sentence(algobot("backfill", "2024-01-30", ALGOBOT_STATE_FILE=str(unknown)))
    unknown.write_text("markets: [")
    assert "line" in sentence(algobot("backfill", "2024-01-30", ALGOBOT_STATE_FILE=str(unknown)))
    said = sentence(algobot("backfill", "2024-01-30", ALGOBOT_STATE_FILE=str(folder / "nothing.yaml")))
    assert "nothing.yaml" in said
    assert counts(algobot.url) == before


def test_impossible_days_are_refused_in_one_sentence(algobot, folder):
    assert algobot("backfill", "2024-01-30", "2024-02-07").returncode == 0
    for command in (("backfill",), ("verify",)):
        assert "before it starts on 2024-02-01" in sentence(algobot(*command, "2024-02-01", "2024-01-30"))
        assert "2100-01-01 lies in the future" in sentence(algobot(*command, "2100-01-01", "2100-01-02"))
    assert "before it starts" in sentence(algobot("restore", "2024-02", "2024-01"))
    backwards = ("--from", "2024-02-01", "--to", "2024-01-30")
    assert "before it starts" in sentence(algobot("sweep", "cross", *backwards))
    assert "before it starts" in sentence(algobot("demo", *backwards))
    said = sentence(algobot("backfill", "2024-02-08"))
    assert "There are no candles on 2024-02-08" in said and "2024-02-08 00:00 UTC" in said
    beyond = algobot("backfill", "2024-02-07", "2024-02-20", "--json")
    assert beyond.returncode == 0 and "Days after 2024-02-07 are skipped" in beyond.stderr
    assert json.loads(beyond.stdout)["runs"][0]["last"] == "2024-02-07"
    assert "No candles are stored from 2023-01-01 to 2023-01-02" in sentence(
        algobot("verify", "2023-01-01", "2023-01-02")
    )
    later = folder / "later.yaml"
    later.write_text("markets:\n  - {symbol: BTCUSDT, interval: 1h, start: 2099-01-01}\n")
    future = {"ALGOBOT_STATE_FILE": str(later)}
    assert "starts on 2099-01-01" in sentence(algobot("backfill", "2024-01-30", **future))
    assert "start on 2099-01-01" in sentence(algobot("demo", **future))
    assert algobot("refresh", **future).returncode == 0


def test_a_refresh_with_nothing_newer_succeeds_and_says_until_when(algobot, folder):
    shorter = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 4, seed=2)
    shorter.write_parquet(folder / "spot" / "ETHUSDT-1h-all.parquet")
    state = folder / "algobot.yaml"
    more = "  - {symbol: ETHUSDT, interval: 1h, start: 2024-01-30}\nstrategies:"
    one_strategy = state.read_text().replace("strategies:", more).replace("market: BTCUSDT 1h", "market: ETHUSDT 1h")
    state.write_text(one_strategy)
    assert algobot("refresh").returncode == 0
    for _ in range(2):
        again = algobot("refresh")
        assert again.returncode == 0, again.stderr
        assert "Up to date until 2024-02-08 00:00 UTC." in again.stdout and "Skipped" not in again.stderr
        assert "Materialising" not in again.stderr, "there is nothing to run"


def test_unreachable_servers_are_one_sentence(algobot):
    said = sentence(algobot("status", ALGOBOT_DATABASE_URL="postgresql://u:hidden-word@127.0.0.1:9/d"))
    assert "127.0.0.1:9" in said and "hidden-word" not in said
    said = sentence(
        algobot(
            "backfill",
            "2024-01-30",
            "--source",
            "binance",
            ALGOBOT_EXCHANGE_URL="http://127.0.0.1:9",
            ALGOBOT_ARCHIVE_URL="http://127.0.0.1:9",
        )
    )
    assert "no answer" in said


def test_bad_candles_are_refused_in_one_sentence(algobot, folder):
    good = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9)
    path = folder / "spot" / "BTCUSDT-1h-all.parquet"
    upside_down = pl.when(pl.int_range(pl.len()) == 30).then(pl.lit("1.00")).otherwise(pl.col("high")).alias("high")
    good.with_columns(upside_down).write_parquet(path)
    said = sentence(algobot("backfill", "2024-01-30", "2024-02-07"))
    assert "BTCUSDT 1h" in said and "high" in said and "2024-01-31" in said
    assert counts(algobot.url)["market_data"] == 0
    path.unlink()
    zips = folder / "data" / "spot" / "daily" / "klines" / "BTCUSDT" / "1h"
    zips.mkdir(parents=True)
    name = "BTCUSDT-1h-2024-01-30"
    with zipfile.ZipFile(zips / f"{name}.zip", "w") as archive:
        archive.writestr(f"{name}.csv", good.head(24).write_csv(include_header=False))
    (zips / f"{name}.zip.CHECKSUM").write_text(f"{sha256(b'other').hexdigest()}  {name}.zip\n")
    said = sentence(algobot("backfill", "2024-01-30"))
    assert name in said and "CHECKSUM" in said.upper()
    assert counts(algobot.url)["market_data"] == 0

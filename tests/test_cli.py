"""The command line as a user meets it: in a process of its own, real database, candles from a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import polars as pl
import psycopg
import pytest
from conftest import START, STATE, published_candles
from tables import counts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of klines with nine days of BTCUSDT 1h, and a declared state for it."""
    (tmp_path / "spot").mkdir()
    candles = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9)
    candles.write_parquet(tmp_path / "spot" / "BTCUSDT-1h-all.parquet")
    (tmp_path / "algobot.yaml").write_text(STATE.format(start=START))
    return tmp_path


@pytest.fixture
def algobot(folder: Path, new_database, server):
    """Runs the command; gives exit code, output and errors."""
    url = new_database()

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "ALGOBOT_DATABASE_URL": url,
            "ALGOBOT_DAGSTER_DATABASE": f"dagster_{os.getpid()}",
            "ALGOBOT_SOURCE": str(folder),
            "ALGOBOT_STATE_FILE": str(folder / "algobot.yaml"),
            "ALGOBOT_HOME": str(folder / "home"),
            "COLUMNS": "80",
        }
        return subprocess.run(
            [sys.executable, "-c", "from algobot_assets.cli import main; main()", *arguments],
            env={**os.environ, **settings, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    run.url = url
    yield run
    server.drop_database(f"dagster_{os.getpid()}")


def test_help_fits_the_terminal(algobot):
    shown = algobot("--help")
    assert shown.returncode == 0
    for word in ("demo", "up", "backfill", "apply", "status", "refresh", "verify", "db"):
        assert f"  {word} " in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_demo_status_verify_and_a_second_backfill(algobot):
    demo = algobot("demo", "--to", "2024-02-07")
    assert demo.returncode == 0, demo.stderr
    for text in ("market_data", "216", "backtest_results", "cross", "rules", "Open the UI"):
        assert text in demo.stdout
    assert max(map(len, demo.stdout.splitlines()[-25:-3])) <= 80
    before = counts(algobot.url)
    again = algobot("backfill", "2024-01-30", "2024-02-07")
    assert again.returncode == 0, again.stderr
    assert counts(algobot.url) == before
    status = algobot("status")
    assert status.returncode == 0, status.stderr
    assert "Nothing is stale." in status.stdout
    verified = algobot("verify", "2024-01-30", "2024-02-07")
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.count("equal") == 6
    with psycopg.connect(algobot.url) as connection:
        connection.execute("UPDATE indicators SET rsi = rsi + 1 WHERE id = (SELECT max(id) FROM indicators)")
    assert algobot("status").returncode == 4
    differs = algobot("verify", "2024-01-30", "2024-02-07")
    assert differs.returncode == 5
    assert "rsi of BTCUSDT, 1h, 2024-02-07" in differs.stdout
    refreshed = algobot("refresh", "--stored-only")
    assert refreshed.returncode == 0, refreshed.stderr
    assert "1 stale in indicators" in refreshed.stdout
    assert algobot("verify", "2024-01-30", "2024-02-07").returncode == 0


def sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence on standard error of a command that failed as it should."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr + result.stdout
    return result.stderr


def test_bad_input_ends_in_a_sentence_and_changes_nothing(algobot, folder):
    assert algobot("backfill", "2024-01-30").returncode == 0
    before = counts(algobot.url)
    assert "lies before the first partition, 2017-07-01" in sentence(algobot("backfill", "2016-01-01", "2016-01-02"))
    assert "no day; write it as 2024-01-31" in sentence(algobot("backfill", "yesterday"))
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


def test_unreachable_servers_are_sentences(algobot):
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


def test_bad_candles_are_sentences(algobot, folder):
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

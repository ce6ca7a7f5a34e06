"""Ctrl-C at any moment: one line, exit code 130, and what was complete stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import START, STATE, published_candles

from algobot_assets.cli.interrupts import MESSAGE
from algobot_assets.settings import Settings
from algobot_assets.store.server import control

COMMAND = [sys.executable, "-c", "from algobot_assets.cli import main; main()"]
#: Interrupts of the default suite; -m slow has more.
TRIES, MANY = 6, 40


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory):
    """Settings of an installation of its own, with nine days of candles and no server yet."""
    home = tmp_path_factory.mktemp("interrupts")
    (home / "spot").mkdir()
    candles = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9)
    candles.write_parquet(home / "spot" / "BTCUSDT-1h-all.parquet")
    (home / "algobot.yaml").write_text(STATE.format(start=START))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALGOBOT_", "DAGSTER_"))}
    yield {
        **kept,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "ALGOBOT_SOURCE": str(home),
        "ALGOBOT_STATE_FILE": str(home / "algobot.yaml"),
        "ALGOBOT_HOME": str(home / "home"),
    }
    control.discard(Settings(home=home / "home", database_url=None))


def interrupt(environment: dict[str, str], after: float, *arguments: str) -> None:
    """Press Ctrl-C so long after the start of a command, as a terminal does: for all processes of its group."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(after)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=240)[1]
    what = f"{arguments} after {after:.2f} s: {process.returncode}\n{said}"
    if process.returncode != 130 and ("<frozen site>" in said or (process.returncode == -2 and "cli" not in said)):
        return  # the interpreter was starting, before any of our code
    assert "Traceback" not in said and "Exception ignored" not in said, what
    assert process.returncode == (130 if running else 0) or (running and process.returncode == 0), what
    if process.returncode == 130:
        assert said.count(MESSAGE) == 1, what


def interrupt_often(environment: dict[str, str], number: int) -> None:
    draw = random.Random(number)
    for _ in range(number):
        after = draw.choice([draw.uniform(0.01, 0.5), draw.uniform(0.3, 3), draw.uniform(2, 9)])
        command = draw.choice([("demo", "--to", "2024-02-07"), ("status",), ("refresh",), ("backfill", "2024-01-30")])
        interrupt(environment, after, *command)
    done = subprocess.run([*COMMAND, "demo", "--to", "2024-02-07"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verified = subprocess.run(
        [*COMMAND, "verify", "2024-01-30", "2024-02-07"], env=environment, capture_output=True, text=True
    )
    assert verified.returncode == 0 and verified.stdout.count("equal") == 6, verified.stdout + verified.stderr


def test_an_interrupt_is_one_line_and_130_and_the_next_command_finishes(environment: dict[str, str]):
    interrupt_often(environment, TRIES)


@pytest.mark.slow
def test_many_interrupts_are_one_line_each(environment: dict[str, str]):
    interrupt_often(environment, MANY)

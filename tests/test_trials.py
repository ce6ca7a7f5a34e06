"""Sweeps, walk-forwards and `algobot try` on a database: stored rows, stopping and going on, verdicts, sentences."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner
from conftest import START

from algobot_assets.cli.app import cli
from algobot_assets.compute.sweep.run import RESULTS
from algobot_assets.defs.automation.research import sweep_job
from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.errors import AlgobotError, SettingsError, WindowError
from algobot_assets.research.request import Request
from algobot_assets.research.sweep import sweep
from algobot_assets.research.try_file import try_strategy
from algobot_assets.research.walk_forward import walk_forward
from algobot_assets.store.reader import read_table

EXAMPLE = Path(__file__).parents[1] / "examples" / "breakout.py"
LAST = START + timedelta(days=8)
GRID = ["fast=2:100", "slow=2:100"]


@pytest.fixture
def stored(project, store):
    """The project with all tables of its ten days."""
    assert project.run(START, START + timedelta(days=9)).success
    return store


def test_a_row_of_the_sweep_is_the_row_of_backtest_results(stored):
    found = sweep(stored, Request("cross", ["slow=13,21"], ["stop_loss_percentage=1,2"]), metric="total_return")
    strategies = read_table(stored, "strategies", "id")
    cross = strategies.filter(pl.col("strategy_name") == "cross")["id"][0]
    last = read_table(stored, "backtest_results", "day").filter(pl.col("strategy_id") == cross).row(-1, named=True)
    assert found.trial.last == last["day"] == START + timedelta(days=9)  # unfinished: as of its last closed candle
    rows = read_table(stored, "sweep_results", "combination")
    assert rows.height == len(found.trial.grid) == 4
    row = rows.filter(pl.col("combination") == 1).row(0, named=True)
    assert json.loads(row["parameters"]) == {"fast": 5, "slow": 13}
    assert json.loads(row["risk"])["stop_loss_percentage"] == 2
    assert {name: row[name] for name in RESULTS} == {name: last[name] for name in RESULTS}
    shown = found.frame["total_return"].drop_nulls().to_list()
    assert shown == sorted(shown, reverse=True)


def column(store, name: str, table: str = "sweeps") -> list:
    with store.transaction() as connection:
        return [row[0] for row in connection.execute(f"SELECT {name} FROM {table} ORDER BY id")]


def test_a_killed_sweep_resumes(stored, database_url):
    program = (
        "import os, signal\n"
        "from algobot_assets.store.connection import Store\n"
        "from algobot_assets.research.sweep import sweep\n"
        "from algobot_assets.research.request import Request\n"
        "def stop(done, total):\n"
        "    if done:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"sweep(Store.open(), Request('cross', {GRID!r}), progress=stop)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = read_table(stored, "sweep_results", "combination")
    assert 0 < kept.height < 99 * 99
    assert column(stored, "finished_at") == [None]
    told: list[int] = []
    whole = sweep(stored, Request("cross", GRID), progress=lambda done, total: told.append(done))
    assert told[0] == kept.height and told[-1] == 99 * 99
    assert whole.computed == 99 * 99 - kept.height
    rows = read_table(stored, "sweep_results", "combination")
    assert rows["combination"].to_list() == list(range(99 * 99))
    assert rows.join(kept, on="combination", how="semi").equals(kept)
    again = sweep(stored, Request("cross", GRID))
    assert (again.sweep_id, again.computed) == (whole.sweep_id, 0)
    assert None not in column(stored, "finished_at")
    # another grid, other days or changed candles are another sweep
    other = sweep(stored, Request("cross", ["fast=2,3"], last=LAST))
    with stored.transaction() as connection:
        connection.execute(
            "UPDATE lineage SET output_digest = '\\x00' WHERE table_name = 'market_data' AND day = %s", (START,)
        )
    changed = sweep(stored, Request("cross", ["fast=2,3"], last=LAST))
    assert len({whole.sweep_id, other.sweep_id, changed.sweep_id}) == 3


def test_a_walk_forward_is_stored_whole(stored):
    found = walk_forward(stored, Request("rules", ["rsi_middle=45,50,55"]), 4, 2, metric="total_return")
    windows = read_table(stored, "walk_forward_windows", "number")
    assert windows["number"].to_list() == [0, 1, 2, 3]
    assert windows.row(0, named=True)["final_capital"] == found.joined["final_capital"]
    assert windows["test_first"].to_list()[1:] == [START + timedelta(days=i) for i in (4, 6, 8)]
    curve = read_table(stored, "walk_forward_equity", "day")
    assert curve["equity"].to_list() == found.equity["equity"].to_list()
    again = walk_forward(stored, Request("rules", ["rsi_middle=45,50,55"]), 4, 2, metric="total_return")
    assert column(stored, "id", "walk_forwards") == [again.id]


def write(path: Path, *body: str) -> str:
    head = "from algobot_assets.compute.strategy import BUY, SELL, strategy\n"
    path.write_text(head + "\n".join(body) + "\n")
    return str(path)


def test_try_finds_look_ahead_and_explains_mistakes(stored, tmp_path: Path):
    before = {name: len(column(stored, "id", name)) for name in ("sweeps", "strategies", "backtest_results")}
    honest = try_strategy(stored, Request(str(EXAMPLE), ["slow=10"]))
    assert honest.ahead is None and honest.buys + honest.sells > 0
    assert honest.result["total_trades"] == honest.trades.height > 0
    ahead = write(
        tmp_path / "peek.py",
        '@strategy("peek")',
        "def peek(bars, p):",
        "    later = bars.close.shift(-1)",
        "    return bars.decide((BUY, later > bars.close), (SELL, later < bars.close))",
    )
    assert try_strategy(stored, Request(ahead)).ahead is not None
    assert before == {name: len(column(stored, "id", name)) for name in before}
    bodies = [
        (("def broken(:",), r"bad\.py, line 2: SyntaxError"),
        (('@strategy("bad")', "def bad(bars, p):", "    return bars.closing"), r"bad\.py, line 4: AttributeError"),
        (('@strategy("bad_none")', "def bad(bars, p):", "    return None"), "must return one Int32 per candle"),
        (("import nothing_of_that_name",), r"bad\.py, line 2: ModuleNotFoundError"),
        (("x = 1",), "registers no strategy"),
    ]
    for number, (body, words) in enumerate(bodies):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(SettingsError, match=words):
            try_strategy(stored, Request(write(tmp_path / str(number) / "bad.py", *body)))
    requests = [
        (Request("crosss"), "nearest is cross"),
        (Request("cross", market="BTCUSDT"), "is not a market"),
        (Request("cross", market="ETHUSDT 1h"), "ETHUSDT 1h are stored"),
        (Request("cross", first=date(2020, 1, 1)), "is not stored for BTCUSDT 1h"),
        (Request("cross", ["fast=5:1"]), "has no values"),
    ]
    for request, words in requests:
        with pytest.raises((SettingsError, WindowError), match=words):
            sweep(stored, request)
    with pytest.raises(AlgobotError, match="not a metric"):
        sweep(stored, Request("cross"), metric="luck")


def test_the_commands_fit_the_terminal_and_the_job_does_the_same(stored, dagster_instance: dg.DagsterInstance):
    runner = CliRunner(env={"COLUMNS": "80"})
    grid = ["-p", "fast=3,5", "-p", "slow=13,21,34", "-r", "stop_loss_percentage=1,2"]
    grid += ["-r", "take_profit_percentage=0,3"]
    for command in (
        ["sweep", "cross", *grid, "--metric", "total_return"],
        ["walk-forward", "cross", *grid, "--train", "4", "--test", "2", "--metric", "total_return"],
        ["try", str(EXAMPLE)],
    ):
        shown = runner.invoke(cli, command, catch_exceptions=False)
        assert shown.exit_code == 0, shown.output
        assert max(map(len, shown.stdout.splitlines())) <= 80, shown.stdout
        as_json = runner.invoke(cli, [*command, "--json"], catch_exceptions=False)
        said = json.loads(as_json.stdout)
        assert said["market"] == "BTCUSDT 1h"
    config = {"strategy": "cross", "parameters": {"fast": "3,5"}, "metric": "total_return"}
    result = sweep_job.execute_in_process(
        run_config={"ops": {"compute_sweep": {"config": config}}},
        resources={"database": DatabaseResource()},
        instance=dagster_instance,
    )
    assert result.success
    assert len(column(stored, "id")) == 2

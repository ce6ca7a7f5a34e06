"""Every benchmark still runs, in its smallest form; what it measures there means nothing and is thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as table

ROOT = Path(__file__).resolve().parents[1]
SMALLEST = {
    "end_to_end": "--rounds 1 --days 3",
    "windows": "--rounds 1",
    "lineage": "--rounds 1 --days 3",
    "feed": "--rounds 1 --years 1",
    "compute": "--rounds 1",
    "sweep": "--rounds 1",
    "retention": "--rounds 1 --markets 1",
    "client_cache": "--rounds 1 --days 31",
    "day": "--history 2 6 --markets 1 --days 2",
    "many": "--rounds 1 --smallest",
    "workers": "--rounds 1 --markets 2 --months 1 --computed 1",
    "backfill": "--markets 1 --days 8",
    "scale": "--millions 1 2",
    "soak": "--minutes 0.1",
}


def test_the_smallest_form_of_every_benchmark_is_known():
    assert set(SMALLEST) == {*table.NAMES, *table.LONG, "soak"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs(name: str, tmp_path: Path):
    kept = ("ALGOBOT_DATA", "ALGOBOT_ORACLES")
    environment = {k: v for k, v in os.environ.items() if k in kept or not k.startswith(("ALGOBOT_", "DAGSTER_"))}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *SMALLEST[name].split()],
        cwd=ROOT,
        env={**environment, "BENCHMARK_RESULTS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] or done.stdout[-3000:]
    result = json.loads((tmp_path / f"{name}.json").read_text())
    if name in table.ROWS:
        assert all(len(row) == 5 for row in table.ROWS[name](result))

"""`dg`, Dagster's command for projects: what a newcomer scaffolds is loaded and listed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DG = Path(sys.executable).parent / "dg"
COPIED = ("algobot_assets", "migrations", "pyproject.toml", "workspace.yaml", "dagster.yaml", "algobot.yaml")


def copy_checkout(folder: Path) -> dict[str, str]:
    """Copy what `dg` needs of the checkout, and return an environment in which Python imports the copy."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALGOBOT_", "DAGSTER_"))}
    return {**kept, "PYTHONPATH": str(folder), "ALGOBOT_HOME": str(folder / "home"), "DAGSTER_DG_CLI_SKIP_VERSION": "1"}


def run(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """Run a program in the copy and return what it printed; it must succeed."""
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_scaffolded_asset_lands_in_defs_and_is_listed(tmp_path: Path):
    environment = copy_checkout(tmp_path)
    run(tmp_path, environment, str(DG), "scaffold", "defs", "dagster.asset", "mine.py")
    assert (tmp_path / "algobot_assets" / "defs" / "mine.py").is_file()
    listed = run(tmp_path, environment, str(DG), "list", "defs", "--json")
    assert '"mine"' in listed and '"market_data"' in listed
    code = "from algobot_assets.definitions import build_defs; print(*build_defs().resolve_all_asset_keys())"
    assert "'mine'" in run(tmp_path, environment, sys.executable, "-W", "ignore", "-c", code)


def test_continuous_integration_checks_what_dagster_loads():
    targets = (ROOT / "Makefile").read_text()
    for command in ("dg check yaml", "dg check toml", "dg check defs", "dg list defs"):
        assert f"\t$(BIN)/{command}" in targets
    assert "make check\n" in (ROOT / ".ci" / "run").read_text()

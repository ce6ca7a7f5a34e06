"""`algobot init` from an installed wheel: the project it makes runs without any checkout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from algobot_assets.cli.app import cli
from algobot_assets.cli.commands.init import TEMPLATE
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings, project_root, require_project

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("dg", "dagster", "dagster-webserver", "dagster-daemon", "pytest")


class Installed:
    """A virtual environment with the wheel, and a project made in it."""

    def __init__(self, folder: Path) -> None:
        self.environment = folder / "environment"
        self.project = folder / "my-bot"
        self.bin = self.environment / "bin"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALGOBOT_", "DAGSTER_"))}
        kept.pop("PYTHONPATH", None)
        self.variables = {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "DAGSTER_DG_CLI_SKIP_VERSION": "1",
            "COLUMNS": "200",
        }

    def run(self, *words: str, where: Path | None = None) -> str:
        """Run a program of the environment in the project; it must succeed. Return its standard output."""
        done = subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=where or self.project,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout

    def serves(self, *words: str) -> None:
        """Start a program that serves the UI, wait until it has loaded the project's assets, and stop it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = self.project.with_name(f"{words[0]}.log")
        with log.open("wb") as written:
            process = subprocess.Popen(
                [str(self.bin / words[0]), *words[1:], "--port", str(port)],
                cwd=self.project,
                env=self.variables,
                stdout=written,
                stderr=written,
                start_new_session=True,
            )
        query = "{ assetNodes { assetKey { path } } }"
        found: set[str] = set()
        try:
            end = time.monotonic() + 240
            while "market_data" not in found and time.monotonic() < end:
                time.sleep(1)
                try:
                    answer = requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=60)
                except requests.exceptions.ConnectionError:
                    assert process.poll() is None, log.read_text()[-4000:]
                    continue
                found = {node["assetKey"]["path"][-1] for node in answer.json()["data"]["assetNodes"]}
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        assert {"market_data", "backtest_results", "mine"} <= found, log.read_text()[-4000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what it is built from."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("algobot_assets", "migrations", "examples"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "dagster.yaml"):
        shutil.copy(ROOT / name, source)
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel in an environment that takes its dependencies from this one, with a project of its own asset."""
    made = Installed(tmp_path_factory.mktemp("installed"))
    venv.create(made.environment, symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(made.environment)}))
    pip = [sys.executable, "-m", "pip", "--python", str(made.bin / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, capture_output=True, env=made.variables)
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    for name in PROGRAMS:
        script = (Path(sys.executable).parent / name).read_text().split("\n", 1)[1]
        (made.bin / name).write_text(f"#!{made.bin / 'python'}\n{script}")
        (made.bin / name).chmod(0o755)
    made.run("algobot", "init", str(made.project), where=made.environment)
    (made.project / ".env").write_text("ALGOBOT_SOURCE=simulated\n")
    (made.project / "my_bot" / "defs" / "mine.py").write_text(
        "import dagster as dg\n\n\n@dg.asset(deps=['signals'])\ndef mine() -> int:\n    return 1\n"
    )
    yield made
    made.run("algobot", "db", "stop")


def test_the_project_lists_the_platforms_assets_and_its_own(installed: Installed):
    listed = json.loads(installed.run("dg", "list", "defs", "--json"))
    assert {"market_data", "backtest_results", "mine"} <= {asset["asset_key"] for asset in listed["assets"]}
    assert {schedule["name"] for schedule in listed["schedules"]} >= {"refresh"}


def test_a_day_is_computed_from_the_wheel_with_the_projects_own_strategy(installed: Installed):
    demo = installed.run("algobot", "demo", "--from", "2024-01-01", "--to", "2024-01-02", "--json")
    status = json.loads(demo)
    assert status["markets"][0]["candles"] == 48
    assert {found["strategy"] for found in status["strategies"]} == {"btc_dip", "btc_ema_cross"}
    assert (installed.project / ".algobot").is_dir()


@pytest.mark.slow
def test_every_command_works_in_the_project(installed: Installed):
    assert "1 passed" in installed.run("pytest", "-q", "-p", "no:cacheprovider")
    installed.run("dg", "check", "yaml")
    installed.run("dg", "check", "toml")
    installed.run("dg", "check", "defs")
    installed.run("dg", "scaffold", "defs", "dagster.asset", "scaffolded.py")
    assert '"scaffolded"' in installed.run("dg", "list", "defs", "--json")
    installed.serves("algobot", "up")
    installed.serves("dg", "dev")
    installed.serves("dagster", "dev")


@pytest.mark.slow
def test_an_empty_environment_is_filled_by_pip(wheel: Path, tmp_path: Path):
    made = Installed(tmp_path)
    venv.create(made.environment, with_pip=True, symlinks=True)
    pip = [str(made.bin / "pip"), "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    done = subprocess.run(pip, capture_output=True, text=True, env=made.variables)
    if done.returncode != 0 and "No matching distribution" in done.stderr:
        pytest.skip("the packages cannot be downloaded here")
    assert done.returncode == 0, done.stderr[-3000:]
    made.run("algobot", "init", str(made.project), where=tmp_path)
    (made.project / ".env").write_text("ALGOBOT_SOURCE=simulated\n")
    demo = made.run("algobot", "demo", "--from", "2024-01-01", "--to", "2024-01-02", "--json")
    assert len(json.loads(demo)["strategies"]) == 2
    made.run("algobot", "db", "stop")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory outside of any project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def init(here: Path) -> Callable[[str], str]:
    """Create a project; returns the error, or nothing."""

    def run(folder: str) -> str:
        result = CliRunner().invoke(cli, ["init", folder])
        assert result.exception is None or isinstance(result.exception, SettingsError), result.exception
        return str(result.exception or "")

    return run


def test_a_project_is_a_dozen_short_files(init: Callable[[str], str], here: Path):
    assert init("MyBot") == ""
    files = [path for path in here.rglob("*") if path.is_file()]
    assert len(files) <= 12
    assert max(len(path.read_text().splitlines()) for path in files if path.name != "dagster.yaml") <= 40
    assert (here / "MyBot" / "mybot" / "definitions.py").read_text().count("\n") <= 8
    assert (here / "MyBot" / "dagster.yaml").read_text() == (ROOT / "dagster.yaml").read_text()


def test_an_environment_and_a_repository_may_be_there_before_the_project(init: Callable[[str], str], here: Path):
    venv.create(here / "bot" / ".venv")
    (here / "bot" / ".git").mkdir()
    assert init("bot") == ""
    assert (here / "bot" / "algobot.yaml").is_file()


@pytest.mark.parametrize(
    ("folder", "error"),
    [
        ("full", "is not empty (notes.txt is in it)"),
        ("1st", "'1st' is not a name for a project"),
        ("class", "'class' is not a name for a project"),
        ("dagster", "The Python package dagster exists already"),
        ("tests", "The Python package tests exists already"),
    ],
)
def test_a_place_that_will_not_do_is_refused_and_nothing_is_written(
    init: Callable[[str], str], here: Path, folder: str, error: str
):
    (here / "full").mkdir()
    (here / "full" / "notes.txt").write_text("mine")
    before = sorted(here.rglob("*"))
    assert error in init(folder)
    assert sorted(here.rglob("*")) == before


def test_the_template_is_this_repositorys_own(here: Path):
    assert (TEMPLATE / "strategies" / "dip.py").read_text() == (ROOT / "examples" / "dip.py").read_text()


def test_the_project_is_found_from_its_folders_else_the_checkout_is(
    init: Callable[[str], str], here: Path, monkeypatch: pytest.MonkeyPatch
):
    init("bot")
    assert project_root() == ROOT
    monkeypatch.chdir(here / "bot" / "strategies")
    assert project_root() == here / "bot"
    (here / "bot" / ".env").write_text("ALGOBOT_SOURCE=simulated\n")
    assert Settings().source == "simulated"
    monkeypatch.setenv("ALGOBOT_HOME", "")
    assert Settings().home == here / "bot" / ".algobot"
    monkeypatch.setenv("ALGOBOT_PROJECT", str(here))
    with pytest.raises(SettingsError, match=r"is not in a project.*algobot init mybot"):
        require_project()

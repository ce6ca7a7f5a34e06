"""The documentation says what is so: the site builds strictly and offline, and figures and functions it names exist."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import click
import polars as pl
import pytest
from conftest import Project

from algobot_assets.cli.app import SECTIONS
from algobot_assets.settings import PREFIX, Settings
from algobot_assets.store.connection import Store

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "algobot_assets"
CANDLE = (DOCS / "one-candle.md").read_text()
KLINES = Path(os.environ.get("ALGOBOT_DATA", ROOT.parent / "shared" / "data")) / "klines"
STATE = """
markets:
  - {symbol: BTCUSDT, interval: 4h, start: 2017-08-17}
strategies:
  cross:
    type: ema_cross
    market: BTCUSDT 4h
    initial_balance: 10000
    risk_per_trade: 0.02
    parameters: {fast: 9, slow: 21}
    effective_from: 2017-11-01
    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2, take_profit_percentage: 4}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]', or run `make docs`")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_reference_has_every_command_and_setting(site: Path):
    page = (site / "cli.html").read_text()
    names = [command.name for entries in SECTIONS.values() for command, _ in entries]
    names += [f"db {name}" for name in next(c for c in sum(SECTIONS.values(), ()) if c[0].name == "db")[0].commands]
    assert [name for name in names if f">algobot {name}<" not in page] == []
    page = (site / "settings.html").read_text()
    assert [name for name in Settings.model_fields if f"{PREFIX}{name.upper()}" not in page] == []


def test_pages_load_nothing_from_a_network(site: Path):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]*\shref="([^"]+)"', page.read_text())
        assert [target for target in loaded if re.match(r"(https?:)?//", target)] == [], page.name


def test_every_page_opens_with_what_it_lets_one_do():
    for page in DOCS.rglob("*.md"):
        title, opening = re.match(r"# (.+)\n\n((?:.+\n)+)", page.read_text()).groups()
        assert title and not re.match(r"[#|`<!]|    ", opening), f"{page.name} opens with {opening[:60]!r}"


def test_the_figures_of_the_house_are_those_of_the_imports():
    pytest.importorskip("grimp", reason="grimp is not installed: pip install -e '.[lint]'")
    spec = importlib.util.spec_from_file_location("house", DOCS / "_build" / "house.py")
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    figures = house.figures()
    page = (DOCS / "architecture.md").read_text()
    table = re.search(r"\| figure \| value \|\n\|---\|---\|\n((?:\|.+\|\n)+)", page)[1]
    stated = {name: int(value) for name, value in re.findall(r"\| (.+?) \| (\d+) \|", table)}
    assert stated == figures
    assert figures["arrows upwards"] == figures["circles"] == 0 and figures["modules at top level"] <= 4
    rooms = set(re.findall(r"^\| `(\w+)/` \|", page, re.M))
    assert rooms == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def names_in(path: Path) -> set[str]:
    """Functions and classes of a module, methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_files_that_pages_name_exist():
    missing = set()
    for page in [*DOCS.rglob("*.md"), ROOT / "AGENTS.md", ROOT / "CONTRIBUTING.md"]:
        for name in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text()):
            if not any((folder / name).is_file() for folder in (ROOT, PACKAGE, DOCS, PACKAGE / "cli" / "project")):
                missing.add(f"{page.name}: {name}")
    assert missing == set()


def test_the_candle_passes_through_functions_that_exist():
    hops = re.findall(r"`([\w/]+\.py)`\s+`([\w.]+)`", CANDLE)
    assert len(hops) > 15
    assert [f"{file} {name}" for file, name in hops if name not in names_in(PACKAGE / file)] == []


@pytest.mark.skipif(not KLINES.is_dir(), reason="no real candles: set ALGOBOT_DATA")
def test_the_candle_has_the_values_that_are_stated(project: Project):
    source = KLINES / "spot" / "BTCUSDT-4h-2017_2026-04.parquet"
    shutil.rmtree(project.klines)
    (project.klines / "spot").mkdir(parents=True)
    (project.klines / "spot" / source.name).symlink_to(source)
    project.declare(STATE)
    assert project.run(date(2017, 8, 17), date(2018, 1, 3)).success
    raw = pl.read_parquet(source).filter(pl.col("open_time") == 1_514_908_800_000).row(0, named=True)
    values = [raw[name] for name in ("open", "high", "low", "close", "volume")]
    with Store.open() as store, store.transaction() as connection:
        for query in (
            "SELECT ema, rsi, atr, vwap FROM indicators WHERE timestamp = '2018-01-02 16:00+00'",
            "SELECT entry_price::numeric(20, 2), quantity, exit_price, exit_reason, gross_profit, commission_fee, "
            "net_profit FROM trade_history WHERE entry_time = '2018-01-02 20:00+00'",
            "SELECT open_profit, final_capital FROM backtest_results WHERE day = '2018-01-02'",
            "SELECT final_capital, total_return, max_drawdown, win_rate, profit_factor FROM backtest_results "
            "WHERE day = '2018-01-03'",
            "SELECT final_capital, total_return, max_drawdown, win_rate, profit_factor FROM performance_metrics "
            "WHERE day = '2018-01-03'",
        ):
            (row,) = connection.execute(query).fetchall()
            values += map(str, row)
        signal, counted = connection.execute(
            """SELECT signal, (SELECT (total_trades, open_trades)::text FROM backtest_results WHERE day = '2018-01-02')
                 FROM signals WHERE timestamp = '2018-01-02 16:00+00'"""
        ).fetchone()
        (sha,) = connection.execute("SELECT DISTINCT left(encode(sha256, 'hex'), 8) FROM sources").fetchone()
    assert signal == 1 and counted == "(4,1)" and "| 4 | 1 |" in CANDLE
    assert [value for value in [*values, sha] if value not in CANDLE] == []


def test_every_option_of_the_command_line_has_help():
    def bare(command: click.Command, path: str) -> list[str]:
        if isinstance(command, click.Group):
            return [name for inner in command.commands.values() for name in bare(inner, f"{path} {inner.name}")]
        options = [option for option in command.params if isinstance(option, click.Option)]
        return [f"{path} {option.name}" for option in options if not option.help] + ([] if command.help else [path])

    assert [
        name for entries in SECTIONS.values() for command, _ in entries for name in bare(command, command.name)
    ] == []

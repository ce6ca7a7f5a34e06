"""What the README and docs/ tell people to do is done: the strategy, the commands, the loop, the client, the pages."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from conftest import Project, published_candles

from algobot_assets.cli.app import cli
from algobot_assets.compute import strategies
from algobot_assets.schema.document import VIEWS, schema_page
from algobot_assets.store.connection import Store

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
CHANGE = (ROOT / "docs" / "howto" / "change.md").read_text()
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
MARKET = """
markets:
  - {symbol: BTCUSDT, interval: 1h, start: 2025-12-01}
strategies:
"""
FIRST, LAST = date(2025, 12, 1), date(2026, 1, 14)


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Every command line of `algobot` in indented code, with lines that are continued joined."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^ {4}(?:\$ )?(?:\.venv/bin/)?algobot (.*)$", joined, re.MULTILINE)
    each_alone = [line for text in found for line in text.split(" | ")[0].split("&& algobot ")]
    return [shlex.split(line, comments=True) for line in each_alone]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood_and_links_lead_somewhere(page: Path):
    text = page.read_text()
    for words in commands(text):
        context = click.Context(cli, info_name="algobot")
        command, words = cli.commands[words[0]], words[1:]
        while isinstance(command, click.Group):
            command, words = command.commands[words[0]], words[1:]
        command.make_context(command.name, list(words), parent=context)  # UsageError where it is not understood
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for target in re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text, re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target


def test_the_readme_is_short():
    assert len(README.splitlines()) < 120


def test_the_schema_page_is_what_the_tables_say(store: Store):
    assert (ROOT / "docs" / "schema.md").read_text() == schema_page(), "run `algobot db schema > docs/schema.md`"
    with store.transaction() as connection:
        views = connection.execute(
            """SELECT relname, obj_description(oid) FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'"""
        ).fetchall()
    assert dict(views).items() >= VIEWS.items()


@pytest.fixture
def newcomer(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with six weeks of candles, a state without strategies, and a place where strategies are found."""
    monkeypatch.setenv("ALGOBOT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ALGOBOT_STATE_FILE", str(project.state))
    monkeypatch.setenv("ALGOBOT_SOURCE", str(project.klines))
    monkeypatch.setenv("COLUMNS", "80")
    shutil.rmtree(project.klines)
    project.publish(published_candles(datetime(2025, 12, 1, tzinfo=UTC), 24 * 45, seed=7))
    project.declare(MARKET + "  cross: " + "{type: ema_cross, market: BTCUSDT 1h, initial_balance: 10000, "
                    "risk_per_trade: 0.02, risk: {max_risk_per_trade: 0.02, max_open_trades: 1, "
                    "stop_loss_percentage: 2, take_profit_percentage: 4}}\n")  # fmt: skip
    assert project.run(FIRST, LAST).success
    (tmp_path / "dip.py").write_text(next(block for block in blocks("python") if "@strategy" in block))
    (tmp_path / "strategies").mkdir()
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setenv("ALGOBOT_PROJECT", str(tmp_path))
    yield tmp_path
    strategies._of_project.cache_clear()
    strategies._files.clear()


def run(*arguments: str, code: int = 0) -> Result:
    """A command in this process."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_a_strategy_of_ones_own_from_the_readme_to_the_report(newcomer: Path, project: Project, capsys):
    written = newcomer / "dip.py"
    assert written.read_text() == (ROOT / "examples" / "dip.py").read_text()
    tries = [words for words in commands(README) if words[0] in ("try", "sweep")]
    assert [words[1] for words in tries] == ["dip.py", "dip.py"]
    for name, *words in tries:
        said = run(name, str(written), *words[1:])
        assert name != "try" or "No look-ahead" in said.output
    strategies._files.clear()

    shutil.copy(written, newcomer / "strategies")
    strategies._of_project.cache_clear()
    (declared,), (version,) = blocks("yaml"), blocks("yaml", CHANGE)
    project.state.write_text(project.state.read_text() + declared)
    run("apply")
    assert "Nothing is stale" in run("refresh").output
    assert run("report", "dip").output.count("Wrote 1 page") == 1
    page = (newcomer / "home" / "reports" / "dip.html").read_text()
    with Store.open() as store, store.transaction() as connection:
        final = connection.execute(
            """SELECT b.final_capital::text FROM backtest_results AS b JOIN strategies AS s ON s.id = b.strategy_id
                WHERE s.strategy_name = 'dip' ORDER BY day DESC LIMIT 1"""
        ).fetchone()[0]
    assert f'data-figure="final_capital" data-value="{final}"' in page

    before = project.state.read_text()
    project.state.write_text(before + "    parameters: {trend: 100}\n")
    refused = CliRunner().invoke(cli, ["apply"])
    assert "parameters.trend 200 -> 100; affects the days from 2025-12-01" in str(refused.exception)
    market = re.search(r"`(- \{symbol: ETHUSDT.*?\})`", README)[1]
    first = before.index("strategies:")
    project.publish(published_candles(datetime(2025, 12, 1, tzinfo=UTC), 6 * 45, 240, seed=8), "ETHUSDT", "4h")
    declared = f"  {market.replace('2024-01-01', '2025-12-01')}\n"
    project.state.write_text(before[:first] + declared + before[first:] + version)
    run("apply")
    assert "Nothing is stale" in run("refresh").output
    with Store.open() as store, store.transaction() as connection:
        counted = connection.execute("SELECT count(*) FROM market_data WHERE symbol = 'ETHUSDT'").fetchone()
    assert counted == (6 * 45,), "a new market is fetched from its start on"
    parted = run("diff", "dip").output
    assert re.search(r"parameter +trend: 200 -> 100", parted) and "First signal: 20" in parted
    run("verify", str(FIRST), str(LAST))

    client = next(block for block in blocks("python") if "connect()" in block)
    scope: dict = {}
    exec(client.replace("btc_ema_cross", "cross"), scope)
    assert scope["candles"].height == 24 * 45 and scope["newest"] is not None

    sys.argv, argv = ["explore.py"], sys.argv
    try:
        capsys.readouterr()
        found = runpy.run_path(str(ROOT / "examples" / "explore.py"))
    finally:
        sys.argv = argv
    assert found["candles"].height == 24 * 45 and found["tried"].ahead is None
    assert "dip" in capsys.readouterr().out, "the stored strategies' signals are counted"

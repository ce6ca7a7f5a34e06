"""Every place that shows results names the assumptions that flatter them."""

from __future__ import annotations

import doctest
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import START, STATE, Project

from algobot_assets.cli.app import cli
from algobot_assets.compute.ledger import assumptions, unfilled
from algobot_assets.compute.ledger.assumptions import describe_assumptions, favourable_assumptions
from algobot_assets.compute.ledger.terms import CostTerms, RuleTerms
from algobot_assets.reports.writing import INDEX, write_reports
from algobot_assets.store.connection import Store

EXAMPLE = Path(__file__).parents[1] / "examples" / "breakout.py"
KNOWN = RuleTerms(Decimal("0.01"), Decimal("0.001"), Decimal(5))
FAIR = CostTerms(Decimal("0.001"), Decimal(2))


@pytest.mark.parametrize(
    ("symbol", "costs", "rules", "shorting", "names"),
    [
        ("BTCUSDT", FAIR, KNOWN, False, []),
        ("BTCUSDT", CostTerms(), KNOWN, False, ["no_slippage"]),
        ("BTCUSDT", CostTerms(0, 2), KNOWN, False, ["no_commission"]),
        ("BTCUSDT", CostTerms("0.00075", 2), KNOWN, False, ["low_commission"]),
        ("BTCUSDT", FAIR, KNOWN, True, ["no_borrowing_cost"]),
        ("BTCUSDT", FAIR, RuleTerms(), False, ["no_order_rules"]),
        ("BTCUSDT.UM", CostTerms("0.0005", 2), KNOWN, True, ["no_funding"]),
        ("BTCUSDT.UM", CostTerms("0.0004", 2), KNOWN, True, ["low_commission", "no_funding"]),
        ("BTCUSDT_210326.UM", CostTerms("0.0005", 2), KNOWN, True, []),
    ],
)
def test_terms_decide_which_assumptions_flatter(symbol, costs, rules, shorting, names) -> None:
    found = favourable_assumptions(symbol, costs, rules, shorting=shorting)
    assert [assumption.name for assumption in found] == names
    assert bool(describe_assumptions(found)) == bool(names)


def test_examples_of_the_docstrings_are_true() -> None:
    for module in (assumptions, unfilled):
        assert doctest.testmod(module).failed == 0


def test_every_place_that_shows_results_names_them(
    project: Project, database_url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.declare(STATE.format(start=START).partition("configurations:")[0])  # slippage has its default, 0
    assert project.run(START, START + timedelta(days=9)).success
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", database_url)
    runner = CliRunner(env={"COLUMNS": "80"})
    no_slippage = "without slippage or spread"
    grid = ["-p", "fast=3,5", "-p", "slow=13,21"]
    for command in (
        ["status"],
        ["try", str(EXAMPLE)],
        ["sweep", "cross", *grid],
        ["walk-forward", "cross", *grid, "--train", "4", "--test", "2", "--metric", "total_return"],
    ):
        shown = runner.invoke(cli, command, catch_exceptions=False).stdout
        line = " ".join(shown.partition("Favourable assumptions:")[2].split())
        assert no_slippage in line, shown
        said = json.loads(runner.invoke(cli, [*command, "--json"], catch_exceptions=False).stdout)
        names = [assumption["name"] for assumption in said["assumptions"]]
        assert "no_slippage" in names and ("no_borrowing_cost" in names) == (command == ["status"])
    assert "spot shorts without interest (rules)" in " ".join(
        runner.invoke(cli, ["status"], catch_exceptions=False).stdout.split()
    )

    pages = {page.item.name: page.path.read_text() for page in write_reports(store, tmp_path)}
    for name, text in pages.items():
        assert "Favourable assumptions" in text and no_slippage in text
        assert ("spot shorts without interest" in text) == (name == "rules")
    index = (tmp_path / INDEX).read_text()
    assert no_slippage in index and "spot shorts without interest (rules)" in index

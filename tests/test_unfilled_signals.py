"""Signals that led to no order are counted by reason, and every place that shows results says so."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from conftest import START, Project

from algobot_assets.cli.app import cli
from algobot_assets.compute.ledger.run import UNFILLED_REASONS
from algobot_assets.compute.ledger.unfilled import LABELS, TOO_SMALL, describe_unfilled
from algobot_assets.reports.writing import write_reports
from algobot_assets.research.request import Request
from algobot_assets.research.try_file import try_strategy
from algobot_assets.schema.frames import schema_of
from algobot_assets.store.connection import Store

LAST = START + timedelta(days=9)
#: 50 USDT at 1 % risk and a 2 % stop asks for orders of 25 USDT, where the market takes 100.
SMALL = """
markets:
  - {symbol: BTCUSDT, interval: 1h, start: 2024-01-30}
strategies:
  small:
    type: ema_cross
    market: BTCUSDT 1h
    parameters: {fast: 3, slow: 8}
    initial_balance: 50
    risk_per_trade: 0.01
    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2, take_profit_percentage: 4}
"""
RULES = """INSERT INTO symbol_rules (symbol, effective_from, status, tick_size, step_size, min_notional)
           VALUES ('BTCUSDT', '2024-01-01', 'TRADING', 0.01, 0.00001, 100)"""


def rows(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def small(project: Project, database_url: str) -> Project:
    """A strategy whose every entry is below the market's minimum notional, with all tables computed."""
    project.declare(SMALL)
    with psycopg.connect(database_url) as connection:
        connection.execute(RULES)
    assert project.run(START, LAST).success
    return project


def test_the_reasons_are_the_columns_of_the_table() -> None:
    assert tuple(schema_of("unfilled_signals"))[2:] == UNFILLED_REASONS == tuple(LABELS)
    assert set(TOO_SMALL) < set(LABELS)
    assert describe_unfilled(dict.fromkeys(LABELS, 0)) == ""
    assert describe_unfilled({"no_capital": 1}) == "1 signal led to no order: 1 no capital left."


def test_orders_below_the_minimum_notional_are_counted_and_shown(
    small: Project, database_url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows(database_url, "SELECT count(*) FROM trade_history") == [(0,)]
    ((days, below, off, others),) = rows(
        database_url,
        """SELECT count(*), sum(below_min_notional), sum(shorting_off),
                  sum(rounded_to_zero + no_capital + at_max_open_trades + outside_dates) FROM unfilled_signals""",
    )
    ((buys, sells),) = rows(
        database_url,
        """SELECT count(*) FILTER (WHERE signal = 1), count(*) FILTER (WHERE signal = -1) FROM signals
            WHERE "timestamp" < (SELECT max("timestamp") FROM market_data)""",
    )
    assert (days, below, off, others) == (10, buys, sells, 0) and buys > 0
    sentence = f"{below} below the minimum notional"

    (page,) = write_reports(store, tmp_path)
    html = page.path.read_text()
    assert html.count(sentence) == 2 and "Orders too small" in html and "Signals without an order" in html

    example = Path(__file__).parents[1] / "examples" / "breakout.py"
    tried = try_strategy(store, Request(str(example), ["slow=10"], balance=Decimal(50)))
    assert sum(tried.unfilled[reason] for reason in TOO_SMALL) > 0
    assert sum(tried.unfilled.values()) <= tried.buys + tried.sells

    monkeypatch.setenv("ALGOBOT_DATABASE_URL", database_url)
    status = CliRunner().invoke(cli, ["status"]).output
    assert f"small: {below + off} signals led to no order" in status
    (counted,) = json.loads(CliRunner().invoke(cli, ["status", "--json"]).stdout)["unfilled_signals"]
    assert (counted["strategy"], counted["below_min_notional"]) == ("small", below)
    assert (counted["counted_from"], counted["counted_to"]) == (str(START), str(LAST))


def test_counts_do_not_depend_on_how_the_days_are_run(project: Project, database_url: str) -> None:
    statement = "SELECT * FROM unfilled_signals ORDER BY strategy_id, day"
    for begin, end in ((0, 0), (1, 1), (2, 5), (6, 9)):
        assert project.run(START + timedelta(days=begin), START + timedelta(days=end)).success
    in_parts = rows(database_url, statement)
    assert len(in_parts) == 20 and any(sum(row[2:]) for row in in_parts)
    assert project.run(START, LAST, signals={"recompute": True}, trade_history={"recompute": True}).success
    assert rows(database_url, statement) == in_parts


def test_an_ended_version_keeps_no_counts_beyond_its_end(project: Project, database_url: str) -> None:
    assert project.run(START, LAST).success
    end = date(2024, 2, 4)
    text = project.state.read_text().replace("    shorting: true\n", f"    shorting: true\n    effective_to: {end}\n")
    project.declare(text)
    assert project.run(START, LAST).success
    ((last,),) = rows(
        database_url,
        """SELECT max(day) FROM unfilled_signals JOIN strategies AS s ON s.id = strategy_id
            WHERE strategy_name = 'rules'""",
    )
    assert last == end

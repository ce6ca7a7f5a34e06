"""`algobot explain trade`: everything behind a trade, its signals computed again, in 80 columns or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from conftest import START, TEMPLATE, Project, published_candles, url_of
from exactness import HISTORY, MINUTES, Played, database
from psycopg.rows import dict_row
from real_candles import days_of, klines, same_bits

from algobot_assets.audit.explain import explain_trade
from algobot_assets.audit.explain_text import as_text
from algobot_assets.cli.app import cli
from algobot_assets.compute import strategies
from algobot_assets.compute.indicators import IndicatorWindows, compute_indicators
from algobot_assets.compute.signals import compute_signals
from algobot_assets.compute.strategies import load_strategy_file, strategy_types
from algobot_assets.compute.trace import trace
from algobot_assets.errors import WindowError
from algobot_assets.schema.intervals import day_of
from algobot_assets.store.connection import Store

LAST = START + timedelta(days=8)
STATE = """
markets:
  - {{symbol: BTCUSDT, interval: 1h, start: {start}}}
strategies:
""" + "".join(
    f"""
  {name}:
    type: {name}
    market: BTCUSDT 1h
    parameters: {parameters}
    initial_balance: 10000
    risk_per_trade: 0.02
    shorting: true
    risk: {{{{max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: {stop}, take_profit_percentage: 1}}}}
"""
    for name, parameters, stop in (
        ("ema_cross", "{{fast: 5, slow: 13}}", 1),
        ("macd", "{{}}", 9),
        ("btc", "{{atr_rise: 1.05}}", 2),
    )
)


@pytest.fixture(scope="module")
def filled(server, tmp_path_factory, dagster_instance) -> Iterator[str]:
    """The URL of a database with nine days of hourly candles and the ledgers of the three strategies."""
    server.ensure_database("explained", template=TEMPLATE)
    url = url_of(server, "explained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALGOBOT_DATABASE_URL", url)
        patch.setenv("ALGOBOT_SOURCE", "binance")
        project = Project(tmp_path_factory.mktemp("explained"), dagster_instance)
        project.declare(STATE.format(start=START))
        project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9))
        assert project.run(START, LAST).success
    yield url
    server.drop_database("explained")


@pytest.fixture
def own_store(filled, monkeypatch) -> Iterator[Store]:
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", filled)
    monkeypatch.setenv("ALGOBOT_SOURCE", "binance")
    with Store.open(run_id="test") as opened:
        yield opened


def trades(url: str) -> list[dict]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(
            "SELECT t.*, strategy_type FROM trade_history AS t JOIN strategies AS s ON s.id = strategy_id ORDER BY t.id"
        ).fetchall()


def test_every_trade_is_explained_by_its_own_signals(own_store, filled):
    rows = trades(filled)
    assert {row["strategy_type"] for row in rows} == {"ema_cross", "macd", "btc"}
    assert {row["exit_reason"] for row in rows} >= {"signal", "stop_loss", "take_profit"}
    for row in rows:
        found = explain_trade(own_store, row["id"])
        assert found.problems == []
        steps = [decision.step for decision in found.decisions]
        assert steps == ["entry signal", "exit signal"][: 2 if row["exit_signal_time"] else 1]
        side = 1 if row["position_type"] == "long" else -1
        assert found.decisions[0].recomputed == found.decisions[0].signal == side
        assert found.decisions[0].opened == row["entry_signal_time"]
        assert found.decisions[0].rule is not None
        assert {step for candle in found.candles for step in candle.steps} == {*steps, "entry", "exit"}
        for candle in found.candles:
            assert (candle.source_kind, candle.source_name) == ("file", "spot/BTCUSDT-1h-all.parquet")
            assert len(candle.source_sha256) == 64 and not candle.edited
        text = as_text(found)
        assert max(map(len, text.splitlines())) <= 80
        assert str(row["id"]) in text and row["exit_reason"] in text


@pytest.mark.parametrize("world", [HISTORY, pytest.param(MINUTES, marks=pytest.mark.slow)], ids=lambda w: w.name)
def test_every_trade_of_real_markets_is_explained(world, server, dagster_instance, tmp_path):
    """Across gaps, 3d candles, a replaced version, changed risk, and stops that follow the stored minutes."""
    with database(server, "real_trades") as url:
        played = Played(world, Project(tmp_path, dagster_instance), url)
        played.publish()
        assert played.project.run(world.first, world.last).success
        rows = trades(url)
        assert {"3d", "4h"} <= {row["interval"] for row in rows} or world is MINUTES
        with Store.open(run_id="test") as store:
            for row in rows:
                found = explain_trade(store, row["id"])
                assert found.problems == []
                assert all(candle.open is not None and candle.source_sha256 for candle in found.candles)
                assert max(map(len, as_text(found).splitlines())) <= 80
                if row["exit_reason"] == "superseded":
                    assert "replaced or retired" in found.closed_because


def test_the_averages_behind_a_cross_are_shown(own_store, filled):
    row = next(r for r in trades(filled) if r["strategy_type"] == "ema_cross")
    decision = explain_trade(own_store, row["id"]).decisions[0]
    seen = {item.name: item for item in decision.inputs}
    fast, slow = seen["fast"], seen["slow"]
    assert (fast.label, slow.label) == ("ema(close, 5)", "ema(close, 13)")
    up = 1 if row["position_type"] == "long" else -1
    assert (fast.previous - slow.previous) * up <= 0 < (fast.value - slow.value) * up
    assert decision.rule == f"crosses_{'above' if up > 0 else 'below'}(fast, slow)"
    with psycopg.connect(filled) as connection:
        closes = connection.execute(
            'SELECT close::float8 FROM market_data WHERE "timestamp" <= %s ORDER BY "timestamp"', (decision.opened,)
        ).fetchall()
    average = sum(c for (c,) in closes[:5]) / 5
    for (close,) in closes[5:]:
        average += (close - average) * 2 / 6
    assert fast.value == pytest.approx(average, rel=1e-12)


def test_rules_are_shown_as_written_with_their_parameters(own_store, filled):
    row = next(r for r in trades(filled) if r["strategy_type"] == "btc")
    rules = {
        decision.rule
        for r in trades(filled)
        if r["strategy_id"] == row["strategy_id"]
        for decision in explain_trade(own_store, r["id"]).decisions
    }
    assert rules <= {
        "crosses_above(close, vwap) & (rsi > 50.0)",
        "crosses_below(close, vwap) & (rsi < 50.0)",
        "(close > ema) & (atr > 1.05 * atr_before)",
        "(close < ema) & (atr < 0.95 * atr_before) & (rsi > 30.0)",
    }
    labels = {item.label for item in explain_trade(own_store, row["id"]).decisions[0].inputs}
    assert labels >= {"close", "ema", "rsi", "atr", "vwap", "previous(atr)"}


def test_a_stored_signal_that_differs_is_named(own_store, filled):
    row = next(r for r in trades(filled) if r["exit_reason"] == "signal")
    change = 'UPDATE signals SET signal = %s WHERE strategy_id = %s AND "timestamp" = %s'
    with psycopg.connect(filled) as connection:
        was = explain_trade(own_store, row["id"]).decisions[1].signal
        connection.execute(change, (-was, row["strategy_id"], row["exit_signal_time"]))
        connection.commit()
        found = explain_trade(own_store, row["id"])
        result = CliRunner().invoke(cli, ["explain", "trade", str(row["id"])])
        connection.execute(change, (was, row["strategy_id"], row["exit_signal_time"]))
    assert found.decisions[0].problem is None
    day = row["exit_signal_time"].date()
    assert f"computed again it is {was}" in found.decisions[1].problem
    assert f"algobot verify {day}" in found.decisions[1].problem
    assert result.exit_code == 5 and "PROBLEM" in result.output


def test_explain_reports_a_candle_changed_by_hand(own_store, filled):
    row = trades(filled)[-1]
    change = 'UPDATE market_data SET volume = volume + %s WHERE "timestamp" = %s'
    with psycopg.connect(filled) as connection:
        connection.execute(change, (1, row["entry_signal_time"]))
        connection.commit()
        found = explain_trade(own_store, row["id"])
        connection.execute(change, (-1, row["entry_signal_time"]))
    candle = next(c for c in found.candles if "entry signal" in c.steps)
    assert candle.edited
    assert "changed by hand" in as_text(found)


def test_explain_reports_a_missing_state(own_store, filled):
    row = next(r for r in trades(filled) if r["entry_signal_time"].hour > 0 and r["entry_signal_time"].date() > START)
    before = row["entry_signal_time"].date() - timedelta(days=1)
    where = "WHERE table_name = 'signals' AND strategy_id = %s AND day = %s"
    with psycopg.connect(filled) as connection:
        held = connection.execute(f"SELECT * FROM lineage {where}", (row["strategy_id"], before)).fetchone()
        connection.execute(f"DELETE FROM lineage {where}", (row["strategy_id"], before))
        connection.commit()
        found = explain_trade(own_store, row["id"])
        connection.execute(f"INSERT INTO lineage VALUES ({', '.join(['%s'] * len(held))})", held)
    assert f"state of {before} is not recorded" in found.decisions[0].problem
    assert found.decisions[0].signal in (1, -1) and found.decisions[0].inputs == ()


def test_an_unknown_trade_id_is_one_sentence(own_store, filled, store_of_nothing):
    ids = [row["id"] for row in trades(filled)]
    with pytest.raises(WindowError, match=f"no trade 0: the {len(ids)} stored trades have ids from 1 to {max(ids)}"):
        explain_trade(own_store, 0)
    with pytest.raises(WindowError, match="no trades are stored yet"):
        explain_trade(store_of_nothing, 1)


@pytest.fixture
def store_of_nothing(new_database, monkeypatch) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALGOBOT_DATABASE_URL", new_database())
        opened = Store.open(run_id="test")
    with opened:
        yield opened


def test_json_has_the_same_content_as_the_text(own_store, filled):
    row = trades(filled)[0]
    result = CliRunner().invoke(cli, ["explain", "trade", str(row["id"]), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["trade"]["entry_price"] == f"{row['entry_price']:f}"
    assert found["decisions"][0]["opened"] == row["entry_signal_time"].isoformat()
    assert found["decisions"][0]["recomputed"] == found["decisions"][0]["signal"]


OWN = '''
from algobot_assets.compute.strategy import BUY, SELL, strategy

@strategy("own_rule", parameters={"n": 4})
def own_rule(bars, p):
    """Sums, a level, an average of a difference, an expression in place, a helper."""
    mean = bars.rolling_sum(bars.close, p.n) / p.n
    spread = bars.wilder(bars.high - bars.low, p.n)
    return helper(bars, mean, spread, p)

def helper(bars, mean, spread, p):
    return bars.decide(
        (BUY, bars.crosses_above(bars.close - mean, 0.0) & (spread > 0)),
        (SELL, bars.crosses_below(bars.close, mean)),
    )
'''


@pytest.fixture
def own_rule(tmp_path: Path, monkeypatch) -> str:
    """A strategy in a file of one's own, registered for the time of the test."""
    monkeypatch.setattr(strategies, "_files", {})
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return load_strategy_file(path)[0]


@pytest.mark.parametrize("kind", ["btc", "ema_cross", "macd", "own_rule"])
@pytest.mark.parametrize("name", ["spot/BTCUSDT-4h-2017_2026-04", "spot/BTCUSDT-1w-2017_2026-04"])
def test_tracing_changes_nothing(own_rule, kind: str, name: str):
    """The traced run gives the bits of the plain one: signals and states, in one piece and in two."""
    assert kind in strategy_types()
    candles = klines(name).head(900)
    interval = name.split("-")[1]
    days = days_of(candles, interval)
    values, _ = compute_indicators(candles, IndicatorWindows(), interval, days, None)
    signal, states = compute_signals(kind, candles, values, {}, days)
    whole = trace(kind, candles, values, {}, days, None)
    whole_days = candles.select(day_of(interval)).to_series()
    assert whole.signal.equals(signal["signal"]) and same_bits(whole.states, states)
    cut = candles.height // 2
    boundary = whole_days[cut]
    tail = whole_days >= boundary
    rest = days_of(candles.filter(tail), interval, first=boundary)
    position = days.days.index(boundary)
    second = trace(kind, candles.filter(tail), values.filter(tail), {}, rest, states[position - 1])
    assert second.signal.equals(whole.signal.filter(tail))
    assert same_bits(second.states, states[position:])
    for candle in range(candles.height):
        decided = whole.decided_by(candle)
        assert whole.signal[candle] == (0 if decided is None else whole.rules[decided].signal)


def test_rules_of_a_user_file_are_labelled(own_rule):
    candles = klines("spot/BTCUSDT-4h-2017_2026-04").head(60)
    found = trace(own_rule, candles, None, {"n": 6}, days_of(candles, "4h"), None)
    assert [str(item) for item in found.inputs] == [
        "close",
        "rolling_sum(close, 6)",
        "high",
        "low",
        "high - low",
        "spread = wilder(high - low, 6)",
        "close - mean",
        "mean",
    ]
    assert [rule.text for rule in found.rules] == [
        "crosses_above(close - mean, 0.0) & (spread > 0)",
        "crosses_below(close, mean)",
    ]

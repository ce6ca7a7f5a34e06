"""The asset checks in real runs: each fires on a defect planted into the stored tables, and honest data passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import psycopg
import pytest
from conftest import START, Project, published_candles, url_of

from algobot_assets.cli import runs
from algobot_assets.compute import strategies
from algobot_assets.defs.assets import TABLES
from algobot_assets.defs.checks import CHECKS, candle_age
from algobot_assets.store.server.control import Server

TODAY = START + timedelta(days=9)  # known up to 07:00
LAST = START + timedelta(days=8)
MARKETS = """
markets:
  - {symbol: BTCUSDT, interval: 1m, start: 2024-01-30}
strategies:
"""


def run_checks(
    instance: dg.DagsterInstance, *tables: str, days: tuple[date, date] | None = (START, TODAY)
) -> dict[str, str]:
    """Execute the checks of ``tables`` alone; the failed ones, as table.check, with what they say."""
    result = dg.materialize(
        [*TABLES, *CHECKS],
        selection=dg.AssetSelection.checks_for_assets(*(asset for asset in TABLES if asset.key.path[-1] in tables))
        - dg.AssetSelection.checks(*(key for asset in TABLES for key in asset.check_keys))
        - dg.AssetSelection.checks(*candle_age.check.check_keys),  # asks the clock; see test_health.py
        instance=instance,
        resources=runs.build_resources(),
        tags={runs.RANGE_START: days[0].isoformat(), runs.RANGE_END: days[1].isoformat()} if days else {},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    evaluations = result.get_asset_check_evaluations()
    assert evaluations
    return {f"{item.asset_key.path[-1]}.{item.check_name}": item.description for item in evaluations if not item.passed}


@pytest.fixture(scope="module")
def honest(
    server: Server, dagster_instance: dg.DagsterInstance, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """A database with ten days of a whole project, the last of them unfinished, and the run's id; to be copied."""
    name = "checks_honest"
    server.ensure_database(name, template="template_algobot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALGOBOT_DATABASE_URL", url_of(server, name))
        patch.setenv("ALGOBOT_SOURCE", "binance")
        project = Project(tmp_path_factory.mktemp("checks"), dagster_instance)
        project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9 + 7))
        result = project.run(START, TODAY)
    assert result.success and result.skipped == ()
    yield name, result.run_id
    server.drop_database(name)


@pytest.fixture
def plant(server: Server, honest: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Executes SQL in a copy of the honest database, which the settings name for the time of the test."""
    name = "checks_planted"
    server.ensure_database(name, template=honest[0])
    url = url_of(server, name)
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", url)
    monkeypatch.setenv("ALGOBOT_SOURCE", "binance")

    def execute(*statements: str) -> None:
        with psycopg.connect(url) as connection:
            for statement in statements:
                found = connection.execute(statement)
                assert found.rowcount, f"nothing was planted by {statement}"

    yield execute
    server.drop_database(name)


HOUR = "WHERE \"timestamp\" = '2024-02-0{} 05:00+00'"
TRADE = "WHERE id = (SELECT id FROM trade_history WHERE exit_reason = 'signal' ORDER BY id OFFSET {} LIMIT 1)"
COPY_OF_A_CANDLE = f"""INSERT INTO market_data (symbol, "interval", "timestamp", open, high, low, close, volume,
    close_time, quote_asset_volume, trades, taker_buy_base, taker_buy_quote, ignored)
    SELECT symbol, "interval", '{{}}', open, high, low, close, volume, close_time, quote_asset_volume, trades,
    taker_buy_base, taker_buy_quote, ignored FROM market_data {HOUR.format(3)}"""
ANY_SIGNAL = (
    "DO $$ DECLARE leaf regclass; BEGIN ALTER TABLE signals DROP CONSTRAINT signals_signal_check; "
    "FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'signals'::regclass LOOP "
    "EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS signals_signal_check', leaf); END LOOP; END $$"
)
#: Per table: what is planted, the check that must fire, and a part of what it must say. One copy of the honest database
#: takes all defects of an entry, each in rows of its own.
DEFECTS: dict[str, list[tuple[str, str, str]]] = {
    "market_data": [
        (
            f"UPDATE market_data SET high = low - 1 {HOUR.format(1)}",
            "candles_are_consistent",
            "BTCUSDT 1h: the candle of 2024-02-01 05:00 UTC cannot be, its high is below its open",
        ),
        (
            COPY_OF_A_CANDLE.format("2024-02-03 05:20+00"),
            "one_candle_per_open",
            "2 candles lie between 2024-02-03 05:00 UTC and 2024-02-03 06:00 UTC",
        ),
        (
            COPY_OF_A_CANDLE.format("2024-02-04 05:20+00"),
            "rows_are_as_recorded",
            "25 rows of 2024-02-04 are stored, 24 recorded",
        ),
        (
            COPY_OF_A_CANDLE.format("2024-02-08 07:00+00"),
            "candles_had_closed",
            "the candle of 2024-02-08 07:00 UTC is stored, but it had not closed",
        ),
        (
            "DELETE FROM market_data WHERE \"timestamp\" BETWEEN '2024-01-31 23:00+00' AND '2024-02-01 01:00+00'",
            "gaps_are_recorded",
            "3 candles are absent from 2024-01-31 23:00 UTC to 2024-02-01 01:00 UTC",
        ),
        (
            "DELETE FROM market_data WHERE \"timestamp\"::date = '2024-02-05'",
            "gaps_are_recorded",
            "24 candles are absent from 2024-02-05 00:00 UTC to 2024-02-05 23:00 UTC",
        ),
        (
            "DELETE FROM market_data WHERE \"timestamp\" = '2024-02-08 06:00+00'",
            "gaps_are_recorded",
            "1 candle is absent at 2024-02-08 06:00 UTC",
        ),
    ],
    "indicators": [
        (
            f"DELETE FROM indicators {HOUR.format(4)}",
            "one_row_per_candle",
            "2024-02-04 has 23 rows for 24 candles",
        ),
        (
            f"UPDATE indicators SET rsi = 101 {HOUR.format(1)}",
            "values_are_possible",
            "1 value of rsi on 2024-02-01 is not from 0 to 100",
        ),
        (f"UPDATE indicators SET atr = -0.1 {HOUR.format(1)}", "values_are_possible", "atr on 2024-02-01"),
        (f"UPDATE indicators SET ema = 'NaN' {HOUR.format(1)}", "values_are_possible", "ema on 2024-02-01"),
        (f"UPDATE indicators SET vwap = 0 {HOUR.format(1)}", "values_are_possible", "vwap on 2024-02-01"),
        (
            f"UPDATE indicators SET ema = NULL {HOUR.format(3)}",
            "null_only_while_warming",
            "ema is NULL at 1 candle of 2024-02-03, though it is warm",
        ),
        (
            "UPDATE indicators SET ema = 1 WHERE \"timestamp\" = '2024-01-30 03:00+00'",
            "null_only_while_warming",
            "ema has a value at 1 candle of 2024-01-30, before it is warm",
        ),
        (
            'UPDATE indicators SET rsi = CASE WHEN rsi IS NULL THEN 1 END WHERE "timestamp" IN '
            "('2024-01-30 03:00+00', '2024-01-30 20:00+00')",
            "null_only_while_warming",
            "rsi is NULL at 14 candles of 2024-01-30",
        ),
        (
            f"UPDATE indicators SET vwap = NULL {HOUR.format(3)}",
            "null_only_while_warming",
            "vwap is NULL at 1 candle of 2024-02-03, though there was volume",
        ),
    ],
    "indicators by hand": [
        (
            f"UPDATE indicators SET atr = atr * 1.0000001 {HOUR.format(7)}",
            "computes_the_same_again",
            "atr at 2024-02-07 05:00 UTC is stored as",
        ),
    ],
    "signals": [
        (
            f"DELETE FROM signals {HOUR.format(3)} AND strategy_id = 2",
            "one_row_per_candle",
            "2024-02-03 has 23 rows for 24 candles",
        ),
        (
            f"UPDATE signals SET signal = CASE signal WHEN 1 THEN 0 ELSE 1 END {HOUR.format(7)} AND strategy_id = 1",
            "computes_the_same_again",
            "signal at 2024-02-07 05:00 UTC is stored as",
        ),
    ],
    "trade_history": [
        (
            f"UPDATE trade_history SET exit_time = entry_time {TRADE.format(0)}",
            "trades_follow_signals",
            "ends no later than it begins",
        ),
        (
            f"UPDATE trade_history SET entry_time = entry_time + interval '1 minute' {TRADE.format(1)}",
            "trades_follow_signals",
            "was entered where no candle opens",
        ),
        (
            f"UPDATE trade_history SET entry_price = entry_price + 0.01 {TRADE.format(2)}",
            "trades_follow_signals",
            "was not entered at the open of its candle",
        ),
        (
            f"UPDATE trade_history SET exit_price = exit_price + 0.01 {TRADE.format(3)}",
            "trades_follow_signals",
            "was ended at another price than the open",
        ),
        (
            f"UPDATE trade_history SET entry_signal_time = entry_time {TRADE.format(4)}",
            "trades_follow_signals",
            "was decided no earlier than it was entered",
        ),
        (
            f"UPDATE trade_history SET exit_signal_time = exit_time {TRADE.format(4)}",
            "trades_follow_signals",
            "was ended by a signal that is not before its exit",
        ),
        (
            f"UPDATE trade_history SET entry_signal_time = entry_signal_time - interval '1 hour' {TRADE.format(5)}",
            "trades_follow_signals",
            "was not entered at the first candle after the decision",
        ),
        (
            'UPDATE signals SET signal = 0 WHERE (strategy_id, "timestamp") IN '
            f"(SELECT strategy_id, entry_signal_time FROM trade_history {TRADE.format(6)})",
            "trades_follow_signals",
            "was decided where its strategy gave no such signal",
        ),
        (
            "UPDATE trade_history SET commission_fee = round(commission_fee / 2, 8), "
            f"net_profit = gross_profit - round(commission_fee / 2, 8) - slippage_cost {TRADE.format(6)}",
            "both_sides_pay",
            "but both sides at the terms in force cost",
        ),
        (f"UPDATE trade_history SET slippage_cost = 0 {TRADE.format(7)}", "both_sides_pay", "slippage_cost of"),
        (
            f"UPDATE trade_history SET net_profit = net_profit + 0.00000001 {TRADE.format(6)}",
            "profits_add_up",
            "net_profit of the trade",
        ),
        (
            f"UPDATE trade_history SET gross_profit = -gross_profit {TRADE.format(7)}",
            "profits_add_up",
            "gross_profit of the trade",
        ),
        (f"UPDATE trade_history SET duration = 0 {TRADE.format(6)}", "profits_add_up", "duration of the trade"),
        (
            "UPDATE trade_history SET exit_time = exit_time + interval '2 days' WHERE id = "
            "(SELECT id FROM trade_history WHERE strategy_id = 2 ORDER BY entry_time LIMIT 1)",
            "open_trades_within_limit",
            "are open, and max_open_trades is 1",
        ),
    ],
    "backtest_results": [
        (
            "UPDATE backtest_results SET final_capital = final_capital + 0.00000001 WHERE day = '2024-02-05' "
            "AND strategy_id = 1",
            "capital_adds_up",
            "cross version 1 on BTCUSDT 1h: final_capital of 2024-02-05",
        ),
        (
            "UPDATE backtest_results SET initial_capital = initial_capital + 1, final_capital = final_capital + 1 "
            "WHERE day = '2024-02-03'",
            "capital_adds_up",
            "initial_capital of 2024-02-03",
        ),
        (
            "UPDATE backtest_results SET winning_trades = winning_trades + 1 WHERE day = '2024-02-05'",
            "counts_equal_trades",
            "winning_trades of 2024-02-05",
        ),
        (
            "UPDATE backtest_results SET win_rate = win_rate + 0.01 WHERE day = '2024-02-05'",
            "figures_follow_from_trades",
            "on 2024-02-05 win_rate is",
        ),
        (
            "UPDATE backtest_results SET sharpe_ratio = 1 WHERE day = '2024-02-05'",
            "figures_follow_from_trades",
            "sharpe_ratio has a value before 30 days",
        ),
    ],
    "backtest_results of other trades": [
        (f"DELETE FROM trade_history {TRADE.format(1)}", "counts_equal_trades", "total_trades of"),
    ],
    "performance_metrics": [
        (
            "UPDATE performance_metrics SET final_capital = final_capital + 0.01 "
            "WHERE id = (SELECT id FROM performance_metrics ORDER BY id OFFSET 2 LIMIT 1)",
            "capital_adds_up",
            "but the account holds",
        ),
        (
            "UPDATE performance_metrics SET profit_factor = profit_factor + 0.01 "
            "WHERE id = (SELECT id FROM performance_metrics WHERE profit_factor > 0 ORDER BY id DESC LIMIT 1)",
            "figures_follow_from_trades",
            "profit_factor is",
        ),
        (
            "DELETE FROM performance_metrics WHERE id = (SELECT min(id) FROM performance_metrics)",
            "one_row_per_trade",
            "there are no metrics",
        ),
    ],
}


@pytest.mark.parametrize("where", DEFECTS)
def test_planted_defects_are_found(plant, dagster_instance, where: str):
    table = where.split()[0]
    plant(*(statement for statement, _, _ in DEFECTS[where]))
    failed = run_checks(dagster_instance, table)
    for _, check, sentence in DEFECTS[where]:
        assert sentence in failed.get(f"{table}.{check}", ""), (check, failed)


def test_a_signal_of_another_kind_is_found(plant, dagster_instance):
    plant(ANY_SIGNAL, f"UPDATE signals SET signal = 2 {HOUR.format(3)} AND strategy_id = 2")
    assert (
        "1 signals of 2024-02-03 are not 1, -1 or 0"
        in run_checks(dagster_instance, "signals")["signals.values_are_known"]
    )


def test_honest_tables_pass_every_check(plant, dagster_instance):
    assert run_checks(dagster_instance, *(asset.key.path[-1] for asset in TABLES)) == {}
    assert run_checks(dagster_instance, "market_data", "trade_history", days=None) == {}  # without a partition
    for day in (START, TODAY):
        assert run_checks(dagster_instance, *(asset.key.path[-1] for asset in TABLES), days=(day, day)) == {}


def test_only_the_days_of_the_run_are_looked_at(plant, dagster_instance):
    plant(f"UPDATE market_data SET high = low - 1 {HOUR.format(3)}")
    assert run_checks(dagster_instance, "market_data", days=(START, date(2024, 2, 2))) == {}
    assert set(run_checks(dagster_instance, "market_data", days=(date(2024, 2, 3), TODAY))) == {
        "market_data.candles_are_consistent"
    }


def test_a_recorded_gap_is_no_defect(plant, dagster_instance):
    plant(
        "DELETE FROM market_data WHERE \"timestamp\" BETWEEN '2024-02-01 23:00+00' AND '2024-02-02 01:00+00'",
        'INSERT INTO gaps (symbol, "interval", first_open, end_open, reason, evidence) '
        "VALUES ('BTCUSDT', '1h', '2024-02-01 23:00+00', '2024-02-02 01:00+00', 'outage', 'asked')",
    )
    failed = run_checks(dagster_instance, "market_data")
    assert "1 candle is absent at 2024-02-02 01:00 UTC" in failed["market_data.gaps_are_recorded"]
    plant("UPDATE gaps SET end_open = '2024-02-02 02:00+00'")
    assert "market_data.gaps_are_recorded" not in run_checks(dagster_instance, "market_data")


def steps_and_evaluations(instance: dg.DagsterInstance, run_id: str) -> tuple[set[str], list]:
    """The steps that a run began, and what its checks said."""
    events = [record.dagster_event for record in instance.all_logs(run_id) if record.is_dagster_event]
    return (
        {event.step_key for event in events if event.event_type_value == "STEP_START"},
        [e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION"],
    )


def test_a_range_run_gives_one_evaluation_per_check_that_looked_at_something(honest, dagster_instance, defs):
    graph = defs.resolve_asset_graph()
    named = {key for check in CHECKS for key in check.check_keys}
    assert {graph.get(key).partitions_def for key in named} == {None}
    _, evaluations = steps_and_evaluations(dagster_instance, honest[1])
    evaluated = [item for item in evaluations if item.asset_check_key in named]
    assert sorted(item.asset_check_key for item in evaluated) == sorted(named)
    assert all(item.passed for item in evaluated)
    assert all(item.metadata["looked at"].value > 0 for item in evaluated if item.check_name != candle_age.NAME)


def test_a_failed_blocking_check_ends_the_run_before_what_follows(plant, dagster_instance, tmp_path: Path):
    plant("UPDATE market_data SET taker_buy_base = -1 WHERE \"timestamp\" = '2024-02-03 05:00+00'")
    project = Project(tmp_path, dagster_instance)
    project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9 + 7))
    result = project.run(START, LAST, ["market_data", "indicators", "signals"])
    assert not result.success
    assert "candles_are_consistent" in result.error and "Traceback" not in result.error
    assert any("a volume is negative" in sentence for sentence in result.skipped)
    steps, _ = steps_and_evaluations(dagster_instance, result.run_id)
    assert steps == {"market_data", "market_data_checks", "market_data_newest_candle"}


def test_a_failed_other_check_lets_the_run_go_on(project: Project, database_url):
    whole = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9)
    project.publish(pl.concat([whole.head(30), whole.tail(-34)]))
    tables = ["market_data", "indicators"]
    assert project.run(START, LAST, tables).success
    with psycopg.connect(database_url) as connection:
        assert connection.execute("DELETE FROM gaps").rowcount == 1
    result = project.run(START, LAST, tables)
    assert result.success
    assert any("4 candles are absent from 2024-01-31 06:00 UTC" in sentence for sentence in result.skipped)


STRATEGIES = """
import polars as pl

from algobot_assets.compute.strategy import BUY, SELL, strategy


@strategy("ahead_next")
def ahead_next(bars, p):
    coming = bars.close.shift(-1)
    return bars.decide((BUY, coming > bars.close * 1.005), (SELL, coming < bars.close * 0.995))


@strategy("ahead_centred")
def ahead_centred(bars, p):
    middle = bars.close.rolling_mean(5, center=True)
    return bars.decide((BUY, bars.close < middle * 0.997), (SELL, bars.close > middle * 1.003))


@strategy("ahead_sample")
def ahead_sample(bars, p):
    score = (bars.close - bars.close.mean()) / bars.close.std()
    return bars.decide((BUY, score < -1.5), (SELL, score > 1.5))


@strategy("ahead_day")
def ahead_day(bars, p):
    top = []
    for first, end in zip([0, *bars.days.ends[:-1]], bars.days.ends):
        top += [bars.high[first:end].max()] * int(end - first)
    return bars.decide((SELL, bars.close > pl.Series(top, dtype=pl.Float64) * 0.995))


@strategy("ahead_hour")
def ahead_hour(bars, p):
    hour = pl.Series([i // 60 for i in range(len(bars.close))])
    last = pl.DataFrame({"hour": hour, "close": bars.close}).select(pl.col("close").last().over("hour"))["close"]
    return bars.decide((BUY, last > bars.close * 1.01), (SELL, last < bars.close * 0.99))


@strategy("forgetful")
def forgetful(bars, p):
    mean = bars.close.rolling_mean(2_000)
    return bars.decide((BUY, bars.close > mean))


@strategy("broken")
def broken(bars, p):
    if len(bars.close) % 10:
        raise RuntimeError("that many candles are too odd for me")
    return bars.decide((BUY, bars.close > bars.open))
"""


@pytest.fixture
def minutes(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """Six days of minutes, decided on by the built-in strategies and by faulty ones from a file."""
    monkeypatch.setattr(strategies, "_files", {})
    path = tmp_path / "faulty.py"
    path.write_text(STRATEGIES)
    kinds = [*strategies.load_strategy_file(path), "ema_cross", "macd", "btc"]
    settings = "market: BTCUSDT 1m, initial_balance: 10000, risk_per_trade: 0.01"
    risk = "risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 3, take_profit_percentage: 0}"
    project.declare(MARKETS + "".join(f"  {kind}: {{type: {kind}, {settings}, {risk}}}\n" for kind in kinds))
    project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 6 * 1440, minutes=1), interval="1m")
    return project


def test_look_ahead_is_found_in_five_of_five_and_never_in_the_built_in_strategies(minutes: Project):
    tables = ["configurations", "strategies", "risk_parameters", "market_data", "indicators", "signals"]
    result = minutes.run(START, START + timedelta(days=5), tables)
    assert result.success  # one strategy's fault is no reason to keep the others from their ledgers
    failed = run_checks(minutes.instance, "indicators", "signals", days=(START, START + timedelta(days=5)))
    assert set(failed) == {"signals.no_look_ahead", "signals.computes_the_same_again"}
    ahead = [line.split(" (")[0] for line in failed["signals.no_look_ahead"].splitlines()]
    faulty = ["next", "centred", "sample", "day", "hour"]
    assert sorted(ahead) == sorted(f"signals of ahead_{name}" for name in faulty)
    assert "it looks ahead" in failed["signals.no_look_ahead"]
    again = {line.split(" (")[0]: line for line in failed["signals.computes_the_same_again"].splitlines()}
    window_bound = ("ahead_centred", "ahead_sample", "forgetful", "broken")  # what begins anew in each chunk
    assert set(again) == {f"signals of {name}" for name in window_bound}
    assert "how days are cut" in again["signals of forgetful"]
    assert "too odd for me" in again["signals of broken"]


def test_a_look_ahead_of_indicators_blocks_what_follows(plant, dagster_instance, monkeypatch, defs):
    from algobot_assets.defs.checks import indicators as checked

    honest = checked.compute_indicators

    def peeking(candles: pl.DataFrame, *rest):
        frame, states = honest(candles, *rest)
        return frame.with_columns(pl.col("ema").shift(-1)), states

    monkeypatch.setattr(checked, "compute_indicators", peeking)
    failed = run_checks(dagster_instance, "indicators")
    assert "it looks ahead" in failed["indicators.no_look_ahead"]
    assert defs.resolve_asset_graph().get(dg.AssetCheckKey(dg.AssetKey("indicators"), "no_look_ahead")).blocking


def test_published_candles_of_long_intervals_pass(project: Project, shared_data: Path, database_url):
    first, last = date(2017, 8, 17), date(2017, 11, 5)
    intervals = {"3d": "3d", "1w": "1w", "1M": "1mo"}
    project.declare(
        "markets:\n" + "".join(f"  - {{symbol: BTCUSDT, interval: {name}, start: {first}}}\n" for name in intervals)
    )
    for interval, written in intervals.items():
        file = next((shared_data / "klines" / "spot").glob(f"BTCUSDT-{written}-*.parquet"))
        project.publish(pl.read_parquet(file), interval=interval)
    result = project.run(first, last, ["market_data", "indicators"])
    assert result.success and result.skipped == ()
    absent = {"3d": "2017-08-26", "1w": "2017-09-04", "1M": "2017-09-01"}
    with psycopg.connect(database_url) as connection:
        for interval, day in absent.items():
            gone = connection.execute(
                'DELETE FROM market_data WHERE "interval" = %s AND "timestamp" = %s', (interval, f"{day} 00:00+00")
            )
            assert gone.rowcount == 1, interval
    sentences = run_checks(project.instance, "market_data", days=(first, last))["market_data.gaps_are_recorded"]
    for interval, day in absent.items():
        assert f"BTCUSDT {interval}: 1 candle is absent at {day} 00:00 UTC" in sentences

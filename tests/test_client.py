"""The client against a real PostgreSQL that real runs have filled."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import dagster as dg
import polars as pl
import psycopg
import pytest
from conftest import TEMPLATE, Project, published_candles, url_of
from polars.testing import assert_frame_equal

from algobot_assets import client as package
from algobot_assets.client import Client, connect, results
from algobot_assets.client import client as client_module
from algobot_assets.client.results import LatestSignal, QueryResult, instant
from algobot_assets.errors import AlgobotError, SettingsError, StoreError, WindowError
from algobot_assets.schema.frames import PRICE, schema_of
from algobot_assets.schema.frames import UTC as UTC_TYPE
from algobot_assets.schema.windows import Window
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.server.control import Server
from algobot_assets.store.writer import write_window

FIRST = date(2024, 1, 30)
LAST = date(2024, 2, 8)
#: The newest candle opens at 06:00 of the last day.
NEWEST = datetime(2024, 2, 8, 7, tzinfo=UTC)
CANDLES = published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9 + 7)
STATE = """
markets:
  - {symbol: BTCUSDT, interval: 1h, start: 2024-01-30}
strategies:
  cross:
    type: ema_cross
    market: BTCUSDT 1h
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 2, take_profit_percentage: 4}
    versions:
      - parameters: {fast: 3, slow: 8}
      - effective_from: 2024-02-04
        parameters: {fast: 5, slow: 13}
  rules:
    type: btc
    market: BTCUSDT 1h
    initial_balance: 5000
    risk_per_trade: 0.01
    shorting: true
    risk: {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 3, take_profit_percentage: 0}
configurations:
  ledger.slippage_bps:
    - value: 2
    - {value: 3, effective_from: 2024-02-05}
"""


@pytest.fixture(scope="module")
def filled(
    server: Server, tmp_path_factory: pytest.TempPathFactory, dagster_instance: dg.DagsterInstance
) -> Iterator[str]:
    """URL of a database with ten days of all nine tables."""
    server.ensure_database("test_client", template=TEMPLATE)
    url = url_of(server, "test_client")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALGOBOT_DATABASE_URL", url)
        patch.setenv("ALGOBOT_SOURCE", "binance")
        project = Project(tmp_path_factory.mktemp("project"), dagster_instance)
        project.declare(STATE)
        project.publish(CANDLES)
        result = project.run(FIRST, LAST)
        assert result.success, result
    yield url
    server.drop_database("test_client")


@pytest.fixture(scope="module")
def client(filled: str) -> Iterator[Client]:
    with connect(database_url=filled) as opened:
        yield opened


@pytest.fixture
def rows(filled: str) -> Callable[..., list[tuple]]:
    """Rows of a statement, straight from the database."""

    def ask(statement: str, *parameters: object) -> list[tuple]:
        with psycopg.connect(filled) as connection:
            return connection.execute(statement, parameters).fetchall()

    return ask


def test_examples_of_the_docstrings_are_true(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", filled)
    monkeypatch.setenv("ALGOBOT_SOURCE", "binance")  # not the choice that a demo in this checkout has left
    count, wrong = 0, []
    with connect() as client:
        for module in (package, client_module, results):
            for test in doctest.DocTestFinder().find(module, extraglobs={"client": client}):
                failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
                wrong += [test.name] * failed
                count += tried
    assert not wrong, "the examples do not show what they give"
    methods = [name for name, member in vars(Client).items() if callable(member) and not name.startswith("_")]
    shown = [name for name in methods if ">>>" in (getattr(Client, name).__doc__ or "")]
    assert count >= len(methods) and sorted(shown) == sorted(set(methods) - {"close"})


def test_the_former_name_of_a_result_is_importable() -> None:
    with pytest.warns(DeprecationWarning, match="QueryResult"):
        assert results.Answer is QueryResult
    with pytest.warns(DeprecationWarning, match="QueryResult"):
        assert package.Answer is QueryResult
    with pytest.raises(AttributeError, match="Question"):
        package.Question  # noqa: B018


# --- candle by candle ----------------------------------------------------------------------------------


def test_candles_are_what_was_published(client: Client) -> None:
    frame = client.candles("BTCUSDT", "1h").frame
    assert frame.schema == schema_of("market_data")
    expected = CANDLES.select(
        pl.from_epoch("open_time", "ms").cast(UTC_TYPE).alias("timestamp"),
        *(pl.col(name).cast(PRICE) for name in ("open", "high", "low", "close")),
        pl.col("volume").cast(pl.Decimal(28, 8)),
        pl.col("count").cast(pl.Int32).alias("trades"),
    )
    assert_frame_equal(frame.select(expected.columns), expected)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-01-31", "2024-02-02"),
        ("2024-01-31T00:00:00Z", "2024-02-02 00:00"),
        (date(2024, 1, 31), date(2024, 2, 2)),
        (datetime(2024, 1, 31), datetime(2024, 2, 2, tzinfo=UTC)),
        (datetime(2024, 1, 31, 5, tzinfo=timezone(timedelta(hours=5))), "2024-02-01T23:00:00-01:00"),
    ],
)
def test_ranges_are_half_open_in_utc_across_months(client: Client, start: object, end: object) -> None:
    for read in (client.candles, client.indicators, client.candles_with_indicators):
        times = read("BTCUSDT", "1h", start, end, columns=["timestamp"]).frame["timestamp"]
        assert (len(times), times.is_sorted()) == (48, True)
        assert (times[0], times[-1]) == (
            datetime(2024, 1, 31, tzinfo=UTC),
            datetime(2024, 2, 1, 23, tzinfo=UTC),
        )


def test_candles_have_the_requested_columns(client: Client) -> None:
    frame = client.candles("BTCUSDT", "1h", "2024-02-01", "2024-02-02", columns=["close", "id", "timestamp"]).frame
    assert frame.schema == {"close": PRICE, "id": pl.Int64(), "timestamp": UTC_TYPE}


def test_candles_with_indicators_join_both_tables(client: Client) -> None:
    span = ("BTCUSDT", "1h", "2024-01-30", "2024-02-03")
    values = client.indicators(*span).frame
    assert values.schema == schema_of("indicators")
    assert values["ema"].null_count() == 13
    candles = client.candles(*span).frame
    both = client.candles_with_indicators(*span)
    joined = candles.join(values.select("timestamp", "ema", "rsi", "atr", "vwap"), on="timestamp", how="left")
    assert_frame_equal(both.frame, joined, check_exact=True)
    assert both.newest == NEWEST


def test_signals_name_their_strategy_version(client: Client, rows: Callable[..., list[tuple]]) -> None:
    every = client.signals("BTCUSDT", "1h")
    names = {"strategy_name": pl.String(), "version": pl.Int32()}
    assert every.frame.schema == {**schema_of("signals"), **names}
    assert every.frame.select("timestamp", "strategy_name", "version", "signal").rows() == rows(
        """SELECT timestamp, strategy_name, version, signal FROM signals AS s
             JOIN strategies AS v ON v.id = strategy_id ORDER BY timestamp, strategy_id"""
    )
    assert set(every.frame["version"].unique()) == {1, 2}
    one = client.signals("BTCUSDT", "1h", "2024-02-06", "2024-02-07", strategy="cross")
    assert one.frame.select("strategy_name", "version").unique().rows() == [("cross", 2)]
    assert len(one) == 24
    old = client.signals("BTCUSDT", "1h", strategy="cross", version=1).frame
    assert old["timestamp"].max() == datetime(2024, 2, 3, 23, tzinfo=UTC)


def test_latest_signal_is_the_last_row(client: Client, rows: Callable[..., list[tuple]]) -> None:
    latest = client.latest_signal("rules")
    (row,) = rows(
        """SELECT strategy_name, version, s.symbol, s."interval", signal, s.timestamp,
                  s.timestamp + interval '1 hour', close
             FROM signals AS s JOIN market_data AS m ON m.id = market_data_id JOIN strategies AS v ON v.id = strategy_id
            WHERE strategy_name = 'rules' ORDER BY s.timestamp DESC LIMIT 1"""
    )
    assert (
        latest.strategy,
        latest.version,
        latest.symbol,
        latest.interval,
        latest.signal,
        latest.decided_at,
        latest.known_at,
        latest.price,
    ) == row
    assert latest.known_at == NEWEST
    assert latest.age == latest.as_of - NEWEST
    assert latest.stale
    assert client.latest_signal("cross").version == 2
    assert client.latest_signal("cross", version=1).known_at == datetime(2024, 2, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("interval", "known", "later"),
    [
        ("1h", datetime(2024, 2, 8, 7, tzinfo=UTC), timedelta(hours=1)),
        ("1M", datetime(2024, 2, 1, tzinfo=UTC), timedelta(days=29)),
    ],
)
def test_a_signal_is_stale_once_the_next_candle_has_closed(interval: str, known: datetime, later: timedelta) -> None:
    def read_at(as_of: datetime) -> LatestSignal:
        return LatestSignal("s", 1, "BTCUSDT", interval, 1, known, known, Decimal(1), as_of)

    assert not read_at(known).stale
    assert not read_at(known + later - timedelta(microseconds=1)).stale
    assert read_at(known + later).stale
    assert read_at(known - timedelta(seconds=1)).age == timedelta(0)


# --- the ledger ----------------------------------------------------------------------------------------


def test_trades_metrics_and_results_are_what_is_stored(client: Client, rows: Callable[..., list[tuple]]) -> None:
    trades, metrics, results = client.trades().frame, client.metrics().frame, client.results().frame
    names = {"strategy_name": pl.String(), "version": pl.Int32()}
    assert trades.schema == {"id": pl.Int64(), **schema_of("trade_history"), **names}
    trade = {"strategy_id": pl.Int64(), "entry_time": UTC_TYPE, "exit_time": UTC_TYPE}
    assert metrics.schema == {**schema_of("performance_metrics"), **trade, **names}
    assert results.schema == {**schema_of("backtest_results"), **names}
    assert trades.height == metrics.height > 5
    for frame, source, order in (
        (trades, "trade_history AS t", "exit_time, entry_time, strategy_id"),
        (
            metrics,
            "(SELECT p.*, strategy_id, entry_time, exit_time FROM performance_metrics AS p "
            "JOIN trade_history AS h ON h.id = trade_id) AS t",
            "exit_time, entry_time, strategy_id",
        ),
        (results, "backtest_results AS t", "day, strategy_name, strategy_id"),
    ):
        columns = ", ".join("v.version" if c == "version" else c if c in names else f"t.{c}" for c in frame.columns)
        assert frame.rows() == rows(
            f"SELECT {columns} FROM {source} JOIN strategies AS v ON v.id = t.strategy_id ORDER BY {order}"
        )


def test_a_name_is_the_version_in_force(client: Client) -> None:
    every = client.results().frame.select("strategy_name", "version").unique().rows()
    assert sorted(every) == [("cross", 1), ("cross", 2), ("rules", 1)]
    assert set(client.results("cross").frame["version"]) == {2}
    assert set(client.results("cross", version=1).frame["version"]) == {1}
    assert set(client.trades("cross").frame["version"]) == {2}
    assert set(client.metrics("cross", version=1).frame["version"]) == {1}


def test_ledger_ranges_are_half_open(client: Client) -> None:
    exits = client.trades().frame["exit_time"]
    lo, hi = exits[2], exits[-1]
    inside = client.trades(start=lo, end=hi).frame["exit_time"]
    assert inside.to_list() == exits.filter((exits >= lo) & (exits < hi)).to_list()
    assert client.metrics(start=lo, end=hi).frame["exit_time"].to_list() == inside.to_list()
    days = client.results("rules", "2024-02-01", "2024-02-03").frame["day"].to_list()
    assert days == [date(2024, 2, 1), date(2024, 2, 2)]


# --- age -----------------------------------------------------------------------------------------------


def test_every_result_carries_the_age_of_the_newest_data(client: Client, rows: Callable[..., list[tuple]]) -> None:
    ((before,),) = rows("SELECT clock_timestamp()")
    answers = [
        client.candles("BTCUSDT", "1h", "2024-01-30", "2024-01-31"),
        client.indicators("BTCUSDT", "1h", end="2023-01-01"),
        client.signals("BTCUSDT", "1h"),
        client.signals("BTCUSDT", "1h", strategy="rules"),
        client.trades(),
        client.metrics("cross"),
        client.results("rules"),
        client.markets(),
    ]
    ((after,),) = rows("SELECT clock_timestamp()")
    for answer in answers:
        assert answer.newest == NEWEST
        assert before <= answer.as_of <= after
        assert answer.age == answer.as_of - NEWEST
    # a replaced version is computed no further, and makes no answer of all versions older
    assert client.trades("cross", version=1).newest < NEWEST
    for answer in (client.configuration(), client.strategies(), client.risk_parameters()):
        ((stored,),) = rows("SELECT max(written_at) FROM lineage WHERE table_name = 'strategies'")
        assert abs(answer.newest - stored) < timedelta(minutes=1)
        assert answer.age == answer.as_of - answer.newest


def test_a_result_prints_its_age(client: Client) -> None:
    frame = pl.DataFrame({"close": [1]})
    at = datetime(2024, 2, 8, 8, 0, 5, tzinfo=UTC)
    answer = QueryResult(frame, NEWEST, at)
    assert str(answer) == "newest data of 2024-02-08 07:00:00 UTC, 1:00:05 old"
    assert repr(answer) == f"{frame}\n{answer}"
    assert str(answer) in answer._repr_html_()
    assert len(answer) == 1
    assert QueryResult(frame, at, NEWEST).age == timedelta(0)
    nothing = QueryResult(frame.clear(), None, at)
    assert nothing.age is None
    assert str(nothing) == "nothing is stored as of 2024-02-08 08:00:05 UTC"


# --- declared state and catalogue ----------------------------------------------------------------------


def test_the_configuration_in_force_on_a_day_is_returned(client: Client) -> None:
    def slippage(day: object = None) -> list[tuple]:
        frame = client.configuration(day).frame
        assert frame.schema == schema_of("configurations")
        return frame.select("config_name", "config_value", "version").rows()

    assert slippage("2024-02-04") == [("ledger.slippage_bps", "2", 1)]
    assert slippage(date(2024, 2, 5)) == slippage() == [("ledger.slippage_bps", "3", 2)]
    assert slippage("2020-01-01") == []


def test_strategies_and_risk_have_their_lifetimes(client: Client) -> None:
    strategies = client.strategies().frame
    assert strategies.schema == {"id": pl.Int64(), **schema_of("strategies"), "until": pl.Date()}
    assert strategies.select("strategy_name", "version", "until").rows() == [
        ("cross", 1, date(2024, 2, 4)),
        ("cross", 2, None),
        ("rules", 1, None),
    ]
    risks = client.risk_parameters().frame
    named = {"strategy_name": pl.String(), "strategy_version": pl.Int32(), "until": pl.Date()}
    assert risks.schema == {**schema_of("risk_parameters"), **named}
    assert sorted(risks.select("strategy_name", "strategy_version", "max_open_trades").rows()) == [
        ("cross", 1, 2),
        ("cross", 2, 2),
        ("rules", 1, 1),
    ]


def test_markets_say_what_is_stored(client: Client) -> None:
    answer = client.markets()
    (row,) = answer.frame.to_dicts()
    assert row == {
        "symbol": "BTCUSDT",
        "interval": "1h",
        "first_candle": datetime(2024, 1, 30, tzinfo=UTC),
        "last_candle": NEWEST - timedelta(hours=1),
        "newest": NEWEST,
        "age": answer.age,
        "candles": CANDLES.height,
        "days": 10,
        "complete_through": NEWEST,
    }


def candle(symbol: str, interval: str, opened: datetime) -> pl.DataFrame:
    """One candle as market_data holds it."""
    value = dict.fromkeys(schema_of("market_data"), Decimal(1))
    known = {"symbol": symbol, "interval": interval, "timestamp": opened, "close_time": opened, "trades": 1}
    return pl.DataFrame([{**value, **known}], schema=schema_of("market_data"))


@pytest.mark.parametrize(
    ("interval", "day", "opened", "phase"),
    [
        ("3d", date(2024, 2, 1), datetime(2024, 1, 30, tzinfo=UTC), 0),
        ("1w", date(2024, 2, 4), datetime(2024, 1, 29, tzinfo=UTC), None),
        ("1M", date(2024, 1, 31), datetime(2024, 1, 1, tzinfo=UTC), None),
        ("1d", date(2024, 1, 31), datetime(2024, 1, 31, tzinfo=UTC), None),
    ],
)
def test_long_candles_are_as_new_as_their_end(
    store: Store, database_url: str, interval: str, day: date, opened: datetime, phase: int | None
) -> None:
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    window = Window("market_data", day, day + timedelta(days=1), "BTCUSDT", interval, 0, phase)
    write_window(store, window, candle("BTCUSDT", interval, opened), [DayInputs(day, end)])
    empty = window.of(window.end, window.end + timedelta(days=1))
    frame = pl.DataFrame(schema=schema_of("market_data"))
    write_window(store, empty, frame, [DayInputs(empty.first, end + timedelta(days=1))])
    with connect(database_url=database_url) as client:
        assert client.candles("BTCUSDT", interval, end).newest == end
        (row,) = client.markets().frame.to_dicts()
    assert (row["last_candle"], row["newest"]) == (opened, end)
    assert (row["candles"], row["days"]) == (1, 2)
    assert row["complete_through"] == end + timedelta(days=1)


@pytest.mark.parametrize("missing", ["day", "end of a day"])
def test_complete_through_ends_at_the_first_gap(store: Store, database_url: str, missing: str) -> None:
    for n in (1, 2, 3, 4):
        if n == 3 and missing == "day":
            continue
        opened = datetime(2024, 1, n, tzinfo=UTC)
        through = opened + timedelta(hours=5 if n == 2 and missing == "end of a day" else 24)
        window = Window("market_data", opened.date(), opened.date() + timedelta(days=1), "BTCUSDT", "1h")
        write_window(store, window, candle("BTCUSDT", "1h", opened), [DayInputs(opened.date(), through)])
    with connect(database_url=database_url) as client:
        found = client.markets().frame["complete_through"].item()
    assert found == (datetime(2024, 1, 3, tzinfo=UTC) if missing == "day" else datetime(2024, 1, 2, 5, tzinfo=UTC))


def test_a_table_that_is_not_computed_yet_has_no_rows(store: Store, database_url: str) -> None:
    with connect(database_url=database_url) as client:
        assert client.markets().frame.is_empty()
        assert client.trades().newest is None
        assert client.strategies().frame.is_empty()
        with pytest.raises(WindowError, match="materialise market_data first"):
            client.candles("BTCUSDT", "1h")
        with pytest.raises(WindowError, match="run `algobot apply` first"):
            client.trades("cross")
        opened = datetime(2024, 1, 1, tzinfo=UTC)
        window = Window("market_data", opened.date(), date(2024, 1, 2), "BTCUSDT", "1h")
        write_window(store, window, candle("BTCUSDT", "1h", opened), [DayInputs(opened.date(), opened)])
        for answer in (client.indicators("BTCUSDT", "1h"), client.signals("BTCUSDT", "1h")):
            assert (len(answer), answer.newest, answer.age) == (0, None, None)
        both = client.candles_with_indicators("BTCUSDT", "1h")
        assert (len(both), both.frame["ema"].item(), both.newest) == (1, None, None)


# --- errors, safety ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda c: c.candles("BTCUSD", "1h"), "No candles of BTCUSD 1h .* nearest stored market is BTCUSDT 1h"),
        (lambda c: c.indicators("BTCUSDT", "1m"), "nearest stored market is BTCUSDT 1h"),
        (lambda c: c.signals("XYZ", "1d"), "No candles of XYZ 1d are stored; stored are BTCUSDT 1h"),
        (lambda c: c.trades("crss"), "No strategy crss is stored; the nearest stored strategy is cross"),
        (lambda c: c.latest_signal("Rules"), "nearest stored strategy is rules"),
        (lambda c: c.results("cross", version=3), "cross has no version 3. Stored versions: 1, 2"),
        (lambda c: c.metrics(version=1), "needs the name of its strategy"),
        (lambda c: c.signals("ETHUSDT", "1h", strategy="rules"), "rules version 1 trades BTCUSDT 1h, not ETHUSDT 1h"),
        (lambda c: c.candles("BTCUSDT", "1h", columns=["closse"]), "no column closse; the nearest is close"),
        (lambda c: c.candles("BTCUSDT", "1h", columns=[]), "Omit `columns`"),
        (lambda c: c.candles("BTCUSDT", "1h", "2024-13-01"), "start is '2024-13-01', which is not a valid time"),
        (lambda c: c.candles("BTCUSDT", "1h", end=5), "end is 5. Pass a datetime"),
        (lambda c: c.trades("cross", "2024-02-02", "2024-02-01"), "ends .* before it starts"),
    ],
)
def test_client_errors_are_one_sentence(client: Client, ask: Callable[[Client], object], words: str) -> None:
    with pytest.raises(WindowError, match=words):
        ask(client)


def test_times_are_read_as_utc() -> None:
    assert instant(None, "start") is None
    assert instant("2024-02-01T01:00:00+01:00", "start") == datetime(2024, 2, 1, tzinfo=UTC)
    assert instant("2024-02-01", "start").tzinfo is UTC


@pytest.mark.parametrize("inside", [True, False])
def test_the_client_cannot_write(client: Client, inside: bool) -> None:
    opened = client._store.transaction if inside else client._store.connection
    for statement in ("INSERT INTO exchange VALUES (true, 'x')", "SELECT ensure_month('2030-01-01')"):
        refused = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)
        with pytest.raises(refused), opened() as connection:
            connection.execute(statement)


def test_a_transaction_sees_one_snapshot(client: Client, filled: str) -> None:
    with client._store.transaction() as connection:
        count = "SELECT count(*) FROM listings"
        before = connection.execute(count).fetchone()
        with psycopg.connect(filled, autocommit=True) as other:
            other.execute("INSERT INTO listings VALUES ('XUSDT', '1h', now())")
            try:
                assert connection.execute(count).fetchone() == before
            finally:
                other.execute("DELETE FROM listings WHERE symbol = 'XUSDT'")


def test_statements_have_the_timeouts_of_the_settings(filled: str) -> None:
    with (
        connect(Settings(statement_timeout=0.05), database_url=filled) as client,
        pytest.raises(StoreError, match="ALGOBOT_STATEMENT_TIMEOUT"),
    ):
        client._store.retrying(lambda connection: connection.execute("SELECT pg_sleep(5)"), "Sleeping")


def test_the_client_creates_no_database(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", url_of(server, "test_absent"))
    for source in ("binance", "simulated"):
        monkeypatch.setenv("ALGOBOT_SOURCE", source)
        with pytest.raises(StoreError, match="does not exist"):
            connect()
    with server.connect("postgres") as connection:
        assert not connection.execute("SELECT FROM pg_database WHERE datname LIKE 'test_absent%'").fetchall()


def test_the_settings_name_the_database(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALGOBOT_DATABASE_URL", filled)
    monkeypatch.setenv("ALGOBOT_SOURCE", "binance")
    with connect() as client:
        assert len(client.markets()) == 1
        assert repr(client).startswith("Client of ") and "test_client" in repr(client)
    monkeypatch.setenv("ALGOBOT_SOURCE", "simulated")
    with connect(database_url=filled) as client:  # exactly that one, whatever the source
        assert len(client.markets()) == 1
    with pytest.raises(SettingsError, match="not a PostgreSQL URL"):
        connect(database_url="mysql://x")


def test_threads_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.candles("BTCUSDT", "1h"), range(12)))
        trades = list(pool.map(lambda _: client.trades(), range(6)))
    assert all(answer.frame.equals(answers[0].frame) for answer in answers)
    assert all(answer.frame.equals(trades[0].frame) for answer in trades)


def test_a_bot_needs_no_dagster() -> None:
    code = "import sys, algobot_assets.client; sys.exit('dagster' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_missing_tables_are_one_sentence(server: Server) -> None:
    server.ensure_database("test_client_bare")
    try:
        with connect(database_url=url_of(server, "test_client_bare")) as client:
            for ask in (client.markets, client.trades, client.strategies):
                with pytest.raises(AlgobotError, match="run `algobot db migrate`"):
                    ask()
    finally:
        server.drop_database("test_client_bare")

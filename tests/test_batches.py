"""Batches of windows: one transaction, a fixed number of statements, and a bad window is skipped alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta

import polars as pl
import psycopg
import pytest
from conftest import days, published_candles

from algobot_assets.cli.summary import StoredTables
from algobot_assets.errors import ArchivedError
from algobot_assets.feed.klines import from_published
from algobot_assets.pipeline.steps.parallel_writes import write_frames
from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store import copy, merge, roles
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.reader import read_window
from algobot_assets.store.retention.months import archive_month
from algobot_assets.store.writer import Record, WindowFrame, write_windows

FIRST = date(2024, 1, 30)
MARKETS = [f"M{number:02d}USDT" for number in range(60)]


def inputs(first: date = FIRST, number: int = 1) -> list[DayInputs]:
    return [DayInputs(day, midnight(day + timedelta(days=1))) for day in days(first, number)]


def candles(symbol: str, rows: int = 24, first: date = FIRST, seed: int = 1) -> WindowFrame:
    """A market's first hours of candles, as a day's window."""
    frame = from_published(published_candles(midnight(first), rows, seed=seed), symbol, "1h", where="a test")
    number = -(-rows // 24)
    window = Window("market_data", first, first + timedelta(days=number), symbol, "1h")
    return WindowFrame(window, frame, inputs(first, number))


def indicators(of: WindowFrame, value: float = 1.0) -> WindowFrame:
    rows = of.frame.select(
        "symbol", "interval", "timestamp", *(pl.lit(value).alias(name) for name in ("ema", "rsi", "atr", "vwap"))
    )
    return WindowFrame(of.window.in_table("indicators"), rows, of.days)


def stored(store: Store, item: WindowFrame) -> bool:
    return read_window(store, item.window, item.frame.columns).equals(item.frame)


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that this process sends, COPY included."""
    seen: list[str] = []
    execute, begin = psycopg.Cursor.execute, psycopg.Cursor.copy

    def executed(cursor: psycopg.Cursor, query: object, *args: object, **options: object) -> psycopg.Cursor:
        seen.append(query if isinstance(query, str) else query.as_string(cursor))
        return execute(cursor, query, *args, **options)

    def copied(cursor: psycopg.Cursor, query: object, *args: object, **options: object) -> object:
        seen.append(query if isinstance(query, str) else query.as_string(cursor))
        return begin(cursor, query, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", executed)
        patch.setattr(psycopg.Cursor, "copy", copied)
        yield seen


def test_the_number_of_statements_does_not_depend_on_the_number_of_windows(store):
    write_windows(store, [candles("BTCUSDT", first=month) for month in (date(2024, 3, 1), date(2024, 4, 1))])
    counts: dict[str, list[int]] = {"new": [], "changed": [], "unchanged": []}
    for number, month in ((3, date(2024, 3, 1)), (60, date(2024, 4, 1))):
        for kind, seed in (("new", 1), ("changed", 2), ("unchanged", 2)):
            items = [candles(symbol, first=month, seed=seed) for symbol in MARKETS[:number]]
            with statements() as seen:
                write_windows(store, items)
                write_windows(store, [indicators(item, seed) for item in items])
            counts[kind].append(len(seen))
            assert all(stored(store, item) for item in items)
    assert {kind: few == many for kind, (few, many) in counts.items()} == dict.fromkeys(counts, True), counts


def without(name: str) -> Callable[[WindowFrame], WindowFrame]:
    return lambda item: WindowFrame(item.window, item.frame.drop(name), item.days)


def test_one_bad_frame_among_sixty_is_named_and_the_rest_is_written(store):
    bad: dict[int, tuple[Callable[[WindowFrame], WindowFrame], str]] = {
        3: (without("close"), "M03USDT 1h, 2024-01-30 cannot be written: missing columns close"),
        17: (
            lambda i: WindowFrame(i.window, i.frame.with_columns(pl.lit(None, pl.Int32).alias("trades")), i.days),
            'Writing market_data of M17USDT 1h, 2024-01-30 failed in the database: null value in column "trades"',
        ),
        41: (
            lambda i: WindowFrame(i.window, candles(MARKETS[41], 30).frame, i.days),
            "M41USDT 1h, 2024-01-30: the frame has rows of 2024-01-31",
        ),
    }
    items = [candles(symbol) for symbol in MARKETS]
    for position, (spoil, _) in bad.items():
        items[position] = spoil(items[position])
    written = write_windows(store, items)
    assert set(written.errors) == set(bad)
    for position, (_, sentence) in bad.items():
        assert sentence in str(written.errors[position])
    assert written.inserted == 57 * 24
    for position, item in enumerate(items):
        assert stored(store, item) == (position not in bad)


def test_rows_without_their_candle_are_refused_and_the_rest_is_written(store):
    items = [candles(symbol) for symbol in MARKETS[:3]]
    write_windows(store, [items[0], items[2]])
    written = write_windows(store, [indicators(item) for item in items])
    assert {position: str(error) for position, error in written.errors.items()} == {
        1: "indicators of M01USDT 1h, 2024-01-30: 24 rows have no stored candle. None was written. Run it again."
    }
    assert stored(store, indicators(items[0])) and stored(store, indicators(items[2]))
    with store.transaction() as connection:  # each row refers to the candle of its own market and time
        wrong = connection.execute(
            """SELECT count(*) FROM indicators AS i LEFT JOIN market_data AS m ON m.id = i.market_data_id
                WHERE (m.symbol, m."interval", m."timestamp")
                      IS DISTINCT FROM (i.symbol, i."interval", i."timestamp")"""
        ).fetchone()
    assert wrong == (0,)


def test_an_archived_month_is_refused_and_other_windows_are_written(store, tmp_path):
    with Store(store.database, archive=str(tmp_path)) as own:
        write_windows(own, [candles(MARKETS[0])])
        archive_month(own, date(2024, 1, 1))
        april = candles(MARKETS[1], first=date(2024, 4, 1))
        written = write_windows(own, [candles(MARKETS[0], seed=2), april])
        assert isinstance(written.errors[0], ArchivedError) and set(written.errors) == {0}
        assert stored(own, april) and stored(own, candles(MARKETS[0]))


def test_rows_exchanged_between_two_markets_are_noticed(store, monkeypatch):
    honest = copy.copy_in

    def exchanged(connection: psycopg.Connection, table: str, frame: pl.DataFrame, **options: bool) -> None:
        other = pl.col("symbol").replace({"M00USDT": "M01USDT", "M01USDT": "M00USDT"})
        honest(connection, table, frame.with_columns(other), **options)

    monkeypatch.setattr(merge, "copy_in", exchanged)
    written = write_windows(store, [candles("M00USDT", seed=1), candles("M01USDT", seed=2), candles("M02USDT")])
    assert set(written.errors) == {0, 1}
    assert all("differs from what was sent" in str(error) for error in written.errors.values())
    assert stored(store, candles("M02USDT"))


def test_a_day_that_grows_writes_only_its_new_rows(store):
    write_windows(store, [candles(symbol, 10) for symbol in MARKETS[:2]])
    with statements() as seen:
        written = write_windows(store, [candles(symbol, 12) for symbol in MARKETS[:2]])
    assert (written.inserted, written.updated, written.deleted) == (4, 0, 0)
    assert not any(statement.startswith(("MERGE", "DELETE FROM market_data")) for statement in seen)
    assert all(stored(store, candles(symbol, 12)) for symbol in MARKETS[:2])
    changed = write_windows(store, [candles(MARKETS[0], 14, seed=2), candles(MARKETS[1], 14)])
    assert (changed.inserted, changed.updated) == (4, 12)
    assert stored(store, candles(MARKETS[0], 14, seed=2)) and stored(store, candles(MARKETS[1], 14))


def test_a_hand_made_row_in_the_place_of_a_new_one_is_replaced(store):
    item = candles(MARKETS[0], 10)
    write_windows(store, [item])
    with store.transaction() as connection:
        connection.execute(
            """INSERT INTO market_data (symbol, "interval", "timestamp", open, high, low, close, volume, close_time,
                                        quote_asset_volume, trades, taker_buy_base, taker_buy_quote, ignored)
               SELECT symbol, "interval", "timestamp" + interval '10 hours', 1, 1, 1, 1, 1, close_time, 1, 1, 1, 1, 0
                 FROM market_data WHERE "timestamp" = %s""",
            (midnight(FIRST),),
        )
    written = write_windows(store, [candles(MARKETS[0], 12)])
    assert (written.inserted, written.updated) == (1, 1)
    assert stored(store, candles(MARKETS[0], 12))


def test_a_market_that_fails_stops_and_the_others_go_on(store):
    """Its later windows start from a state that was not stored."""
    broken = without("close")(candles(MARKETS[0], first=date(2024, 1, 1)))
    items = [
        broken,
        candles(MARKETS[1], first=date(2024, 1, 1)),
        candles(MARKETS[0], first=date(2024, 2, 1)),
        candles(MARKETS[1], first=date(2024, 2, 1)),
        candles(MARKETS[0], first=date(2024, 3, 1)),
        candles(MARKETS[0], first=date(2024, 4, 1)),
        candles(MARKETS[0], first=date(2024, 5, 1)),
    ]
    done = list(write_frames(store, iter(items)))
    assert [str(error)[:45] for batch in done for error in batch.written.errors.values()] == [
        "The frame for market_data of M00USDT 1h, 2024"
    ]
    assert stored(store, items[1]) and stored(store, items[3])
    assert read_window(store, items[-1].window).is_empty()


@pytest.mark.parametrize("statement", ['DELETE FROM market_data WHERE "timestamp" = %s', "DELETE FROM strategies"])
def test_what_a_batch_refers_to_cannot_be_deleted_until_it_commits(store, statement: str):
    """A delete that comes in between waits, and then takes the batch's rows with it or is refused."""
    item = candles(MARKETS[0])
    with store.transaction() as connection:
        strategy = connection.execute(
            """INSERT INTO strategies (strategy_name, strategy_type, symbol, "interval", initial_balance,
                                       risk_per_trade, parameters, effective_from)
               VALUES ('a', 'ema_cross', 'M00USDT', '1h', 1, 0.01, '{}', %s) RETURNING id""",
            (FIRST,),
        ).fetchone()[0]
    write_windows(store, [item])
    rows = item.frame.select(
        pl.lit(strategy, pl.Int64).alias("strategy_id"),
        *("symbol", "interval", "timestamp"),
        pl.lit(0, pl.Int32).alias("signal"),
    )
    signals = WindowFrame(item.window.in_table("signals", strategy), rows, item.days)
    joined, goes_on = threading.Event(), threading.Event()
    outcome: list[object] = []

    def delete() -> None:
        joined.wait()
        try:
            with store.database.connect() as own, own.transaction():
                goes_on.set()
                parameters = (midnight(FIRST),) if "%s" in statement else ()
                outcome.append(own.execute(statement, parameters).rowcount)
        except psycopg.Error as error:
            outcome.append(error)

    thread = threading.Thread(target=delete)
    thread.start()

    def between(connection: psycopg.Connection, _: object) -> None:
        joined.set()
        goes_on.wait()
        for _ in range(200):
            waits = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]
            if waits:
                break
            connection.execute("SELECT pg_sleep(0.01)")
        assert waits, "the delete did not wait"

    write_windows(store, [WindowFrame(signals.window, rows, item.days, [Record(between, None)])])
    thread.join()
    with store.transaction() as connection:
        orphans = connection.execute(
            """SELECT count(*) FROM signals AS s WHERE NOT EXISTS (SELECT FROM market_data AS m
                WHERE m.id = s.market_data_id) OR NOT EXISTS (SELECT FROM strategies AS v WHERE v.id = s.strategy_id)"""
        ).fetchone()
    assert orphans == (0,)
    if "market_data" in statement:
        assert outcome == [1] and read_window(store, signals.window, ["timestamp"]).height == 23
    else:
        assert isinstance(outcome[0], psycopg.errors.ForeignKeyViolation)


def test_nobody_but_the_owners_function_may_leave_references_unchecked(store):
    with store.database.connect() as connection:  # another test may have taken the server's right away
        roles.establish(connection)
    with store.transaction() as connection:
        settings = connection.execute("SELECT proconfig FROM pg_proc WHERE proname = 'insert_staged'").fetchone()[0]
        assert "session_replication_role=replica" in settings
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
        with pytest.raises(psycopg.errors.RaiseException, match="not made by open_stage"), connection.transaction():
            connection.execute("CREATE TEMP TABLE staged_signals (strategy_id bigint) ON COMMIT DROP")
            connection.execute("SELECT insert_staged('signals', '2024-01-01', '2024-02-01')")
        connection.execute("SELECT open_stage('signals')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(
                "CREATE TRIGGER mine BEFORE INSERT ON pg_temp.staged_signals FOR EACH ROW "
                "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            )
    write_windows(store, [candles("BTCUSDT")])
    with pytest.raises(psycopg.errors.ForeignKeyViolation), store.transaction() as connection:  # by hand
        connection.execute(
            """INSERT INTO indicators (market_data_id, symbol, "interval", "timestamp")
               VALUES (4711, 'BTCUSDT', '1h', %s)""",
            (midnight(FIRST),),
        )


def test_without_the_right_references_are_checked_row_by_row(store):
    """As on a server where nobody may give the owner the right: the same rows, more slowly."""
    with store.database.connect() as connection:
        owner = connection.execute("SELECT proowner::regrole::text FROM pg_proc WHERE proname = 'insert_staged'")
        name = owner.fetchone()[0]
        connection.execute(f"REVOKE SET ON PARAMETER session_replication_role FROM {name}")
        connection.commit()
        try:
            items = [candles(symbol) for symbol in MARKETS[:2]]
            write_windows(store, items)
            assert not write_windows(store, [indicators(item) for item in items]).errors
            assert all(stored(store, indicators(item)) for item in items)
            found = StoredTables.read(store)
            assert found.row_by_row and found.document()["references_checked"] == "row by row"
        finally:
            connection.execute(f"GRANT SET ON PARAMETER session_replication_role TO {name}")
            connection.commit()
    with store.transaction() as connection:
        assert roles.joins_prove_references(connection)

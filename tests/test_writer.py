"""Windows: written exactly, changed only where they differ, old or new and never half."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import psycopg
import pytest
from conftest import days, published_candles

from algobot_assets.audit.rules.check_run import CheckRun
from algobot_assets.errors import ArchivedError, StoreError
from algobot_assets.feed.klines import from_published
from algobot_assets.schema.frames import schema_of
from algobot_assets.schema.intervals import midnight
from algobot_assets.schema.windows import Window
from algobot_assets.store import copy, merge, writer
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.records import DayInputs
from algobot_assets.store.reader import query, read_window
from algobot_assets.store.retention.months import archive_month
from algobot_assets.store.writer import write_window

FIRST = date(2024, 1, 30)
WINDOW = Window("market_data", FIRST, FIRST + timedelta(days=4), "BTCUSDT", "1h")


def candles(rows: int = 96, seed: int = 1) -> pl.DataFrame:
    published = published_candles(midnight(FIRST), rows, seed=seed)
    return from_published(published, "BTCUSDT", "1h", where="a test")


def inputs(first: date = FIRST, number: int = 4) -> list[DayInputs]:
    return [DayInputs(day, midnight(day + timedelta(days=1))) for day in days(first, number)]


def ids(store: Store) -> dict[datetime, tuple[int, datetime]]:
    with store.transaction() as connection:
        rows = connection.execute('SELECT "timestamp", id, updated_at FROM market_data').fetchall()
    return {opened: (number, updated) for opened, number, updated in rows}


def test_what_is_written_is_read_back_exactly(store):
    frame = candles()
    written = write_window(store, WINDOW, frame, inputs())
    assert (written.rows, written.inserted, written.changed) == (96, 96, 96)
    assert read_window(store, WINDOW).equals(frame)


def test_both_readers_give_the_same_frame(store):
    write_window(store, WINDOW, candles(), inputs())
    schema = schema_of("market_data")
    names = ", ".join(f'"{name}"' for name in schema)
    by_connectorx = query(store, f'SELECT {names} FROM market_data ORDER BY "timestamp"', schema=schema)
    assert by_connectorx.equals(read_window(store, WINDOW))


@pytest.mark.parametrize("binary", [True, False])
def test_extreme_values_survive_both_encoders(store, binary):
    numbers = ["0.00000001", "-999999999999.99999999", "999999999999.99999999", "1000000000", "0", None]
    frame = pl.DataFrame(
        {
            "d": pl.Series(numbers).cast(pl.Decimal(20, 8)),
            "q": pl.Series(["99999999999999999999.99999999", *numbers[1:]]).cast(pl.Decimal(28, 8)),
            "f": pl.Series([0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, None]),
            "t": pl.Series(
                [datetime(2024, 1, 1, 0, 0, 0, i, tzinfo=UTC) for i in range(6)],
                dtype=pl.Datetime("us", "UTC"),
            ),
            "s": ["plain", 'quo"te', "com,ma", "line\nbreak", "", None],
            "b": [True, False, None, True, False, True],
            "i": pl.Series([2**31 - 1, -(2**31), 0, 1, None, 2], dtype=pl.Int32),
            "a": pl.Series([date(1970, 1, 1), date(2100, 1, 1), None, date(2024, 2, 29), date(2017, 7, 1), None]),
            "n": range(6),
        }
    )
    with store.transaction() as connection:
        connection.execute(
            "CREATE TEMP TABLE v (d numeric(20,8), q numeric(28,8), f float8, t timestamptz, s text, b boolean, i int, "
            "a date, n bigint)"
        )
        copy.copy_in(connection, "v", frame, binary=binary)
        texts = connection.execute("SELECT d::text, q::text FROM v ORDER BY n").fetchall()
        columns = psycopg.sql.SQL("SELECT {} FROM v ORDER BY n").format(copy.select_columns(frame.schema))
        back = copy.copy_out(connection, columns, (), dict(frame.schema))
    for (d, q), number in zip(texts, numbers, strict=True):
        assert d is None if number is None else Decimal(d) == Decimal(number)
        if q is not None and d is not None and number != numbers[0]:
            assert Decimal(q) == Decimal(number)
    assert texts[0][1] == "99999999999999999999.99999999"
    assert back.equals(frame)
    assert np.array_equal(back["f"].to_numpy().view(np.int64), frame["f"].to_numpy().view(np.int64))


def test_writing_again_writes_nothing_and_keeps_ids(store):
    write_window(store, WINDOW, candles(), inputs())
    before = ids(store)
    assert write_window(store, WINDOW, candles().reverse(), inputs()).changed == 0
    assert ids(store) == before


def test_only_what_differs_changes(store):
    frame = candles()
    write_window(store, WINDOW, frame, inputs())
    before = ids(store)
    changed, gone = frame["timestamp"][30], frame["timestamp"][50]
    other = frame.with_columns(
        pl.when(pl.col("timestamp") == changed)
        .then(pl.col("volume") + pl.lit("0.00000001").cast(pl.Decimal(28, 8)))
        .otherwise(pl.col("volume"))
        .cast(pl.Decimal(28, 8))
        .alias("volume")
    ).filter(pl.col("timestamp") != gone)
    written = write_window(store, WINDOW, other, inputs())
    assert (written.inserted, written.updated, written.deleted) == (0, 1, 1)
    assert read_window(store, WINDOW).equals(other)
    after = ids(store)
    assert gone not in after
    assert {t for t in after if after[t] != before[t]} == {changed}
    assert after[changed][0] == before[changed][0]
    written = write_window(store, WINDOW, frame, inputs())
    assert (written.inserted, written.updated, written.deleted) == (1, 1, 0)


def test_days_not_named_are_left_alone(store):
    frame = candles()
    write_window(store, WINDOW, frame, inputs())
    second = days(FIRST, 2)[1]
    part = WINDOW.of(second, second + timedelta(days=1))
    written = write_window(store, part, frame.clear(), inputs(second, 1))
    assert written.deleted == 24
    assert read_window(store, WINDOW).height == 72


def test_rows_outside_of_the_window_are_refused(store):
    with pytest.raises(StoreError, match="outside its days"):
        write_window(store, WINDOW, candles(120), inputs())
    assert read_window(store, WINDOW).is_empty()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("close"), "missing columns close"),
        (lambda f: f.with_columns(extra=1), "unknown columns extra"),
        (lambda f: f.with_columns(pl.col("close").cast(pl.Float64)), "close is Float64, must be Decimal"),
        (lambda f: f.with_columns(pl.col("timestamp").dt.replace_time_zone(None)), "timestamp is Datetime"),
    ],
)
def test_wrong_columns_and_dtypes_are_said(store, change, message):
    with pytest.raises(StoreError, match=message):
        write_window(store, WINDOW, change(candles()), inputs())


def test_a_value_that_does_not_fit_leaves_everything_as_it_was(store):
    write_window(store, WINDOW, candles(), inputs())
    before = read_window(store, WINDOW)
    bad = candles(seed=2).with_columns(pl.lit(None, dtype=pl.Int32).alias("trades"))
    with pytest.raises(StoreError, match="null value"):
        write_window(store, WINDOW, bad, inputs())
    assert read_window(store, WINDOW).equals(before)


def test_an_encoder_that_changes_a_digit_is_caught(store, monkeypatch):
    honest = copy.copy_in

    def lossy(connection, table, frame, **options):
        cents = pl.col("close").cast(pl.Decimal(20, 2)).cast(pl.Decimal(20, 8))
        honest(connection, table, frame.with_columns(cents), **options)

    tiny = pl.lit("0.00000001").cast(pl.Decimal(20, 8))
    frame = candles().with_columns((pl.col("close") + tiny).cast(pl.Decimal(20, 8)))
    monkeypatch.setattr(merge, "copy_in", lossy)
    with pytest.raises(StoreError, match="differs from what was sent"):
        write_window(store, WINDOW, frame, inputs())
    assert read_window(store, WINDOW).is_empty()


def test_sums_beyond_every_column_type_are_compared_exactly(store):
    """Every column at the bound of its type: the sums leave 32 bits, 64 bits and the columns' own digits."""
    largest = pl.lit("99999999999999999999.99999999").cast(pl.Decimal(28, 8))
    volumes = [name for name, dtype in schema_of("market_data").items() if dtype == pl.Decimal(28, 8)]
    for trades, seed in ((2**31 - 1, 1), (2**31 - 2, 2)):  # copied in, then merged
        frame = candles(seed=seed).with_columns(
            pl.lit(trades, dtype=pl.Int32).alias("trades"), *(largest.alias(name) for name in volumes)
        )
        assert write_window(store, WINDOW, frame, inputs()).changed == 96
        assert read_window(store, WINDOW).equals(frame)


def test_ids_at_the_end_of_their_type_are_compared_exactly(store):
    with store.database.connect() as connection:
        connection.execute(f"ALTER TABLE market_data ALTER COLUMN id RESTART WITH {2**63 - 96}")
    write_window(store, WINDOW, candles(), inputs())
    opens = read_window(store, WINDOW, ["timestamp", "id"])
    assert opens["id"].max() == 2**63 - 1
    window = Window("indicators", WINDOW.first, WINDOW.end, "BTCUSDT", "1h")
    dtypes = schema_of("indicators")
    for value in (0.5, np.nextafter(0.5, 1), -1.7976931348623157e308):
        known = {"symbol": pl.lit("BTCUSDT"), "interval": pl.lit("1h"), "market_data_id": pl.col("id")}
        known |= {name: pl.lit(value) for name, dtype in dtypes.items() if dtype == pl.Float64}
        known["timestamp"] = pl.col("timestamp")
        frame = opens.select(**known).select(
            pl.col(name).cast(dtype) if name in known else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in dtypes.items()
        )
        assert write_window(store, window, frame, inputs()).changed == 96
        assert read_window(store, window).equals(frame)
    run = CheckRun("indicators", store, WINDOW.first, WINDOW.end, ())
    rows, candles_ = run.per_day([window])[window], run.per_day([WINDOW])[WINDOW]
    assert rows["links"].equals(candles_["links"]) and rows["links"][3] == sum(opens["id"][72:])


def test_a_month_archived_between_plan_and_write_is_refused(store, tmp_path, monkeypatch):
    january, changed, calls = date(2024, 1, 1), candles(seed=2), []
    with Store(store.database, archive=str(tmp_path)) as own:
        write_window(own, WINDOW, candles(), inputs())
        with own.transaction() as connection:
            writer.refuse_archived(connection, WINDOW, changed, inputs())  # when planned, nothing was archived
        monkeypatch.setattr(writer, "ensure_months", lambda *_: archive_month(own, january))
        with pytest.raises(ArchivedError, match=r"2024-01-30 to 2024-01-31: the month is archived.* 2024-01`"):
            write_window(own, WINDOW, changed, inputs(), calls.append)
        assert read_window(own, WINDOW).equals(candles())
        with own.transaction() as connection:
            with pytest.raises(ArchivedError, match="`algobot restore 2024-01`"):
                writer.refuse_archived(connection, WINDOW, changed, inputs())
            writer.refuse_archived(connection, WINDOW, candles(), inputs())
        assert write_window(own, WINDOW, candles(), inputs(), calls.append).changed == 0
        assert calls == [], "an archived month that stays as it is needs nothing else written"
        february = pl.concat([candles().head(48), changed.tail(48)])
        assert write_window(own, WINDOW, february, inputs(), calls.append).updated == 48
        assert len(calls) == 1 and read_window(own, WINDOW).equals(february)


def test_days_apart_are_merged_in_one_transaction_and_compared(store, monkeypatch):
    before, other = candles(), candles(seed=2)
    write_window(store, WINDOW, before, inputs())
    apart = pl.concat([other[:24], before[24:48], other[48:72], before[72:]])
    assert write_window(store, WINDOW, apart, inputs()).updated == 48
    assert read_window(store, WINDOW).equals(apart)
    honest = copy.copy_in
    monkeypatch.setattr(merge, "copy_in", lambda c, table, frame, **o: honest(c, table, frame.head(5), **o))
    with pytest.raises(StoreError, match="differs from what was sent"):
        write_window(store, WINDOW, before, inputs())
    assert read_window(store, WINDOW).equals(apart)


def test_lineage_is_written_with_the_rows(store):
    state = np.array([0.1, np.nan, -0.0, 5e-324])
    first = DayInputs(FIRST, midnight(FIRST + timedelta(days=1)), b"in", b"parameters", "code", b"state", state)
    write_window(store, WINDOW.of(FIRST, FIRST + timedelta(days=1)), candles(24), [first])
    with store.transaction() as connection:
        recorded = lineage.read(connection, WINDOW)
    assert list(recorded) == [FIRST]
    assert recorded[FIRST].same_inputs(first)
    assert recorded[FIRST].is_complete
    assert recorded[FIRST].rows == 24
    assert recorded[FIRST].state_out.tobytes() == state.tobytes()


def test_a_week_reaches_into_the_month_before(store):
    window = Window("market_data", date(2024, 2, 1), date(2024, 2, 12), "BTCUSDT", "1w")
    frame = from_published(
        published_candles(datetime(2024, 1, 29, tzinfo=UTC), 2, minutes=7 * 1440),
        "BTCUSDT",
        "1w",
        where="a test",
    )
    written = write_window(store, window, frame, inputs(date(2024, 2, 1), 11))
    assert written.rows == 2
    assert read_window(store, window).equals(frame)


def test_concurrent_writers_of_one_window_wait_for_one_another(database_url, store):
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            with Store.open(run_id=str(seed)) as own:
                for turn in range(3):
                    write_window(own, WINDOW, candles(seed=seed * 10 + turn), inputs())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    final = read_window(store, WINDOW)
    assert any(final.equals(candles(seed=seed * 10 + 2)) for seed in range(4))


def closed_trades(strategy: int, day: date, entries: list[datetime]) -> pl.DataFrame:
    """Trades of a day, all alike but for their entry."""
    row = dict.fromkeys(schema_of("trade_history"), Decimal(1)) | {
        "strategy_id": strategy,
        "day": day,
        "symbol": "BTCUSDT",
        "interval": "1h",
        "exit_time": midnight(day),
        "position_type": "long",
        "entry_signal_time": midnight(FIRST),
        "exit_signal_time": None,
        "exit_reason": "signal",
        "ambiguous": False,
    }
    return pl.DataFrame([row | {"entry_time": entry} for entry in entries], schema=schema_of("trade_history"))


def test_a_trade_that_closes_on_another_day_keeps_its_id(store):
    with store.transaction() as connection:
        strategy = connection.execute(
            """INSERT INTO strategies (strategy_name, strategy_type, symbol, "interval", initial_balance,
                                       risk_per_trade, parameters, effective_from)
               VALUES ('a', 'ema_cross', 'BTCUSDT', '1h', 1, 0.01, '{}', %s) RETURNING id""",
            (FIRST,),
        ).fetchone()[0]
    later = FIRST + timedelta(days=1)
    entries = [midnight(FIRST) + timedelta(hours=n) for n in range(3)]

    def write(day: date, of: list[datetime]) -> writer.Written:
        window = Window("trade_history", day, day + timedelta(days=1), strategy_id=strategy)
        return write_window(store, window, closed_trades(strategy, day, of), inputs(day, 1))

    def stored() -> dict[datetime, tuple[int, date]]:
        with store.transaction() as connection:
            rows = connection.execute("SELECT entry_time, id, day FROM trade_history").fetchall()
        return {entry: (number, day) for entry, number, day in rows}

    assert write(FIRST, entries[:2]).inserted == 2
    before = stored()
    moved = write(later, entries[1:])
    assert (moved.inserted, moved.updated, moved.deleted) == (1, 1, 0)
    after = stored()
    assert after[entries[0]] == before[entries[0]]
    assert after[entries[1]] == (before[entries[1]][0], later)
    assert after[entries[2]][1] == later

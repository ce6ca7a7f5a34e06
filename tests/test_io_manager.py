"""The IO manager inside of real Dagster runs: frames in, tables out, and sentences where something is missing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from conftest import START, published_candles

from algobot_assets.defs.partitions import RANGE_END, RANGE_START, daily
from algobot_assets.defs.resources import build_resources
from algobot_assets.errors import StoreError, WindowError
from algobot_assets.feed.klines import from_published
from algobot_assets.pipeline.steps.frames import Frames
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import midnight

FIRST = date(2024, 1, 30)


def frame_asset(frame: pl.DataFrame):
    """market_data as a user would write it: returns a frame of the run's days."""

    @dg.multi_asset(
        name="market_data",
        outs={"market_data": dg.AssetOut(io_manager_key="io_manager")},
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def market_data(context) -> pl.DataFrame:
        window = context.partition_time_window
        return frame.filter(pl.col("timestamp").is_between(window.start, window.end, closed="left"))

    return market_data


def reading_asset(kind: type, seen: list):
    """An asset that takes market_data as ``kind`` and keeps what it was given."""

    def reader(market_data):
        seen.append(market_data)

    reader.__annotations__["market_data"] = kind
    return dg.multi_asset(
        name="reader",
        outs={"reader": dg.AssetOut(is_required=False, dagster_type=dg.Nothing)},
        ins={"market_data": dg.AssetIn(key="market_data", input_manager_key="io_manager")},
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )(reader)


def candles(symbol: str = "BTCUSDT", seed: int = 1) -> pl.DataFrame:
    return from_published(published_candles(midnight(FIRST), 96, seed=seed), symbol, "1h", where="a test")


def run(assets, instance, first=None, last=None, **options):
    tags = {} if first is None else {RANGE_START: str(first), RANGE_END: str(last or first)}
    return dg.materialize(assets, instance=instance, resources=build_resources(), tags=tags, **options)


def test_a_frame_is_persisted_for_a_range_and_counted_per_partition(store, dagster_instance):
    both = pl.concat([candles(), candles("ETHUSDT", 2)])
    result = run([frame_asset(both)], dagster_instance, FIRST, FIRST + timedelta(days=3))
    with store.transaction() as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT symbol) FROM market_data").fetchone() == (
            192,
            2,
        )
    counts = {
        event.partition: event.materialization.metadata["dagster/partition_row_count"].value
        for event in result.asset_materializations_for_node("market_data")
        for event in [type("E", (), {"partition": event.partition, "materialization": event})]
    }
    assert counts == {str(FIRST + timedelta(days=i)): 48 for i in range(4)}


def test_what_is_said_of_a_whole_run_is_recorded_only_with_the_last_day(store, dagster_instance):
    last = FIRST + timedelta(days=3)
    result = run([frame_asset(candles())], dagster_instance, FIRST, last)
    events = result.asset_materializations_for_node("market_data")
    said = {event.partition: set(event.metadata) for event in events}
    assert {day for day, names in said.items() if "preview" in names} == {str(last)}
    assert "rows inserted" in said[str(last)] and all("dagster/partition_row_count" in names for names in said.values())


def test_a_single_day_leaves_the_others_alone(store, dagster_instance):
    run([frame_asset(candles())], dagster_instance, FIRST, FIRST + timedelta(days=3))
    run([frame_asset(candles().clear())], dagster_instance, FIRST + timedelta(days=1))
    with store.transaction() as connection:
        rows = connection.execute(
            'SELECT "timestamp"::date, count(*) FROM market_data GROUP BY 1 ORDER BY 1'
        ).fetchall()
    assert rows == [(FIRST + timedelta(days=i), 24) for i in (0, 2, 3)]


@pytest.mark.parametrize("kind", [pl.DataFrame, pl.LazyFrame, Table])
def test_the_annotation_chooses_how_an_input_comes(store, dagster_instance, kind):
    seen: list = []
    run(
        [frame_asset(candles()), reading_asset(kind, seen)],
        dagster_instance,
        FIRST,
        FIRST + timedelta(days=1),
    )
    (given,) = seen
    assert isinstance(given, kind)
    if kind is pl.DataFrame:
        assert given.equals(candles().head(48))
    else:
        assert given.name == "market_data" if kind is Table else given.collect_schema().names()[0] == "symbol"


def test_a_lazy_input_reads_only_what_is_asked_for(store, dagster_instance):
    run([frame_asset(candles())], dagster_instance, FIRST, FIRST + timedelta(days=3))
    lazy = Table(store, "market_data", FIRST, FIRST + timedelta(days=4)).lazy()
    got = lazy.filter(pl.col("close") > 0).select("timestamp", "volume").head(30).collect()
    assert got.equals(candles().select("timestamp", "volume").head(30))


def test_an_input_that_is_not_materialised_names_the_remedy(store, dagster_instance):
    with pytest.raises(WindowError, match="market_data has nothing for 2024-01-30: materialise market_data"):
        Table(store, "market_data", FIRST, FIRST + timedelta(days=1)).frame()
    seen: list = []
    result = run(
        [frame_asset(candles()), reading_asset(pl.DataFrame, seen)],
        dagster_instance,
        FIRST,
        selection=["reader"],
        raise_on_error=False,
    )
    assert not result.success
    assert not seen


def test_a_run_without_a_partition_is_refused(database_url, dagster_instance):
    asset = frame_asset(candles())

    @dg.multi_asset(
        name="market_data",
        outs={"market_data": dg.AssetOut(io_manager_key="io_manager")},
        partitions_def=daily,
    )
    def market_data() -> pl.DataFrame:
        return candles()

    assert asset is not None
    with pytest.raises(WindowError, match=r"needs a partition\. Choose a day"):
        run([market_data], dagster_instance)


def test_wrong_frames_are_refused_with_the_reason(store, dagster_instance):
    for frame, reason in (
        (candles().drop("symbol"), "lack symbol"),
        (candles().with_columns(pl.col("open").cast(pl.Float64)), "open is Float64"),
    ):
        with pytest.raises(StoreError, match=reason):
            run([frame_asset(frame)], dagster_instance, FIRST)


def test_an_output_that_is_no_frame_is_refused(database_url, dagster_instance):
    @dg.multi_asset(
        name="market_data",
        outs={"market_data": dg.AssetOut(io_manager_key="io_manager")},
        partitions_def=daily,
    )
    def market_data():
        return [1, 2, 3]

    with pytest.raises(WindowError, match="returned list"):
        run([market_data], dagster_instance, FIRST)


def test_an_unknown_table_is_refused(database_url, dagster_instance):
    @dg.multi_asset(name="candels", outs={"candels": dg.AssetOut(io_manager_key="io_manager")}, partitions_def=daily)
    def candels() -> pl.DataFrame:
        return candles()

    with pytest.raises(WindowError, match="candels is not a table of this platform"):
        run([candels], dagster_instance, FIRST)


def test_frames_are_written_as_they_are_made(store, dagster_instance, project):
    project.run(START, START + timedelta(days=2))
    table = Table(store, "market_data", START, START + timedelta(days=3))
    assert table.frame().height == 72
    assert isinstance(Frames([]), Frames)
    assert table.recorded()[0].symbol == "BTCUSDT"
    assert datetime(2024, 1, 30, tzinfo=UTC) == table.frame()["timestamp"][0]

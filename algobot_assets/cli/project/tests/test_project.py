"""A week from simulated candles to backtests, on a real PostgreSQL that is deleted afterwards."""

import dagster as dg
import pytest
from algobot_assets.client import connect
from algobot_assets.defs.assets import TABLES
from algobot_assets.defs.resources import build_resources
from algobot_assets.testing import temporary_database

WEEK = {
    "dagster/asset_partition_range_start": "2024-01-01",
    "dagster/asset_partition_range_end": "2024-01-07",
}


@pytest.fixture(scope="session", autouse=True)
def database(tmp_path_factory):
    """Run all tests on a database of their own."""
    with temporary_database(tmp_path_factory.mktemp("algobot")):
        yield


def test_every_closed_candle_has_a_signal():
    """Materialise the nine tables and read the signals back."""
    assert dg.materialize(TABLES, tags=WEEK, resources=build_resources()).success
    with connect() as client:
        signals = client.signals("BTCUSDT", "1h", strategy="btc_dip").frame
    assert signals.height == 7 * 24
    assert set(signals["signal"]) <= {-1, 0, 1}

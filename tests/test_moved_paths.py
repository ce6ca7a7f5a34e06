"""Module paths that users wrote down with the release before keep working, with a DeprecationWarning each."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._serdes import ConfigurableClassData

from algobot_assets.compute.strategies import load_strategy_file, strategy_types
from algobot_assets.defs.instance.queue import ChainedRunCoordinator
from algobot_assets.defs.instance.storage import AlgobotDagsterStorage

#: What dagster.yaml and deploy/celery/dagster.yaml of the release before say about classes of this package.
DAGSTER_YAML = """
storage:
  custom:
    module: algobot_assets.store.dagster_storage
    class: AlgobotDagsterStorage
    config: {}
run_coordinator:
  module: algobot_assets.automation.queue
  class: ChainedRunCoordinator
"""
#: customRunCoordinator in deploy/kubernetes/values.yaml of the release before.
VALUES_YAML = (
    "customRunCoordinator: {module: algobot_assets.automation.queue, class: ChainedRunCoordinator, config: {}}"
)
#: examples/dip.py of the release before.
DIP = '''"""Buy dips of an uptrend, sell when the RSI has recovered."""

from algobot_assets.compute.strategy import BUY, SELL, Parameter, strategy, window


@strategy(
    "dip_of_before",
    parameters={"trend": window(200), "low": Parameter(35.0, 0, 100), "high": Parameter(60.0, 0, 100)},
    indicators=["rsi"],
)
def dip(bars, p):
    """Buy where the RSI falls below `low` while the close is above its average, sell where it rises above `high`."""
    rsi = bars.indicator("rsi")
    rising = bars.close > bars.ema(bars.close, p.trend)
    return bars.decide(
        (BUY, rising & bars.crosses_below(rsi, p.low)),
        (SELL, bars.crosses_above(rsi, p.high)),
    )
'''


def forget(*names: str) -> None:
    """Let the next import of these modules be the first one."""
    for name in names:
        sys.modules.pop(name, None)


def test_the_storage_and_queue_of_the_last_dagster_yaml_are_loaded_with_a_warning():
    found = yaml.safe_load(DAGSTER_YAML)
    for entry, wanted in (
        (found["storage"]["custom"], AlgobotDagsterStorage),
        (found["run_coordinator"], ChainedRunCoordinator),
        (yaml.safe_load(VALUES_YAML)["customRunCoordinator"], ChainedRunCoordinator),
    ):
        forget("algobot_assets.automation", entry["module"])
        with pytest.warns(
            DeprecationWarning, match=entry["module"].replace(".", r"\.") + r" is now algobot_assets\.defs"
        ):
            module = importlib.import_module(entry["module"])
        assert getattr(module, entry["class"]) is wanted


def test_dagster_makes_the_queue_of_an_old_dagster_yaml():
    entry = yaml.safe_load(DAGSTER_YAML)["run_coordinator"]
    forget("algobot_assets.automation", entry["module"])
    data = ConfigurableClassData(entry["module"], entry["class"], "{}")
    with pytest.warns(DeprecationWarning, match="automation.queue is now"):
        assert isinstance(data.rehydrate(as_type=dg._core.run_coordinator.RunCoordinator), ChainedRunCoordinator)


def test_a_strategy_file_of_the_release_before_is_loaded(tmp_path: Path):
    path = tmp_path / "dip_of_before.py"
    path.write_text(DIP)
    assert load_strategy_file(str(path)) == ("dip_of_before",) or "dip_of_before" in strategy_types()


def test_documented_imports_are_where_they_were_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from algobot_assets.client import Client
        from algobot_assets.compute.strategy import BUY, SELL, Parameter, strategy, window
        from algobot_assets.definitions import build_defs, defs
    assert all((BUY, SELL, Parameter, strategy, window, Client, build_defs, defs))


def test_an_unknown_module_is_still_an_import_error():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("algobot_assets.automation.nothing")

"""What Dagster loads: all assets, checks, schedules and sensors with their resources.

``build_defs`` composes them; production calls it bare, tests with overrides. Nothing is opened or read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from algobot_assets.assets import market, monitoring, reference, reports, trading
from algobot_assets.automation.abandoned import abandoned_runs
from algobot_assets.automation.alerts import alerts
from algobot_assets.automation.reports import report_job, report_schedule
from algobot_assets.automation.retention import retention, retention_schedule
from algobot_assets.automation.schedules import JOBS, SCHEDULES
from algobot_assets.automation.sensors import SENSORS
from algobot_assets.automation.trials import TRIALS
from algobot_assets.checks import CHECKS
from algobot_assets.io_manager import PostgresIOManager
from algobot_assets.resources import DatabaseResource, FeedResource, StateResource

#: The nine tables as assets, in the order in which one follows from another.
TABLES = (
    reference.configurations,
    reference.strategies,
    reference.risk_parameters,
    market.market_data,
    market.indicators,
    market.signals,
    trading.trade_history,
    trading.performance_metrics,
    trading.backtest_results,
)


def build_resources(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The resources of the assets; ``overrides`` replaces some by name (database, feed, state, io_manager)."""
    return {
        "database": DatabaseResource(),
        "io_manager": PostgresIOManager(),
        "feed": FeedResource(),
        "state": StateResource(),
        **(overrides or {}),
    }


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything Dagster needs to know; see the module's text."""
    return dg.Definitions(
        assets=[*TABLES, monitoring.database_health, reports.tear_sheets],
        asset_checks=[*CHECKS],
        jobs=[*JOBS, retention, report_job, *TRIALS],
        schedules=[*SCHEDULES, retention_schedule, report_schedule],
        sensors=[*SENSORS, alerts, abandoned_runs],
        resources=build_resources(resource_overrides),
        executor=dg.in_process_executor,
    )


defs = build_defs()

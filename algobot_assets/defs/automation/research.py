"""Jobs that run a sweep or a walk-forward from the UI, with their settings as run configuration."""

# no postponed annotations: Dagster reads the class of an op's configuration from its annotations
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import dagster as dg
from pydantic import Field

from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.research.request import Request
from algobot_assets.research.sweep import sweep
from algobot_assets.research.walk_forward import walk_forward

_LOG_SECONDS = 5.0


class TrialConfig(dg.Config):
    """The grid and range of a sweep: the options of `algobot sweep`."""

    strategy: str = Field(description="A stored strategy, a type such as ema_cross, or the path of a Python file.")
    parameters: dict[str, str] = Field({}, description="Strategy parameters with values such as 5:50:5 or 5,8,13.")
    risk: dict[str, str] = Field({}, description="Risk parameters with values, likewise.")
    market: str = Field("", description="For example BTCUSDT 1h. Default: the strategy's.")
    first: str = Field("", description="First day of trading, YYYY-MM-DD. Default: the first stored.")
    last: str = Field("", description="Last day, YYYY-MM-DD. Default: the newest stored.")
    balance: str = Field("", description="Initial capital. Default: the strategy's, or 10000.")
    metric: str = Field("sharpe_ratio", description="Figure to rank or choose by, highest first.")
    least_trades: int = Field(0, description="Minimum number of closed trades.")

    def request(self) -> Request:
        """Build the request from these settings."""
        return Request(
            self.strategy,
            [f"{name}={values}" for name, values in self.parameters.items()],
            [f"{name}={values}" for name, values in self.risk.items()],
            self.market or None,
            date.fromisoformat(self.first) if self.first else None,
            date.fromisoformat(self.last) if self.last else None,
            Decimal(self.balance) if self.balance else None,
        )


class WalkForwardConfig(TrialConfig):
    """The settings of a sweep, and the windows of a walk-forward."""

    train_days: int = Field(180, description="Days in a train window.")
    test_days: int = Field(30, description="Days in the test window after it.")
    anchored: bool = Field(False, description="Start every train window on the first day, so that it grows.")


def _progress(context: dg.OpExecutionContext) -> Callable[[int, int], None]:
    """Return a callback that logs the progress every few seconds."""
    said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said >= _LOG_SECONDS:
            said = time.monotonic()
            context.log.info(f"{done:,} of {total:,} combinations ({100 * done / max(1, total):.0f} %).")

    return tell


@dg.op(name="compute_sweep", description="Backtests a strategy with every combination of a grid and ranks the results.")
def sweep_op(context: dg.OpExecutionContext, config: TrialConfig, database: DatabaseResource) -> None:
    """Run a sweep, resuming an interrupted one with the same settings."""
    ranked = sweep(
        database.store,
        config.request(),
        metric=config.metric,
        least_trades=config.least_trades,
        progress=_progress(context),
    )
    metadata = {
        "sweep_id": ranked.sweep_id,
        "combinations": len(ranked.trial.grid),
        "computed now": ranked.computed,
        "deflated Sharpe ratio of the best": "-" if ranked.deflated is None else ranked.deflated,
        "best": dg.MetadataValue.md(_markdown(ranked.frame.rows(named=True))),
    }
    context.add_output_metadata(metadata)


@dg.op(name="compute_walk_forward", description="Chooses parameters on train windows and tests them after each.")
def walk_forward_op(context: dg.OpExecutionContext, config: WalkForwardConfig, database: DatabaseResource) -> None:
    """Run a walk-forward; store its windows, joined result and equity curve."""
    found = walk_forward(
        database.store,
        config.request(),
        config.train_days,
        config.test_days,
        anchored=config.anchored,
        metric=config.metric,
        least_trades=config.least_trades,
        progress=_progress(context),
    )
    rows = [
        {"test from": window.fold.test_first, "in train": window.train_metric, "in test": window.result[config.metric]}
        for window in found.windows
    ]
    metadata = {
        "walk_forward_id": found.id,
        "combinations": len(found.trial.grid),
        "deflated Sharpe ratio": "-" if found.deflated is None else found.deflated,
        "looks ahead": found.ahead is not None,
        "joined": dg.MetadataValue.md(_markdown([found.joined])),
        "windows": dg.MetadataValue.md(_markdown(rows)),
    }
    context.add_output_metadata(metadata)


def _markdown(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "none"
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join("-" if value is None else str(value) for value in row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


@dg.job(name="sweep", description="Runs a parameter sweep, configured in the launchpad.")
def sweep_job() -> None:
    """Run sweep_op."""
    sweep_op()


@dg.job(name="walk_forward", description="Runs a walk-forward, configured in the launchpad.")
def walk_forward_job() -> None:
    """Run walk_forward_op."""
    walk_forward_op()


TRIALS = (sweep_job, walk_forward_job)

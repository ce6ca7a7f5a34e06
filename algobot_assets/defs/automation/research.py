"""Jobs that try parameters, for the UI: a sweep and a walk-forward, with their settings as run configuration.

Here: run configuration and its log. Not here: the work (sweeping.py, walk_forward.py).
"""

# no postponed annotations: Dagster reads the class of an op's configuration from them
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal

import dagster as dg
from pydantic import Field

from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.research.request import Request
from algobot_assets.research.sweep import sweep
from algobot_assets.research.walk_forward import walk_forward

_LOG_SECONDS = 5.0


class TrialConfig(dg.Config):
    """What to try; as the options of `algobot sweep`."""

    strategy: str = Field(description="A stored strategy, a type such as ema_cross, or the path of a Python file.")
    parameters: dict[str, str] = Field({}, description="Strategy parameters with values such as 5:50:5 or 5,8,13.")
    risk: dict[str, str] = Field({}, description="Risk parameters, likewise.")
    market: str = Field("", description="Such as BTCUSDT 1h; default: the strategy's.")
    first: str = Field("", description="First day of trading, 2024-01-31; default: the first stored.")
    last: str = Field("", description="Last day; default: the newest stored.")
    balance: str = Field("", description="Capital at the start; default: the strategy's, or 10000.")
    metric: str = Field("sharpe_ratio", description="Figure to rank or choose by, the greatest first.")
    least_trades: int = Field(0, description="Only combinations with as many closed trades.")

    def request(self) -> Request:
        """The request these settings stand for."""
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
    """A sweep's settings and the windows."""

    train_days: int = Field(180, description="Days of a train window.")
    test_days: int = Field(30, description="Days of the test window after it.")
    anchored: bool = Field(False, description="Whether every train window begins on the first day and grows.")


def _progress(context: dg.OpExecutionContext) -> Callable[[int, int], None]:
    """Log how far it is, at most every few seconds."""
    said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said >= _LOG_SECONDS:
            said = time.monotonic()
            context.log.info(f"{done:,} of {total:,} combinations ({100 * done / max(1, total):.0f} %).")

    return tell


@dg.op(name="compute_sweep", description="Backtests a strategy with every combination of a grid and ranks them.")
def sweep_op(context, config: TrialConfig, database: DatabaseResource) -> None:
    """Goes on where an earlier run of the same settings was stopped."""
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
        "deflated Sharpe ratio of the first": "-" if ranked.deflated is None else ranked.deflated,
        "first": dg.MetadataValue.md(_markdown(ranked.frame.rows(named=True))),
    }
    context.add_output_metadata(metadata)


@dg.op(name="compute_walk_forward", description="Chooses parameters on train windows and tries them after each.")
def walk_forward_op(context, config: WalkForwardConfig, database: DatabaseResource) -> None:
    """Stores windows, joined result and equity curve."""
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


def _markdown(rows: list[dict]) -> str:
    if not rows:
        return "none"
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join("-" if value is None else str(value) for value in row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


@dg.job(name="sweep", description="A parameter sweep; the launchpad's configuration says of what.")
def sweep_job() -> None:
    """One op; see sweep_op."""
    sweep_op()


@dg.job(name="walk_forward", description="A walk-forward; the launchpad's configuration says of what.")
def walk_forward_job() -> None:
    """One op; see walk_forward_op."""
    walk_forward_op()


TRIALS = (sweep_job, walk_forward_job)

"""Any way of running gives the same bits: real Dagster runs over real candles, compared with one pass.

Hypothesis draws plans (tests/exactness.py): splits of a range into runs, in and out of order, repeated, with a source
that grows, corrections at the source and by SQL, rows changed behind the writer's back, and older history that comes
late. After what is due has run, nothing is stale, `verify` finds no difference, and every table and carried state is
bit-equal to one pass over the same candles in an empty database.

The default suite takes a few plans that are always the same; `-m slow` takes many (ALGOBOT_PLANS, default 40 of each
world).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from exactness import HISTORY, MINUTES, Correction, Plan, Run, Tampering, check, plans
from hypothesis import HealthCheck, Phase, given, settings

COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    # a plan takes seconds to minutes: the first one that fails is printed as it is
    "phases": (Phase.explicit, Phase.generate),
}
WORLDS = pytest.mark.parametrize("world", [HISTORY, MINUTES], ids=lambda world: world.name)


def played(world, plan, server, instance) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(world, plan, server, instance, Path(folder))


def test_corrections_and_older_history_give_the_same_bits(server, dagster_instance):
    """One plan with something of everything, so that what matters most does not depend on chance."""
    plan = Plan(
        (
            Run(10, 19),
            Run(20, 39),
            Correction(0, 0.8, "close", by_sql=True),
            Correction(1, 0.7, "volume", by_sql=False),
            Run(0, 9, candles_only=True),
            Correction(2, 0.5, "close", by_sql=False),
            Correction(5, 0.6, "gone", by_sql=False),
            Tampering("trade_history", delete=True),
        ),
        known=0.83,
        grows_at=2,
    )
    played(HISTORY, plan, server, dagster_instance)


@WORLDS
def test_any_plan_of_runs_and_corrections_gives_the_same_bits(world, server, dagster_instance):
    @given(plan=plans(world).filter(lambda plan: len(plan.steps) > 2))
    @settings(max_examples=1, derandomize=True, **COMMON)
    def example(plan):
        played(world, plan, server, dagster_instance)

    example()


@pytest.mark.slow
@WORLDS
def test_many_plans_of_runs_and_corrections_give_the_same_bits(world, server, dagster_instance):
    @given(plan=plans(world))
    @settings(max_examples=int(os.environ.get("ALGOBOT_PLANS", "40")), **COMMON)
    def example(plan):
        played(world, plan, server, dagster_instance)

    example()

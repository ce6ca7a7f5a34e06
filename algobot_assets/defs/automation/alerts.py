"""Alerts: what keeps failing, told to a person once, and once more when it is over.

An asset fails in a run when its computation fails or a check of it does. After ALGOBOT_ALERT_AFTER such runs in a row
one document goes to the webhook; a webhook that is down gets it later.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterEventType

from algobot_assets.defs.automation.incidents import Memory, Outcome
from algobot_assets.defs.automation.webhook import post
from algobot_assets.settings import Settings

_EVENTS = {
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.RUN_FAILURE,
}
#: Runs looked at in one tick, documents sent in one tick.
_RUNS, _SENT = 50, 5
#: What a run that ended without an error of its own is counted under.
RUNS = "runs"


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells a webhook (ALGOBOT_ALERT_WEBHOOK) of an asset that failed several times in a row "
    "(ALGOBOT_ALERT_AFTER), and of its recovery.",
)
def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look at the runs that ended since the last tick, then send what is to be told."""
    settings = Settings()
    memory = Memory.load(context.cursor)
    runs = 0
    if memory.after is None:
        memory.after = _newest(context.instance)
    else:
        for record in _ended(context.instance, memory.after):
            memory.after = record.update_timestamp.timestamp()
            run = record.dagster_run
            if run.run_id in memory.counted:
                continue
            runs += 1
            ended = datetime.fromtimestamp(record.end_time or memory.after, UTC)
            memory.count(run.run_id, ended, list(outcomes(context.instance, run)), settings.alert_after)
    said = _send(context, settings, memory)
    context.update_cursor(memory.dump())
    return dg.SkipReason(f"{runs} runs ended. {_failing(memory)} {said}".strip())


def _ended(instance: dg.DagsterInstance, after: float) -> list[dg.RunRecord]:
    """Runs that succeeded or failed since, in the order in which they ended."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
        updated_after=datetime.fromtimestamp(after, UTC) - timedelta(microseconds=1),
    )
    return list(instance.get_run_records(filters, limit=_RUNS, order_by="update_timestamp", ascending=True))


def _newest(instance: dg.DagsterInstance) -> float:
    """When the last run changed: what happened before the alerts began is not told."""
    records = instance.get_run_records(limit=1, order_by="update_timestamp")
    return records[0].update_timestamp.timestamp() if records else 0.0


def outcomes(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[Outcome]:
    """How each asset's computation and each check ended in the run; what did not begin is left out."""
    steps: dict[str, str | None] = {}
    checks: dict[tuple[str, str], str | None] = {}
    ended: str | None = None
    for entry in instance.all_logs(run.run_id, of_type=_EVENTS):
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type is DagsterEventType.STEP_FAILURE:
            steps[event.step_key or ""] = _sentence(event.step_failure_data.error)
        elif event.event_type is DagsterEventType.STEP_SUCCESS:
            steps[event.step_key or ""] = None
        elif event.event_type is DagsterEventType.RUN_FAILURE:
            ended = event.message or "The run failed."
        else:
            found = event.asset_check_evaluation_data
            failure = None if found.passed else (found.description or f"The check {found.check_name} failed.")
            checks[found.asset_key.path[-1], found.check_name] = failure
    if run.status is dg.DagsterRunStatus.SUCCESS:
        yield Outcome(RUNS, "", None)
    elif not any(steps.values()):
        yield Outcome(RUNS, "", ended or "The run failed.")
    told = {asset for (asset, _), failure in checks.items() if failure is not None}
    for step, failure in steps.items():
        asset, is_checks, _ = step.partition("_checks")
        # the step of a table's checks fails where one of them blocks; the check itself says it better
        if failure is None or not (is_checks and asset in told):
            yield Outcome(asset, "checks" if is_checks else "", failure)
    for (asset, check), failure in checks.items():
        yield Outcome(asset, check, failure)


def _sentence(error: object) -> str:
    """What went wrong at the root of the error, without where."""
    while getattr(error, "cause", None) is not None:
        error = error.cause
    text = getattr(error, "message", "") or "The step failed."
    return text.split(": ", 1)[-1].strip() if ": " in text.split("\n")[0] else text.strip()


def _send(context: dg.SensorEvaluationContext, settings: Settings, memory: Memory) -> str:
    """Send what waits, oldest first; what could not be sent waits for the next tick."""
    if not memory.waiting:
        return ""
    if settings.alert_webhook is None:
        for document in memory.waiting:
            context.log.warning(f"No webhook is set (ALGOBOT_ALERT_WEBHOOK): {document['text']}")
        memory.waiting = []
        return "No webhook is set (ALGOBOT_ALERT_WEBHOOK)."
    sent = 0
    for document in memory.waiting[:_SENT]:
        problem = post(settings.alert_webhook, document)
        if problem is not None:
            memory.waiting = memory.waiting[sent:]
            context.log.warning(f"The webhook of ALGOBOT_ALERT_WEBHOOK {problem}; the next tick tries again.")
            return f"{len(memory.waiting)} messages wait: the webhook {problem}."
        sent += 1
    memory.waiting = memory.waiting[sent:]
    return f"{sent} messages were sent."


def _failing(memory: Memory) -> str:
    if not memory.failing:
        return "Nothing fails."
    shown = [f"{key.rstrip('/').replace('/', ' ')} {item['times']} times" for key, item in memory.failing.items()]
    return f"Failing: {', '.join(shown[:5])}."

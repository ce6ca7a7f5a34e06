"""Send an alert when an asset keeps failing, and another when it recovers.

An asset fails in a run if its computation or one of its checks fails. After ALGOBOT_ALERT_AFTER such runs in a row, one
document is sent to the webhook, and sent later if the webhook is down.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterEventType
from dagster_shared.error import SerializableErrorInfo

from algobot_assets.defs.automation.incidents import Memory, Outcome
from algobot_assets.defs.automation.webhook import post
from algobot_assets.settings import Settings

_EVENTS = {
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.RUN_FAILURE,
}
#: Runs examined and documents sent per tick.
_RUNS, _SENT = 50, 5
#: Name under which failures outside of any step are counted.
RUNS = "runs"


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Notifies ALGOBOT_ALERT_WEBHOOK when an asset has failed ALGOBOT_ALERT_AFTER times in a row, and when "
    "it recovers.",
)
def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Examine the runs that ended since the last tick, then send pending documents."""
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
    """Return the runs that succeeded or failed after ``after``, in the order in which they ended."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
        updated_after=datetime.fromtimestamp(after, UTC) - timedelta(microseconds=1),
    )
    return list(instance.get_run_records(filters, limit=_RUNS, order_by="update_timestamp", ascending=True))


def _newest(instance: dg.DagsterInstance) -> float:
    """Return the time of the last change to a run: earlier failures trigger no alert."""
    records = instance.get_run_records(limit=1, order_by="update_timestamp")
    return records[0].update_timestamp.timestamp() if records else 0.0


def outcomes(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[Outcome]:
    """Yield how each asset's computation and each check ended in the run, if it started."""
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
        # if a blocking check fails, its step fails as well, but the check's own message is better
        if failure is None or not (is_checks and asset in told):
            yield Outcome(asset, "checks" if is_checks else "", failure)
    for (asset, check), failure in checks.items():
        yield Outcome(asset, check, failure)


def _sentence(error: SerializableErrorInfo | None) -> str:
    """Return the message of the error's root cause, without the traceback."""
    while error is not None and error.cause is not None:
        error = error.cause
    text = (error.message if error else "") or "The step failed."
    return text.split(": ", 1)[-1].strip() if ": " in text.split("\n")[0] else text.strip()


def _send(context: dg.SensorEvaluationContext, settings: Settings, memory: Memory) -> str:
    """Send pending documents, oldest first. Those that fail stay pending until the next tick."""
    if not memory.waiting:
        return ""
    if settings.alert_webhook is None:
        for document in memory.waiting:
            context.log.warning(f"ALGOBOT_ALERT_WEBHOOK is not set, not sent: {document['text']}")
        memory.waiting = []
        return "ALGOBOT_ALERT_WEBHOOK is not set."
    sent = 0
    for document in memory.waiting[:_SENT]:
        problem = post(settings.alert_webhook, document)
        if problem is not None:
            memory.waiting = memory.waiting[sent:]
            context.log.warning(f"The webhook of ALGOBOT_ALERT_WEBHOOK {problem}. The next tick tries again.")
            return f"{len(memory.waiting)} messages pending: the webhook {problem}."
        sent += 1
    memory.waiting = memory.waiting[sent:]
    return f"{sent} messages sent."


def _failing(memory: Memory) -> str:
    if not memory.failing:
        return "Nothing is failing."
    shown = [f"{key.rstrip('/').replace('/', ' ')} {item['times']} times" for key, item in memory.failing.items()]
    return f"Failing: {', '.join(shown[:5])}."

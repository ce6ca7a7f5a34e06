"""One alert per real problem, one recovery, none besides; a webhook that is down gets them later."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from algobot_assets.defs.automation.alerts import alerts
from algobot_assets.defs.automation.incidents import Memory, Outcome

BROKEN: set[str] = set()
"""What fails in the runs of these tests: assets, or "asset/check"."""


def asset(name: str, *deps: str) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=name,
        specs=[dg.AssetSpec(name, deps=list(deps))],
        check_specs=[dg.AssetCheckSpec("whole", asset=name)],
    )
    def compute(context):
        if name in BROKEN:
            raise RuntimeError(f"{name} cannot be had")
        passed = f"{name}/whole" not in BROKEN
        yield dg.MaterializeResult(
            check_results=[dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description="torn")]
        )

    return compute


ASSETS = (asset("one"), asset("two"), asset("three", "two"))


class Webhook(BaseHTTPRequestHandler):
    """Keeps what it is sent; answers 503 while it is down."""

    received: list[dict]
    down = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not type(self).down:
            type(self).received.append(json.loads(body))
        self.send_response(503 if type(self).down else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Webhook]]:
    handler = type("Handler", (Webhook,), {"received": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("ALGOBOT_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook/S3cret")
    BROKEN.clear()
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def world() -> Iterator[Callable[..., str]]:
    """Makes runs with something broken, and a tick of the sensor after each; gives the tick's words."""
    with dg.DagsterInstance.ephemeral() as instance:
        cursor: list[str | None] = [None]

        def tick() -> str:
            with dg.build_sensor_context(instance=instance, cursor=cursor[0]) as context:
                said = alerts(context).skip_message
                cursor[0] = context.cursor
            return said

        def run(*broken: str, times: int = 1, of: Sequence[dg.AssetsDefinition] = ASSETS) -> str:
            for _ in range(times):
                BROKEN.clear()
                BROKEN.update(broken)
                dg.materialize(of, instance=instance, raise_on_error=False)
                said = tick()
            return said

        run.tick = tick
        tick()
        yield run


def test_one_message_after_three_failures_and_one_recovery(webhook, world):
    world("two", times=2)
    assert webhook.received == []
    assert "Failing: two 3 times" in world("two")
    (failure,) = webhook.received
    assert (failure["event"], failure["assets"], failure["times"]) == ("failure", ["two"], 3)
    assert failure["sentences"] == ["two cannot be had"] and failure["source"] == "algobot"
    world("two", times=4)
    assert len(webhook.received) == 1, "the same problem is told once"
    assert "Nothing is failing" in world()
    assert [item["event"] for item in webhook.received] == ["failure", "recovery"]
    assert webhook.received[1]["assets"] == ["two"]
    world("two", times=2)
    world(times=2)
    assert len(webhook.received) == 2, "two failures are no problem yet"


def test_problems_of_one_tick_make_one_message(webhook, world):
    world("one", "two", times=3)
    assert [item["assets"] for item in webhook.received] == [["one", "two"]]
    world("two")
    assert len(webhook.received) == 1, "one of them works again, the other does not"
    world()
    assert [item["event"] for item in webhook.received] == ["failure", "recovery"]


def test_a_failing_check_counts_and_belongs_to_its_asset(webhook, world):
    world("two/whole", times=3)
    assert [(item["assets"], item["checks"], item["sentences"]) for item in webhook.received] == [
        (["two"], ["whole"], ["torn"])
    ]
    world("two", times=3)
    assert len(webhook.received) == 1, "a problem of the same asset is already told"
    world("one", times=3, of=ASSETS[:1])
    assert [item["assets"] for item in webhook.received] == [["two"], ["one"]]


def test_messages_wait_until_the_webhook_answers_and_its_url_is_not_shown(webhook, world, caplog):
    webhook.down = True
    with caplog.at_level(logging.DEBUG, logger="dagster"):
        said = world("one", times=3)
        assert "1 messages pending: the webhook answered 503" in said
        world(times=2)
    assert webhook.received == []
    webhook.down = False
    world.tick()
    assert [item["event"] for item in webhook.received] == ["failure", "recovery"]
    assert "S3cret" not in said + caplog.text


def test_alerts_need_a_webhook(world, monkeypatch, caplog):
    monkeypatch.setenv("ALGOBOT_ALERT_WEBHOOK", "http://127.0.0.1:9/hook/S3cret")
    said = world("one", times=3)
    assert "no answer" in said and "S3cret" not in said + caplog.text
    monkeypatch.delenv("ALGOBOT_ALERT_WEBHOOK")
    assert "ALGOBOT_ALERT_WEBHOOK is not set" in world.tick()


def test_failures_before_the_first_tick_are_not_reported(webhook):
    with dg.DagsterInstance.ephemeral() as instance:
        BROKEN.update({"one"})
        for _ in range(3):
            dg.materialize(ASSETS, instance=instance, raise_on_error=False)
        with dg.build_sensor_context(instance=instance) as context:
            alerts(context)
    assert webhook.received == []


def test_runs_that_end_without_an_error_of_their_own_count_too():
    memory = Memory()
    now = datetime(2024, 1, 1, tzinfo=UTC)
    for number in range(3):
        memory.count(str(number), now, [Outcome("runs", "", "The process of this run is gone.")], 3)
    assert [item["assets"] for item in memory.waiting] == [["runs"]]
    memory = Memory.load(memory.dump())
    memory.count("4", now, [Outcome("runs", "", None)], 3)
    assert [item["event"] for item in memory.waiting] == ["failure", "recovery"]

"""The whole stack as `algobot up` starts it: daemon, webserver and embedded PostgreSQL, spoken to by GraphQL."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from browser import browser
from conftest import STATE, days, published_candles
from test_alerts import Webhook

from algobot_assets.defs.partitions import CHAIN, RANGE_END, RANGE_START
from algobot_assets.schema.tables import NINE
from algobot_assets.settings import Settings
from algobot_assets.store.server import control as servers

pytestmark = pytest.mark.slow

FIRST = date(2024, 1, 1)
LAST = FIRST + timedelta(days=89)
WHERE = {"repositoryLocationName": "algobot_assets.definitions", "repositoryName": "__repository__"}
PATIENCE = 240.0


class Stack:
    """`algobot up` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start everything and wait for the webserver."""
        log = open(self.home / "up.log", "ab")  # noqa: SIM115 - the process keeps it
        program = str(Path(sys.executable).parent / "algobot")
        self.process = subprocess.Popen(
            [program, "up", "--port", str(self.port)], stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self.until(self.answers, "the webserver answers")

    def answers(self) -> bool:
        """Whether the webserver has loaded the definitions."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/server_info", timeout=5).ok
        except requests.exceptions.RequestException:
            return False

    def kill(self) -> None:
        """A power cut: every process of the stack and the database at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        servers.stop(Settings(), mode="immediate")

    def until(self, ready: Callable[[], Any], what: str, every: float = 0.5) -> Any:
        """What ``ready`` gives as soon as it gives something; the processes have no clock that a test could set."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = ready()
            if found:
                return found
            time.sleep(every)
        raise AssertionError(f"timed out waiting until {what}:\n{(self.home / 'up.log').read_text()[-3000:]}")

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        answer = requests.post(
            f"http://127.0.0.1:{self.port}/graphql", json={"query": query, "variables": variables}, timeout=120
        ).json()
        assert not answer.get("errors"), answer
        return answer["data"]

    def backfill(self, wanted: list[date], tables: tuple[str, ...] = NINE) -> str:
        """The UI's mutation."""
        data = self.ask(
            """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
                 __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            p={
                "assetSelection": [{"path": [table]} for table in tables],
                "partitionNames": [str(day) for day in wanted],
                "title": "test",
            },
        )["launchPartitionBackfill"]
        assert data["__typename"] == "LaunchBackfillSuccess", data
        return data["backfillId"]

    def runs(self, **tags: str) -> list[dict[str, Any]]:
        """Runs with these tags (two underscores stand for a slash), newest first."""
        wanted = [{"key": key.replace("__", "/"), "value": value} for key, value in tags.items()]
        data = self.ask(
            """query($f: RunsFilter) { runsOrError(filter: $f) { ... on Runs { results {
                 runId status startTime tags { key value } } } } }""",
            f={"tags": wanted},
        )["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in data]

    def finished(self, backfill: str) -> list[dict[str, Any]]:
        """The runs of a backfill, once all have ended."""
        query = """query($i: String!) { partitionBackfillOrError(backfillId: $i) {
                     ... on PartitionBackfill { status } } }"""

        def done() -> list[dict[str, Any]]:
            status = self.ask(query, i=backfill)["partitionBackfillOrError"]["status"]
            return self.runs(dagster__backfill=backfill) if status.startswith("COMPLETED") else []

        return self.until(done, f"backfill {backfill} ends", 2)


@pytest.fixture(scope="module")
def webhook() -> Iterator[type[Webhook]]:
    handler = type("Handler", (Webhook,), {"received": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    handler.url = f"http://127.0.0.1:{server.server_port}/"
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, webhook: type[Webhook]) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("stack")
    minutes = STATE.format(start=FIRST).replace("interval: 1h", "interval: 1m").replace("BTCUSDT 1h", "BTCUSDT 1m")
    (home / "algobot.yaml").write_text(minutes)
    (home / "klines" / "spot").mkdir(parents=True)
    candles = published_candles(datetime(2024, 1, 1, tzinfo=UTC), 1440 * 95, 1)
    candles.write_parquet(home / "klines" / "spot" / "BTCUSDT-1m-all.parquet")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "HOME": home / "home",
            "STATE_FILE": home / "algobot.yaml",
            "SOURCE": home / "klines",
            "ALERT_WEBHOOK": webhook.url,
            "ALERT_AFTER": 1,
            "REFRESH_MINUTES": 60,
        }.items():
            patch.setenv(f"ALGOBOT_{name}", str(value))
        patch.delenv("ALGOBOT_DATABASE_URL", raising=False)
        running = Stack(home)
        running.start()
        yield running
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
        servers.discard(Settings())


def rows(statement: str) -> list[tuple]:
    """Rows of a query to the data."""
    with servers.ensure_running(Settings()).connect() as connection:
        return connection.execute(statement).fetchall()


RECORDED = "SELECT count(*) FROM lineage WHERE table_name = 'market_data'"


def test_everything_is_restarted_in_the_middle_of_a_backfill(stack: Stack):
    killed = stack.backfill(days(FIRST, 90))
    stack.until(lambda: rows(RECORDED)[0][0] > 10, "the backfill has begun to write", 0.02)
    stack.kill()
    begun = stack.home / "up.log"
    assert "will not be used to configure Dagster" not in begun.read_text()
    stack.start()
    (run,) = stack.runs(dagster__backfill=killed)
    assert run["tags"]["algobot/chain"] == "all" and "dagster/priority" in run["tags"]
    stack.until(
        lambda: stack.runs(dagster__backfill=killed)[0]["status"] == "FAILURE", "the killed run is known to be over", 2
    )
    ended = stack.finished(stack.backfill(days(FIRST, 90)))
    assert [run["status"] for run in ended] == ["SUCCESS"], "90 days are one run"
    assert (ended[0]["tags"][RANGE_START], ended[0]["tags"][RANGE_END]) == (str(FIRST), str(LAST))
    counts = dict(rows(f"SELECT table_name, count(DISTINCT day) FROM lineage WHERE day <= '{LAST}' GROUP BY 1"))
    assert counts == dict.fromkeys(NINE, 90)
    assert rows("SELECT count(*) FROM market_data WHERE \"timestamp\" < '2024-03-31'") == [(90 * 1440,)]
    assert rows("SELECT count(*) FROM stale_partitions") == [(0,)]


def test_days_apart_run_one_after_the_other(stack: Stack):
    begin = LAST + timedelta(days=1)
    wanted = [begin, begin + timedelta(days=1), FIRST, FIRST + timedelta(days=10)]
    ended = stack.finished(stack.backfill(wanted))
    assert [run["status"] for run in ended] == ["SUCCESS"] * 3
    assert all(run["tags"]["algobot/chain"] == "all" for run in ended)
    in_time = sorted(ended, key=lambda run: run["startTime"])
    assert [run["tags"].get(RANGE_START) or run["tags"]["dagster/partition"] for run in in_time] == [
        str(FIRST),
        str(FIRST + timedelta(days=10)),
        str(begin),
    ], "oldest first"


def test_a_tick_of_a_schedule_and_of_each_sensor(stack: Stack):
    moment = datetime(2024, 4, 2, 12, 1, tzinfo=UTC)
    tick = """evaluationResult { error { message } skipReason runRequests { runKey tags { key value } } }"""
    found = stack.ask(
        "mutation($s: ScheduleSelector!, $t: Float) { scheduleDryRun(selectorData: $s, timestamp: $t) {"
        f" ... on DryRunInstigationTick {{ {tick} }} ... on PythonError {{ message }} }} }}",
        s={**WHERE, "scheduleName": "refresh"},
        t=moment.timestamp(),
    )["scheduleDryRun"]["evaluationResult"]
    assert found["error"] is None
    tags = {tag["key"]: tag["value"] for tag in found["runRequests"][0]["tags"]}
    assert (tags[RANGE_START], tags[RANGE_END]) == ("2024-04-02", "2024-04-02") and tags.items() >= CHAIN.items()

    def sensor(name: str) -> dict[str, Any]:
        found = stack.ask(
            "mutation($s: SensorSelector!) { sensorDryRun(selectorData: $s, cursor: null) {"
            f" ... on DryRunInstigationTick {{ {tick} }} ... on PythonError {{ message }} }} }}",
            s={**WHERE, "sensorName": name},
        )["sensorDryRun"]["evaluationResult"]
        assert found["error"] is None, found
        return found

    saw = {name: sensor(name) for name in ("staleness", "gaps", "declared_state", "alerts", "abandoned_runs")}
    assert "Nothing is stale" in saw["staleness"]["skipReason"] and "No day" in saw["gaps"]["skipReason"]
    assert saw["declared_state"]["skipReason"] == "Everything declared is stored."
    assert "has its process" in saw["abandoned_runs"]["skipReason"] and saw["alerts"]["skipReason"]


def test_changes_by_hand_are_recomputed_by_the_sensor(stack: Stack):
    with servers.ensure_running(Settings()).connect() as connection:
        connection.execute("""DELETE FROM signals WHERE "timestamp" = '2024-02-10T04:00Z'""")
    assert rows("SELECT count(*) FROM stale_partitions") != [(0,)]
    stack.until(lambda: rows("SELECT count(*) FROM stale_partitions") == [(0,)], "nothing is stale", 2)


def test_a_failed_run_and_its_recovery_are_reported(stack: Stack, webhook: type[Webhook]):
    path = stack.home / "algobot.yaml"
    text = path.read_text()
    before = len(webhook.received)
    path.write_text("markets: [")
    (failed,) = stack.finished(stack.backfill([FIRST], ("configurations",)))
    assert failed["status"] == "FAILURE"
    stack.until(lambda: len(webhook.received) > before, "the alert arrives")
    alert = webhook.received[before]
    assert (alert["event"], alert["assets"], alert["run_id"]) == ("failure", ["configurations"], failed["runId"])
    assert "algobot.yaml" in json.dumps(alert["sentences"])
    path.write_text(text)
    (run,) = stack.finished(stack.backfill([FIRST], ("configurations",)))
    assert run["status"] == "SUCCESS"
    stack.until(lambda: len(webhook.received) > before + 1, "the recovery arrives")
    assert [item["event"] for item in webhook.received[before:]] == ["failure", "recovery"]


def test_a_person_looks_at_the_ui_and_follows_its_links(stack: Stack, tmp_path: Path):
    stack.finished(stack.backfill(days(FIRST, 2)))
    launched = stack.ask(
        """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
             ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
        p={"selector": {**WHERE, "jobName": "report"}, "runConfigData": {}},
    )["launchRun"]["run"]["runId"]
    asked = "query($i: ID!) { runOrError(runId: $i) { ... on Run { status } } }"
    ended = ("SUCCESS", "FAILURE")
    stack.until(lambda: stack.ask(asked, i=launched)["runOrError"]["status"] in ended, "the report is written", 2)
    assert stack.ask(asked, i=launched)["runOrError"]["status"] == "SUCCESS"
    shots = Path(os.environ.get("ALGOBOT_SCREENSHOTS", tmp_path / "shots"))

    def says(*words: str) -> str:
        return " && ".join(f"document.body.innerText.includes({json.dumps(word)})" for word in words)

    ui = f"http://127.0.0.1:{stack.port}"
    with browser(tmp_path) as tab:
        tab.look(1440, 1000)
        tab.open(f"{ui}/asset-groups", says("reference", "market", "trading", "reports", "monitoring"))
        tab.picture(shots / "ui-graph.png")
        columns = says("sharpe_ratio", "no riskless rate", "NUMERIC(20, 8)")
        tab.open(f"{ui}/assets/backtest_results?view=overview", columns)
        tab.picture(shots / "ui-backtest-results.png")
        tab.open(f"{ui}/assets/tear_sheets?view=overview", says("comparison", "index.html"))
        tab.picture(shots / "ui-tear-sheets.png")
        link = tab.ask("[...document.querySelectorAll('a')].map(a => a.href).find(a => a.endsWith('index.html'))")
        assert link == f"http://127.0.0.1:{stack.port + 1}/index.html"
        tab.open(link, "document.documentElement.dataset.drawn !== undefined")
        tab.picture(shots / "ui-report.png")
        assert tab.problems == []

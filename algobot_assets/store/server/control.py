"""Start, find and stop the embedded PostgreSQL server. POSIX only.

It listens on a socket that only its owner and root can reach, and on no network. It outlives the process that started
it and is shared by all; only `stop` ends it.
"""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from algobot_assets.errors import StoreError
from algobot_assets.settings import Settings
from algobot_assets.store.database import Database
from algobot_assets.store.server import binaries as programs
from algobot_assets.store.server import cluster as clusters
from algobot_assets.store.server.binaries import Binaries
from algobot_assets.store.server.cluster import Cluster
from algobot_assets.store.server.locks import PATIENCE, Found, answering, exclusive, postmaster, read_text, take_over

_LARGEST_LOG = 16 << 20


@dataclass(frozen=True, repr=False)
class Server(Database):
    """The running embedded server, as a Database."""

    data: Path = field(kw_only=True)
    pid: int = field(kw_only=True)


@dataclass(frozen=True)
class Status:
    """The state of the embedded server, or of the one that ALGOBOT_DATABASE_URL names."""

    embedded: bool
    running: bool
    location: str
    """Folder of the socket, or host and port."""
    version: str | None = None
    pid: int | None = None
    account: str | None = None
    data: Path | None = None
    log: Path | None = None
    problem: str | None = None
    """The reason why the server at the URL did not answer."""


def ensure_running(settings: Settings, *, durable: bool = True) -> Server:
    """Return the running server of `settings.home`, created and started first if needed.

    Any number of processes may call this at once; with a server up it takes well below a millisecond. After a crash of
    machine or server, the server recovers. `durable=False` starts a server for tests, without fsync; it has no effect
    on one that is running. Raises StoreError.
    """
    cluster = clusters.locate(settings.home)
    found = answering(cluster)
    if cluster is None or found is None:
        clusters.create_home(settings.home)
        with exclusive(settings.home):
            cluster = clusters.locate(settings.home) or clusters.create(settings.home)
            found = answering(cluster) or _start(settings, cluster, durable)
    return _server(settings, cluster, found)


def stop(settings: Settings, *, mode: str = "fast") -> bool:
    """Stop the embedded server and wait for it to exit; return False if none was running. Raises StoreError."""
    cluster = clusters.locate(settings.home)
    if cluster is None:
        return False
    with exclusive(settings.home):
        return _stop(settings, cluster, mode)


def status(settings: Settings) -> Status:
    """Return the server's state, without starting anything."""
    if settings.database_url is not None:
        database = Database.from_url(settings)
        try:
            with database.connect() as connection:
                version = connection.info.parameter_status("server_version")
        except StoreError as error:
            return Status(False, False, database.location, problem=str(error))
        return Status(False, True, database.location, version)
    cluster = clusters.locate(settings.home)
    if cluster is None:
        return Status(True, False, str(settings.home))
    found = answering(cluster)
    return Status(
        True,
        found is not None,
        str(found.sockets if found else cluster.run),
        version=read_text(cluster.data / "PG_VERSION").strip() or None,
        pid=found.pid if found else None,
        account=cluster.account.name,
        data=cluster.data,
        log=cluster.log,
    )


def discard(settings: Settings) -> None:
    """Stop the embedded server and delete it with all its data."""
    cluster = clusters.locate(settings.home)
    if cluster is None:
        return
    cluster.require_ownership()
    with exclusive(settings.home):
        _stop(settings, cluster, "immediate")
        held = take_over(cluster)  # waits for the last process to exit
        assert isinstance(held, int), "nobody can start it while we hold the lock of the home"
        os.close(held)
        shutil.rmtree(os.path.realpath(cluster.run), ignore_errors=True)
        shutil.rmtree(cluster.base)
        link = settings.home / "postgres"
        if link.is_symlink():
            link.unlink()
        clusters.lock_file(settings.home).unlink()


def _server(settings: Settings, cluster: Cluster, found: Found) -> Server:
    return Server(
        settings.database,
        {
            "host": str(found.sockets),
            "port": str(clusters.PORT),
            "user": clusters.ROLE,
            "connect_timeout": str(settings.connect_timeout),
            "application_name": "algobot",
        },
        statement_timeout=settings.statement_timeout,
        lock_timeout=settings.lock_timeout,
        data=cluster.data,
        pid=found.pid,
    )


def _start(settings: Settings, cluster: Cluster, durable: bool) -> Found:
    cluster.require_ownership()
    held = take_over(cluster)
    if isinstance(held, Found):
        return held
    try:
        binaries = programs.find(settings, cluster.account, cluster.copies)
        if not cluster.data.exists():
            clusters.make_data(cluster, binaries, held, durable)
        _require_version(cluster, binaries)
        sockets = clusters.socket_folder(cluster)
        # Nobody else holds the lock or works in the folder: these files were left by a killed server.
        for leftover in (cluster.data / "postmaster.pid", sockets / clusters.SOCKET):
            leftover.unlink(missing_ok=True)
        (sockets / f"{clusters.SOCKET}.lock").unlink(missing_ok=True)
        main = clusters.configure(cluster, binaries, sockets, durable)
        _launch(cluster, binaries, main, held)
    finally:
        os.close(held)  # the server's processes keep the lock through their own copies
    found = answering(cluster)
    if found is None:
        raise StoreError(f"PostgreSQL was started in {cluster.base} but does not answer; see {cluster.log}.")
    return found


def _launch(cluster: Cluster, binaries: Binaries, main: Path, held: int) -> None:
    if cluster.log.exists() and cluster.log.stat().st_size > _LARGEST_LOG:
        cluster.log.replace(cluster.log.with_suffix(".log.1"))
    log = os.open(cluster.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        before = os.fstat(log).st_size
        done = cluster.account.run(
            [binaries / "pg_ctl", "start", "-s", "-w", "-t", str(PATIENCE), "-o", _options(main)],
            # Not -D: pg_ctl would put that path between plain double quotes into a shell command.
            environment={"PGDATA": str(cluster.data)},
            pass_fds=(held,),
            output=log,
        )
    finally:
        os.close(log)
    if done.returncode != 0:
        with open(cluster.log, errors="replace") as written:
            written.seek(before)
            reason = _reason(written.read().splitlines())
        raise StoreError(f"PostgreSQL could not be started in {cluster.base}: {reason} See {cluster.log}.")


def _reason(lines: list[str]) -> str:
    """Return the last messages of a server that failed to start, without timestamps."""
    said = [line.partition("] ")[2] for line in lines if "FATAL:" in line or "HINT:" in line]
    said = said or [line for line in lines if not line.startswith(("pg_ctl:", "Examine"))][-3:]
    return " ".join(line.strip() for line in said) or "no reason given."


def _options(main: Path) -> str:
    return f"-c config_file={shlex.quote(str(main))}"


def _require_version(cluster: Cluster, binaries: Binaries) -> None:
    made_by = read_text(cluster.data / "PG_VERSION").strip() or "an unknown version"
    if made_by != binaries.major:
        raise StoreError(
            f"The database in {cluster.data} was made by PostgreSQL {made_by}, but {binaries.folder} holds "
            f"PostgreSQL {binaries.version}. Set ALGOBOT_PG_BIN to the bin folder of a PostgreSQL {made_by}, "
            "or dump the database with that version and load it into a new ALGOBOT_HOME."
        )


def _stop(settings: Settings, cluster: Cluster, mode: str) -> bool:
    written = postmaster(cluster)
    if written is None:
        return False
    pid = written[0].pid
    try:
        ours = os.readlink(f"/proc/{pid}/cwd") == str(cluster.data)
    except OSError:
        ours = not Path("/proc/self").exists() and answering(cluster) is not None
    if not ours:
        if answering(cluster) is None:
            return False
        raise StoreError(f"The server in {cluster.data} runs in another container. Stop it there.")
    binaries = programs.find(settings, cluster.account, cluster.copies)
    done = cluster.account.run(
        [binaries / "pg_ctl", "stop", "-s", "-w", "-t", str(PATIENCE), "-m", mode],
        environment={"PGDATA": str(cluster.data)},
    )
    if done.returncode != 0:
        raise StoreError(f"PostgreSQL in {cluster.data} did not stop: {done.stderr.strip()}")
    return True

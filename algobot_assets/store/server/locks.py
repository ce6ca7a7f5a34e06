"""Find out whether an embedded server is alive, and let one process at a time start or stop it.

A process number may be stale, reused, or of another container. Therefore every process of the server inherits a lock
(server.lock), which the kernel releases when the last one exits.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from algobot_assets.errors import StoreError
from algobot_assets.store.server import cluster as clusters
from algobot_assets.store.server.cluster import Cluster

PATIENCE = 300
"""Seconds that start (which may replay a crash), stop and waiting for another process may take."""


@dataclass(frozen=True)
class Found:
    """A server that wrote its process number and socket folder."""

    pid: int
    sockets: Path


def postmaster(cluster: Cluster) -> tuple[Found, bool] | None:
    """Return the server's own record of itself, and whether it was ready then; it may have died since."""
    lines = read_text(cluster.data / "postmaster.pid").splitlines()
    if len(lines) < 5 or not lines[0].isdigit():
        return None
    ready = len(lines) > 7 and lines[7].strip() == "ready"
    return Found(int(lines[0]), Path(lines[4])), ready


def answering(cluster: Cluster | None) -> Found | None:
    """Return the server, if it is alive and ready."""
    written = postmaster(cluster) if cluster else None
    if written is None or not written[1]:
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(os.fspath(written[0].sockets / clusters.SOCKET))
        except TimeoutError:  # up, but too busy to take a connection yet
            pass
        except OSError:
            return None
    return written[0]


def take_over(cluster: Cluster) -> int | Found:
    """Wait until all processes of the server are gone and return its lock, or the server if it answers meanwhile.

    After a kill of the main process its children exit soon; after a kill of the process that was starting it, the
    server continues to start.
    """
    descriptor = os.open(cluster.base / "server.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + PATIENCE
    while True:
        if _try_lock(descriptor):
            at_work = _at_work_in(cluster.data)
            if not at_work:
                return descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        else:
            at_work = "of another container or user"
        found = answering(cluster)
        if found is not None or time.monotonic() > deadline:
            os.close(descriptor)
            if found is not None:
                return found
            raise StoreError(
                f"Processes ({_at_work_in(cluster.data) or at_work}) still use {cluster.data}, but no server "
                "answers. End them, then try again."
            )
        time.sleep(0.05)


def _at_work_in(data: Path) -> str:
    """Return the numbers of processes whose working folder is the data folder, as for every server process."""
    numbers = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if os.readlink(entry) == str(data):
                numbers.append(entry.parts[2])
        except OSError:  # exited meanwhile, or of another user, who cannot work in our folder
            continue
    return ", ".join(numbers)


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Let only this process start or stop the server of a home during the block."""
    path = clusters.lock_file(home)
    deadline = time.monotonic() + PATIENCE + 30
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be opened: {error.strerror}. Run this as the user who made {home}, or set "
                "ALGOBOT_HOME to a folder of your own."
            ) from None
        try:
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"Another process has held {path} for too long. Find out what it does, and end it."
                    )
                time.sleep(0.02)
            if _is_at(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether the locked file is still in place; it may have been deleted during the wait."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def read_text(path: Path) -> str:
    """Return the contents of a file of the cluster, "" if it is missing."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise StoreError(
            f"{path} is closed to this user. Run this as the user who made the database, or set ALGOBOT_HOME "
            "to a folder of your own."
        ) from None

"""Create and configure the folders and files of an embedded server.

    home/postgres.lock    held while a server is started or stopped
    home/postgres/        a folder, or a link to one below /var/lib/algobot if root's home is closed to the
                          server's account; it belongs to the user who starts the server
        data/             the database cluster; it and run/ belong to the server's account, mode 0700
        run/              the socket; a link to a short folder below /tmp if the path would be too long
        server.lock       held by every process of the server as long as it lives
        server.log, postgresql.conf, pg_hba.conf, pg_ident.conf (rewritten at every start)

No existing folder is ever given another owner or mode.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from algobot_assets.errors import StoreError
from algobot_assets.store.server import account as accounts
from algobot_assets.store.server.account import Account
from algobot_assets.store.server.binaries import Binaries

ROLE = "algobot"
"""The database's superuser. It is not named after the account, because root and the account both connect as it."""

PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
_LONGEST_SOCKET = 103  # bytes that every system's socket address holds (Linux 107, macOS 103)
_ROOTS_PLACE = Path("/var/lib/algobot")


@dataclass(frozen=True)
class Cluster:
    """The folder of an embedded server and the account that runs it."""

    base: Path
    """home/postgres with links resolved."""
    account: Account

    @property
    def data(self) -> Path:
        """The folder of the database cluster."""
        return self.base / "data"

    @property
    def run(self) -> Path:
        """The folder of the socket, or a link to it."""
        return self.base / "run"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.base / "server.log"

    @property
    def copies(self) -> Path:
        """The folder for copied PostgreSQL programs."""
        return self.base / "programs"

    def require_ownership(self) -> None:
        """Raise StoreError unless this user made the folder: root must not write where others can plant links."""
        owner = self.base.stat().st_uid
        if owner != os.geteuid():
            raise StoreError(
                f"The database in {self.base} belongs to {_name(owner)}. Run this as that user, or set "
                "ALGOBOT_HOME to a folder of your own."
            )


def lock_file(home: Path) -> Path:
    """Return the file that is locked while a server of the home is started or stopped."""
    return home / "postgres.lock"


def locate(home: Path) -> Cluster | None:
    """Return the cluster of a home, or None if there is none yet."""
    link = home / "postgres"
    try:
        base = Path(os.path.realpath(link, strict=True))
        owner = base.stat().st_uid
        try:
            owner = (base / "data").stat().st_uid
        except FileNotFoundError:
            return Cluster(base, accounts.for_server() if owner == 0 else accounts.by_uid(owner))
        return Cluster(base, accounts.by_uid(owner))
    except FileNotFoundError:
        if link.is_symlink():
            raise StoreError(
                f"{link} points to {os.readlink(link)}, which is gone. Restore that folder, or remove the "
                "link to start with an empty database."
            ) from None
        return None
    except PermissionError:
        raise StoreError(
            f"The database in {home} is closed to {_name(os.geteuid())}. Run this as the user who made it, "
            "or set ALGOBOT_HOME to a folder of your own."
        ) from None


def create_home(home: Path) -> None:
    """Create the home and missing parents; those that root creates let the server's account pass."""
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder {home} cannot be created: {error.strerror}. Set ALGOBOT_HOME to another."
        ) from None
    if os.geteuid() == 0:
        for folder in missing:
            folder.chmod(0o755)


def create(home: Path) -> Cluster:
    """Create the folder of a new cluster, where the server's account can reach it."""
    account = accounts.for_server()
    base = home / "postgres"
    if account.is_current:
        base.mkdir(mode=0o700)
        return Cluster(base.resolve(), account)
    if account.can("-x", home):
        # Renamed into place, so that a folder of the final name already has its final mode.
        near = Path(tempfile.mkdtemp(dir=home, prefix="postgres-"))
        near.chmod(0o755)
        near.rename(base)
        return Cluster(base.resolve(), account)
    missing = not _ROOTS_PLACE.exists()
    _ROOTS_PLACE.mkdir(parents=True, exist_ok=True)
    if missing:
        _ROOTS_PLACE.chmod(0o755)
    if _ROOTS_PLACE.stat().st_uid != 0 or not account.can("-x", _ROOTS_PLACE):
        raise StoreError(
            f"User {account.name}, under which root runs PostgreSQL, can reach neither {home} nor "
            f"{_ROOTS_PLACE}. Set ALGOBOT_HOME to a folder that this user can enter."
        )
    far = Path(tempfile.mkdtemp(dir=_ROOTS_PLACE, prefix="postgres-"))
    far.chmod(0o755)
    base.symlink_to(far)
    return Cluster(far, account)


def make_data(cluster: Cluster, binaries: Binaries, held: int, durable: bool) -> None:
    """Run initdb in a temporary folder and rename it, so that a data folder is complete or missing."""
    draft = cluster.base / "data.draft"
    shutil.rmtree(draft, ignore_errors=True)
    make_private(draft, cluster.account)
    arguments: list[str | Path] = [
        "-D",
        draft,
        "-U",
        ROLE,
        "--encoding=UTF8",
        "--no-locale",
        "--data-checksums",
        "--auth=peer",
    ]
    if not durable:
        arguments.append("--no-sync")
    done = cluster.account.run([binaries / "initdb", *arguments], pass_fds=(held,))
    if done.returncode != 0:
        raise StoreError(f"initdb could not create a database in {draft}: {done.stderr.strip()}")
    draft.rename(cluster.data)
    folder = os.open(cluster.base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_private(folder: Path, account: Account) -> None:
    """Create a folder that only root and the account can enter."""
    folder.mkdir(mode=0o700)
    if not account.is_current:
        os.chown(folder, account.uid, account.gid)


def socket_folder(cluster: Cluster) -> Path:
    """Return the folder of the socket, created if missing; only root and the server's account can enter it.

    If libpq could not use the path (too long for a socket, or with a comma), the folder is a link to a short one.
    """
    run = cluster.run
    plain = re.fullmatch(r"[\w./+@-]+", str(run), re.ASCII) is not None
    if plain and len(os.fsencode(run / SOCKET)) <= _LONGEST_SOCKET:
        if run.is_symlink():
            run.unlink()
        if not run.exists():
            make_private(run, cluster.account)
        return run
    if run.is_symlink():
        target = Path(os.readlink(run))
        if _is_private(target, cluster.account):
            return target
        run.unlink()
    elif run.exists():
        shutil.rmtree(run)
    target = Path(tempfile.mkdtemp(dir="/tmp", prefix="algobot-"))
    if not cluster.account.is_current:
        os.chown(target, cluster.account.uid, cluster.account.gid)
    run.symlink_to(target)
    return target


def _is_private(folder: Path, account: Account) -> bool:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return found.st_uid == account.uid and found.st_mode == stat.S_IFDIR | 0o700


def configure(cluster: Cluster, binaries: Binaries, sockets: Path, durable: bool) -> Path:
    """Write the server's configuration and return the main file. ALTER SYSTEM still overrides it."""
    access, names = cluster.base / "pg_hba.conf", cluster.base / "pg_ident.conf"
    # The kernel tells the server which user connects to the socket: there is no password to leak.
    _write(access, "local all all peer map=algobot\n")
    roles = "all" if int(binaries.major) >= 16 else ROLE
    users = dict.fromkeys([accounts.by_uid(0).name, cluster.account.name])
    _write(names, "".join(f'algobot "{user}" {roles}\n' for user in users))
    memory = _memory_mb()
    values: dict[str, object] = {
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": f'"{sockets}"',
        "unix_socket_permissions": "0700",
        "hba_file": access,
        "ident_file": names,
        "max_connections": 100,
        "max_locks_per_transaction": 256,  # a query without a time range locks every month of every table
        "shared_buffers": f"{min(max(memory // 8, 64), 2048) if durable else 64}MB",
        "effective_cache_size": f"{max(memory // 2, 128)}MB",
        "maintenance_work_mem": f"{min(max(memory // 32, 64), 512)}MB",
        "work_mem": f"{min(max(memory // 256, 8), 64)}MB",
        "random_page_cost": 1.1,  # a window's rows are close together; at 4 the planner prefers scan and sort to a key
        "max_wal_size": "4GB",
        "min_wal_size": "256MB" if durable else "64MB",
        "checkpoint_timeout": "15min",
        "wal_compression": "on",
        "enable_partitionwise_join": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_checkpoints": "off",
        "lc_messages": "C",
        "fsync": "on" if durable else "off",
        "synchronous_commit": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
    }
    main = cluster.base / "postgresql.conf"
    _write(main, "".join(f"{name} = {_quoted(value)}\n" for name, value in values.items()))
    return main


def _quoted(value: object) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(text)
    draft.chmod(0o644)
    draft.replace(path)


def _memory_mb() -> int:
    """Return the memory this machine or container may use."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # missing, or "max"
            continue
    return min(limits) >> 20


def _name(uid: int) -> str:
    try:
        return f"user {accounts.by_uid(uid).name}"
    except StoreError:
        return f"user number {uid}"

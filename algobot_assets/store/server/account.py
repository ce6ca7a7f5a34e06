"""Choose the operating-system account that runs the embedded server, and run programs as it.

PostgreSQL refuses to run as root. An ordinary user runs the server under their own account; root lends it an existing
unprivileged one.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from algobot_assets.errors import StoreError

CANDIDATES = ("algobot", "postgres", "nobody")
"""Accounts that root lends to the server, in order of preference: its own, the usual one, one that always exists."""


PATIENCE = 360
"""Seconds a program may take: more than pg_ctl waits (locks.PATIENCE), so that its own message comes first."""


@dataclass(frozen=True)
class Account:
    """An account of the operating system."""

    name: str
    uid: int
    gid: int

    @property
    def is_current(self) -> bool:
        """Whether this process runs as the account."""
        return self.uid == os.geteuid()

    def run(
        self,
        arguments: Sequence[str | Path],
        environment: dict[str, str] | None = None,
        *,
        pass_fds: Sequence[int] = (),
        output: int = subprocess.PIPE,
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this account with a minimal environment, without settings and secrets.

        ``output``: where its output and errors go. The caller checks the exit code. Raises StoreError if the program
        cannot be executed at all or takes longer than ``timeout`` seconds.
        """
        variables = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH") if k in os.environ}
        variables |= {"LC_ALL": "C", "TZ": "UTC"} | (environment or {})
        try:
            return subprocess.run(
                [str(argument) for argument in arguments],
                env=variables,
                cwd="/",  # the account may not be allowed to enter the caller's folder
                umask=0o077,
                start_new_session=True,  # Ctrl-C in the terminal must reach our process only
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                errors="replace",
                timeout=timeout,
                pass_fds=pass_fds,
                user=None if self.is_current else self.uid,
                group=None if self.is_current else self.gid,
                extra_groups=None if self.is_current else [],
            )
        except OSError as error:
            raise StoreError(f"{arguments[0]} cannot be run as user {self.name}: {error.strerror}.") from None
        except subprocess.TimeoutExpired:
            raise StoreError(f"{arguments[0]} did not finish within {timeout:g} seconds and was killed.") from None

    def can(self, right: str, path: Path) -> bool:
        """Return whether the account may read ("-r") or enter or execute ("-x") a path, as the kernel sees it."""
        return self.run(["test", right, path]).returncode == 0


def by_uid(uid: int) -> Account:
    """Return the account of a user id; StoreError if it has no name, which PostgreSQL needs."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise StoreError(
            f"User {uid} has no name on this system, and PostgreSQL needs one. Add the user to the password "
            "file or set ALGOBOT_DATABASE_URL to another server."
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def for_server() -> Account:
    """Return the account for a new server: the caller's own, or for root the first usable of the candidates."""
    if os.geteuid() != 0:
        return by_uid(os.geteuid())
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
        if account.uid != 0 and _usable(account):
            return account
    raise StoreError(
        "PostgreSQL does not run as root, and root can use none of the accounts "
        f"{', '.join(CANDIDATES)}. Create one with `useradd --system algobot`, or run as another user."
    )


def _usable(account: Account) -> bool:
    try:
        return account.run(["true"]).returncode == 0
    except StoreError:  # in a user namespace without that number, or without the right to change users
        return False

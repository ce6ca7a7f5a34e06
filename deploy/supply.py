"""Look up known vulnerabilities of the pinned packages, and write the file of their hashes.

    python deploy/supply.py audit                     # make audit
    python deploy/supply.py hashes REPORT... > hashes.txt

`audit` asks an advisory service, through pip-audit, about every version in constraints.txt, and compares the
environment with these versions. Exit code 0: no known vulnerability; 1: at least one; 3: the service did not answer
for all of them.
`hashes` reads the reports of `pip install --dry-run --ignore-installed --report REPORT -c constraints.txt
".[test,lint,docs]"`, one for each Python, and needs no index of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600
_HEAD = """\
# SHA-256 of every package for CPython 3.11 to 3.13 on Linux x86_64; made by deploy/supply.py, no index is named.
# pip install --require-hashes --no-deps -r hashes.txt && pip install --no-deps --no-build-isolation -e .
"""


def plain(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """Return the version of each package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {plain(name): version.strip() for name, version in pairs}


def drift() -> list[str]:
    """Return packages whose installed version is not the pinned one, if the project is installed here."""
    installed = {plain(found.metadata["Name"]): found.version for found in metadata.distributions()}
    if "dagster" not in installed:
        return []
    return [
        f"{name} is {installed[name]}; pinned: {version}"
        for name, version in pinned().items()
        if name in installed and installed[name] != version
    ]


def audit() -> int:
    """Ask the service, print what it knows, and return the exit code."""
    for sentence in drift():
        print(f"Not the pinned version: {sentence}.")
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off",
               "--timeout", "20", "--format", "json", "-r", str(ROOT / "constraints.txt")]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        print(f"The advisory service did not answer within {PATIENCE} s; nothing is known. Run it again.")
        return 3
    if "No module named" in done.stderr:
        print("pip-audit is not installed in this environment: run `make audit`, which has one of its own.")
        return 3
    try:
        asked = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"The advisory service could not be asked, so that nothing is known: {reason[:300]}")
        return 3
    for package in asked:
        for found in package.get("vulns", []):
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}.")
    unknown = [package["name"] for package in asked if "skip_reason" in package]
    known = len(asked) - len(unknown)
    bad = sum(bool(package.get("vulns")) for package in asked)
    print(f"{bad} of {known} packages that the advisory service knows have a known vulnerability.")
    if unknown:
        print(f"It could not be asked about {len(unknown)}, of which nothing is known: {', '.join(unknown[:5])} ...")
    return 1 if bad else 3 if unknown else 0


def hashes(reports: list[str]) -> str:
    """Return the text of hashes.txt from pip's reports."""
    found: dict[tuple[str, str], set[str]] = {}
    for report in reports:
        for item in json.loads(Path(report).read_text())["install"]:
            archive = item["download_info"].get("archive_info")
            if archive:  # not the project itself
                key = plain(item["metadata"]["name"]), item["metadata"]["version"]
                found.setdefault(key, set()).add(archive["hashes"]["sha256"])
    lines = []
    for (name, version), sums in sorted(found.items()):
        lines.append(" \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{value}" for value in sorted(sums))]))
    return _HEAD + "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["audit"]:
        sys.exit(audit())
    if sys.argv[1:2] == ["hashes"] and len(sys.argv) > 2:
        print(hashes(sys.argv[2:]))
        sys.exit(0)
    sys.exit(__doc__)

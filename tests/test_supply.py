"""What is installed: every dependency has its reason, its version and its hash, and no file names an index."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("supply", ROOT / "deploy" / "supply.py")
supply = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(supply)
HASHES = ROOT / "hashes.txt"


def test_every_direct_dependency_has_its_reason_beside_it():
    text = (ROOT / "pyproject.toml").read_text()
    listed = text[text.index("\ndependencies = [") : text.index("]\n\n[project.optional")].splitlines()[2:]
    assert len(listed) > 15
    assert [line for line in listed if line.strip() and not re.search(r"#\s+\w.{5,}", line)] == []


def test_every_tool_of_an_extra_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {"test", "lint", "docs"} <= set(extras)
    tools = {re.split(r"[\[;]", name)[0] for extra in extras if extra != "oracles" for name in extras[extra]}
    assert {supply.plain(name) for name in tools} - set(supply.pinned()) == set()


def test_the_hooks_of_a_commit_run_the_commands_of_make_lint():
    makefile = (ROOT / "Makefile").read_text()
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.M)[1]
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint.splitlines()]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == commands


def test_every_hashed_version_is_the_pinned_one():
    one = r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)"
    found = re.findall(one, HASHES.read_text(), re.M)
    assert len(found) > 130
    pinned = supply.pinned()
    assert {name: version for name, version, _ in found} == {name: pinned[name] for name, _, _ in found}
    text = (ROOT / "pyproject.toml").read_text()
    direct = set(re.findall(r'^    "([a-z0-9-]+)', text[: text.index("[project.optional")], re.M))
    assert {supply.plain(name) for name in direct} <= {name for name, _, _ in found}


def test_no_index_is_named():
    for path in ("constraints.txt", "hashes.txt", "pyproject.toml", "Makefile", "deploy/Dockerfile"):
        assert not re.search(r"index-url|find-links|https?://\S*(pypi|simple)", (ROOT / path).read_text()), path


def test_hashes_are_those_of_the_reports(tmp_path):
    for number, value in (("one", "a" * 64), ("two", "b" * 64)):
        item = {"metadata": {"name": "Some_Thing", "version": "1.0"}, "download_info": {"archive_info": {"hashes": {}}}}
        item["download_info"]["archive_info"]["hashes"]["sha256"] = value
        project = {"metadata": {"name": "algobot_assets", "version": "0"}, "download_info": {"dir_info": {}}}
        (tmp_path / number).write_text(json.dumps({"install": [item, project]}))
    text = supply.hashes([str(tmp_path / "one"), str(tmp_path / "two")])
    assert text.endswith(f"some-thing==1.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}")


def answer(**vulns: list[str] | None) -> str:
    """What pip-audit writes; None for a package that the service does not know."""
    return json.dumps(
        {
            "dependencies": [
                {"name": name, "skip_reason": "not found"}
                if ids is None
                else {"name": name, "version": "1", "vulns": [{"id": i, "fix_versions": []} for i in ids]}
                for name, ids in vulns.items()
            ]
        }
    )


@pytest.mark.parametrize(
    ("out", "err", "expected", "said"),
    [
        (answer(a=[], b=[]), "", 0, "0 of 2 packages"),
        (answer(a=[], b=["CVE-1"]), "", 1, "b 1: CVE-1, fixed in no version yet"),
        (answer(a=[], b=None), "", 3, "could not be asked about 1"),
        ("", "ConnectionError: Max retries exceeded", 3, "nothing is known: ConnectionError"),
        ("", "No module named pip_audit", 3, "run `make audit`"),
    ],
)
def test_the_audit_says_what_it_knows(monkeypatch, capsys, out, err, expected, said):
    monkeypatch.setattr(supply.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, out, err))
    assert supply.audit() == expected and said in capsys.readouterr().out

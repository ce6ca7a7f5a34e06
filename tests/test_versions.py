"""Code versions: what changes them, what does not, and that no Python version does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from algobot_assets.compute import carry, source_digest, strategies
from algobot_assets.compute.code_version import (
    indicators_code_version,
    ledger_code_version,
    module_digest,
    strategy_code_version,
)
from algobot_assets.compute.strategies import load_strategy_file

digest = source_digest.source_digest
COMPUTE = Path(source_digest.__file__).parent

PLAIN = '''
"""Module docstring."""

import os  # a comment
from math import inf, pi

from algobot_assets.compute import carry as c, kernels

LIMIT = 3


class Thing:
    """Docstring
    of two lines."""

    text = """kept

      # not a comment   
    end"""  # but this is

    def name(self, x):
        "single quotes count as docstring too"
        # only a comment
        if x is None:
            raise ValueError(f"no {self.text} for {x}: 17 " "or more")
        return f"{x!r:>{LIMIT}} {{#}} {'#' + str(x)}" + (  # inside brackets

            "#"
        )
'''


def test_the_digest_is_pinned() -> None:
    assert digest(PLAIN) == PINNED


PINNED = "415d5edba0a94eaa"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another"),
        ("Module docstring.", "Another."),
        ("\n\n\nclass", "\nclass"),
        ("only a comment", "nothing"),
        ("\n", "\r\n"),
        ("LIMIT = 3", "LIMIT = (3)"),
        ("LIMIT = 3", "LIMIT = 0x3"),
        ("def name(self, x):", "def name(\n        self,\n        x,\n    ):"),
        ('"single quotes count as docstring too"', ""),
        ("'#' + str(x)", '"#"+str( x )'.replace('"', "'")),
        ("from algobot_assets.compute import", "from algobot_assets.compute.rooms.moved import"),
        ("carry as c, kernels", "kernels, carry as c"),
        ("import os  # a comment\nfrom math import inf, pi\n", "from math import pi, inf\nimport os\n"),
        ("from math import inf, pi\n", "from math import inf\nfrom math import pi\n"),
        ("import carry as c, kernels", "import kernels\nimport algobot_assets.compute.carry as c"),
        ('f"no {self.text} for {x}: 17 " "or more"', 'f"Without {self.text} nothing follows from {x}"'),
    ],
)
def test_words_layout_and_import_paths_do_not_count(old: str, new: str) -> None:
    changed = PLAIN.replace(old, new)
    assert changed != PLAIN
    assert digest(changed) == digest(PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT: int = 3"),
        ("LIMIT", "BOUND"),
        ("{{#}}", "{{##}}"),
        ("not a comment", "no comment"),
        ("kept\n\n", "kept\n"),
        ("x!r", "x!s"),
        ("x is None", "x is not None"),
        ("carry as c", "carry as d"),
        ("kernels", "candles"),
        ("from math import", "from numpy import"),
        ("raise ValueError", "raise TypeError"),
        ("for {x}: 17", "for {x + x}: 17"),
        ("from algobot_assets.compute import", "from algobot_assets.compute.strategies.other import"),
    ],
)
def test_code_and_the_inside_of_strings_count(old: str, new: str) -> None:
    changed = PLAIN.replace(old, new)
    assert changed != PLAIN
    assert digest(changed) != digest(PLAIN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f(a, *, b=None, c)", "f(a, *, b, c=None)"),
        ("f(a, /, b)", "f(a, b)"),
        ("f(a): ...  # type: x\ndef g(b)", "f(a): return\ndef g(b)"),
    ],
)
def test_signatures_count(one: str, other: str) -> None:
    assert digest(f"def {one}: ...") != digest(f"def {other}: ...")


def test_an_absent_part_is_not_an_empty_one() -> None:
    assert digest("{**a}") != digest("{None: a}")
    assert digest("x[:1]") != digest("x[1:]")
    assert digest("return_value = None") != digest("return_value = ...")
    assert digest('f"{x:}"') == digest('f"{x}"')
    assert digest('"1"') == digest("")  # a text that stands alone is words


def test_a_module_has_the_digest_of_its_text() -> None:
    assert module_digest(carry) == digest(Path(carry.__file__).read_text(encoding="utf-8"))


SCRIPT = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("source_digest", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
texts = json.load(sys.stdin)
json.dump([module.source_digest(text) for text in texts], sys.stdout)
"""


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_digest_is_the_same_on_every_python(version: str) -> None:
    python = interpreter(version)
    texts = [PLAIN, *FSTRINGS] + [path.read_text(encoding="utf-8") for path in sorted(COMPUTE.parent.rglob("*.py"))]
    done = subprocess.run(
        [python, "-I", "-c", SCRIPT, source_digest.__file__],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert json.loads(done.stdout) == [digest(text) for text in texts]


FSTRINGS = [
    'f""',
    'x = f"" f"{a}"',
    'x = "a" f"{b}" "c" f"d{e!r:>{w}.{p}f}"',
    'x = f"{a=} {b = !r:^{w}}"',
    'x = f"{a:}" f"{{}}" rf"\\d{a:n}"',  # an escape in a raw f-string's format is read differently by 3.11 and 3.12
    "x = b'\\xff', 1e400, -0.0, 10**30, 1j, '\\U0001f600 \u00e9 \ud7a3', ..., None, True",
]


def interpreter(version: str) -> str:
    """The path of a Python of that version, on the path or among those of pyenv; skips the test if there is none."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept = [path for path in sorted(root.glob(f"versions/{version}.*/bin/python")) if path.is_file()]
    found = str(kept[-1]) if kept else shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"Python {version} is not installed")
    return found


def test_versions_of_indicators_and_strategies_differ() -> None:
    versions = [indicators_code_version(), ledger_code_version()]
    versions += map(strategy_code_version, ("btc", "ema_cross", "macd"))
    assert len(set(versions)) == len(versions)
    assert all(len(version) == 16 and int(version, 16) >= 0 for version in versions)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for strategy files whose modules can be imported; all is forgotten after the test."""
    monkeypatch.setattr(strategies, "_files", {})
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("own_helper", "own_constants"):
        sys.modules.pop(name, None)


def loaded(folder: Path, body: str) -> str:
    path = folder / "own.py"
    path.write_text(dedent(body))
    load_strategy_file(path)
    return strategy_code_version("own")


RULE = """
    {imports}
    from algobot_assets.compute.strategy import BUY, strategy

    @strategy("own")
    def own(bars, p):
        return bars.decide((BUY, bars.close > 1.0))  {comment}
"""


def test_a_strategy_file_counts_as_it_was_when_loaded(folder: Path) -> None:
    first = loaded(folder, RULE.format(imports="", comment=""))
    assert loaded(folder, RULE.format(imports="", comment="# why")) == first
    (folder / "own.py").write_text("changed after loading")
    assert strategy_code_version("own") == first
    assert loaded(folder, RULE.format(imports="", comment="").replace("1.0", "2.0")) != first


def test_modules_a_strategy_imports_count_at_any_remove(folder: Path) -> None:
    helper, constants = folder / "own_helper.py", folder / "own_constants.py"
    source = RULE.format(imports="import math, numpy\n    from own_helper import level", comment="")

    def version(limit: int) -> str:
        for name in ("own_helper", "own_constants"):
            sys.modules.pop(name, None)
        helper.write_text("import own_constants as c\n\ndef level():\n    return c.LIMIT\n")
        constants.write_text(f"LIMIT = {limit}\n")
        return loaded(folder, source)

    without = loaded(folder, RULE.format(imports="", comment=""))
    one = version(100)
    assert one != without
    assert version(10_000) != one


def test_relative_imports_of_a_package_count(folder: Path) -> None:
    package = folder / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("from .limits import LIMIT\n")
    source = RULE.format(imports="from own_package import LIMIT", comment="")

    def version(limit: int) -> str:
        for name in ("own_package", "own_package.limits"):
            sys.modules.pop(name, None)
        (package / "limits.py").write_text(f"LIMIT = {limit}\n")
        return loaded(folder, source)

    assert version(100) != version(10_000)


def test_a_room_of_compute_that_a_strategy_imports_counts(folder: Path) -> None:
    plain = loaded(folder, RULE.format(imports="", comment=""))
    line = "from algobot_assets.compute.indicators import rsi"
    text = dedent(RULE.format(imports=line, comment=""))
    assert loaded(folder, RULE.format(imports=line, comment="")) != plain
    assert strategy_code_version("own") != digest(text)

"""Code versions: what changes them, what does not, and that no Python version does."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from algobot_assets.compute import carry, indicators, strategies
from algobot_assets.compute.code_version import code_version, essence, indicators_code_version, source_digest
from algobot_assets.compute.strategies import load_strategy_file

PLAIN = '''
"""Module docstring."""

import os  # a comment

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
        return f"{x!r:>{LIMIT}} {{#}} {'#' + str(x)}" + (  # inside brackets

            "#"
        )
'''

ESSENCE = '''import os
LIMIT = 3
class Thing:
    text = """kept

      # not a comment   
    end"""
    def name(self, x):
        return f"{x!r:>{LIMIT}} {{#}} {'#' + str(x)}" + (
            "#"
        )'''


def test_the_essence_of_a_source() -> None:
    assert essence(PLAIN) == ESSENCE
    assert essence(ESSENCE) == ESSENCE


def test_the_digest_is_the_same_on_every_python() -> None:
    assert source_digest(PLAIN) == source_digest(ESSENCE) == PINNED


PINNED = "5d1a8b34b8922290"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another"),
        ("Module docstring.", "Another."),
        ("\n\n\nclass", "\nclass"),
        ("only a comment", "nothing"),
        ("\n", "\r\n"),
    ],
)
def test_words_and_layout_between_the_lines_change_nothing(old: str, new: str) -> None:
    changed = PLAIN.replace(old, new)
    assert changed != PLAIN
    assert source_digest(changed) == source_digest(PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("{{#}}", "{{##}}"),
        ("not a comment", "no comment"),
        ("kept\n\n", "kept\n"),
    ],
)
def test_code_and_the_inside_of_strings_count(old: str, new: str) -> None:
    changed = PLAIN.replace(old, new)
    assert changed != PLAIN
    assert source_digest(changed) != source_digest(PLAIN)


def test_sources_are_told_apart_by_order_and_border() -> None:
    assert source_digest("a = 1", "b = 2") != source_digest("b = 2", "a = 1")
    assert source_digest("a = 1\nb = 2") != source_digest("a = 1", "b = 2")
    assert source_digest(carry) == source_digest(Path(carry.__file__).read_text())
    assert source_digest(carry, indicators) != source_digest(carry)


def test_versions_of_indicators_and_strategies_differ() -> None:
    versions = [indicators_code_version(), *map(code_version, ("btc", "ema_cross", "macd"))]
    assert len(set(versions)) == len(versions)
    assert all(len(version) == 16 and int(version, 16) >= 0 for version in versions)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    return code_version("own")


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
    assert code_version("own") == first
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


def test_a_room_of_compute_that_a_strategy_imports_counts(folder: Path) -> None:
    plain = loaded(folder, RULE.format(imports="", comment=""))
    line = "from algobot_assets.compute.indicators import rsi"
    text = dedent(RULE.format(imports=line, comment=""))
    assert loaded(folder, RULE.format(imports=line, comment="")) != plain
    assert code_version("own") != source_digest(text)

"""Code versions: short digests of the sources that define the bits of a table.

Here: the digest and what stands behind indicators and each strategy. Not here: what is done with a version
(the lineage records it and calls stale what another version computed).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import sys
import sysconfig
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

from algobot_assets.compute import candles, carry, indicators, kernels
from algobot_assets.compute.strategies import registered
from algobot_assets.compute.strategy import bars

_PACKAGE = __name__.partition(".")[0]
_DECLARATIONS = (f"{_PACKAGE}.compute.strategy", f"{_PACKAGE}.compute.strategy.definition")
_INSTALLED = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}


def source_digest(*sources: ModuleType | str) -> str:
    """Sixteen hex digits of the SHA-256 of sources (modules, or texts of Python code) in the order given.

    Comments, docstrings and blank lines do not count, nor does the end of line; everything else does, layout
    included. The same on every Python from 3.11 to 3.13. A module is read once per process.
    """
    digest = hashlib.sha256()
    for source in sources:
        text = source if isinstance(source, str) else _text(source)
        digest.update(essence(text).encode() + b"\0")
    return digest.hexdigest()[:16]


def indicators_code_version() -> str:
    """Version of the code that computes the stored indicators."""
    return source_digest(carry, kernels, candles, indicators)


def code_version(strategy_type: str) -> str:
    """Version of the code that computes a strategy's signals: its file, the bars, and modules its file
    imports.

    Of the imported modules those count that are neither installed packages nor this package's rooms outside
    `compute`, and what they import in turn. SettingsError for an unknown strategy.
    """
    known = registered(strategy_type)
    modules = _own_imports(known.text, known.strategy.module)
    return source_digest(carry, kernels, candles, bars, known.text, *(_text(sys.modules[name]) for name in modules))


@cache
def essence(text: str) -> str:
    """Python code without comments, docstrings and blank lines, lines otherwise as written.

    Cut out by position, not put together from tokens, because Python 3.12 splits f-strings into other tokens.
    """
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    cuts: list[tuple[tuple[int, int], tuple[int, int]]] = []
    statement: list[tokenize.TokenInfo] = []
    layout = (tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
    for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL):
            cuts.append((token.start, token.end if token.type == tokenize.COMMENT else token.start))
        elif token.type == tokenize.NEWLINE:
            if all(part.type == tokenize.STRING for part in statement):
                cuts += [(part.start, part.end) for part in statement]
            cuts.append((token.start, token.start))
            statement = []
        elif token.type not in layout:
            statement.append(token)
    # Rows with a cut lose the blanks at their end, or themselves if nothing is left; other rows, such as
    # those inside a long string, stay as they are.
    touched: set[int] = set()
    for (first, left), (last, right) in sorted(cuts, reverse=True):
        touched.update(range(first, last + 1))
        if (first, left) != (last, right):
            lines[first - 1 : last] = [
                lines[first - 1][:left] + lines[last - 1][right:],
                *[""] * (last - first),
            ]
    kept = [
        line.rstrip() if row in touched else line
        for row, line in enumerate(lines, start=1)
        if line.strip() or row not in touched
    ]
    return "\n".join(kept)


def _own_imports(text: str, module: str) -> list[str]:
    """Names of the modules a source imports, at any remove, whose code is the user's or of `compute`."""
    found: set[str] = set()
    todo = [(text, module)]
    while todo:
        text, module = todo.pop()
        for name in _imported(text, module):
            if name not in found and name != module and _is_own(name):
                found.add(name)
                todo.append((_text(sys.modules[name]), name))
    return sorted(found)


def _imported(text: str, module: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.rpartition(".")[0]
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _is_own(name: str) -> bool:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        return False
    if name.partition(".")[0] == _PACKAGE:
        return name.startswith(f"{_PACKAGE}.compute.") and name not in _DECLARATIONS
    return not any(Path(file).is_relative_to(folder) for folder in _INSTALLED if folder)


@cache
def _text(module: ModuleType) -> str:
    """The module's source, read once: when it changes on disk, the module in memory does not."""
    if module.__spec__ is not None and module.__spec__.loader is not None:
        return module.__spec__.loader.get_source(module.__name__)
    return Path(module.__file__).read_text(encoding="utf-8")

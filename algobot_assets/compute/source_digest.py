"""Digest what a Python source computes, so that words and layout can change without making stored rows stale.

The digest is taken over the syntax tree in a form of our own, because `ast.dump` writes other text on other Python
versions. This module imports nothing but the standard library: a test runs it under every Python that is installed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.abc import InspectLoader
from pathlib import Path
from types import ModuleType

_PACKAGE = __name__.partition(".")[0] if "." in __name__ else "algobot_assets"
#: Modules of the user's own may lie here, so these import paths do count.
_STRATEGIES = f"{_PACKAGE}.compute.strategies"
_IGNORED = {"ctx", "kind", "type_comment", "type_ignores"}


def source_digest(text: str) -> str:
    """Return sixteen hex digits of the SHA-256 of a module's code.

    Layout, comments and docstrings do not count, nor do the order of imports, the paths of imports from this
    package (the imported names do), and literals inside ``raise``. Everything else does: names, constants,
    operators, annotations. The digest is the same on Python 3.11 to 3.14.

    >>> source_digest("x = 1  # one") == source_digest("x = (1)")
    True
    >>> source_digest("x = 1") == source_digest("x = 2")
    False
    """
    return _sha256(_form(ast.parse(text.removeprefix("\ufeff"))))


def combined_digest(digests: Iterable[str]) -> str:
    """Return the digest of several digests in the order given."""
    return _sha256("\0".join(digests))


@cache
def source_text(module: ModuleType) -> str:
    """Return a module's source, read once per process."""
    loader = module.__spec__.loader if module.__spec__ is not None else None
    if isinstance(loader, InspectLoader):
        return loader.get_source(module.__name__) or ""
    if module.__file__ is None:
        raise FileNotFoundError(f"{module.__name__} has no source file.")
    return Path(module.__file__).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _form(value: object, raised: bool = False) -> str:
    """Write a node, a list of nodes or a plain value in a form that is equal only for equal code."""
    if isinstance(value, list):
        return "[" + ",".join(_items(value, raised)) + "]"
    if isinstance(value, ast.JoinedStr):
        return "f[" + ",".join(_string_parts(value, raised)) + "]"
    if isinstance(value, ast.Constant):
        return "literal" if raised else _constant(value)
    if not isinstance(value, ast.AST):
        return ascii(value)
    raised = raised or isinstance(value, ast.Raise)
    fields = []
    for name in sorted(set(value._fields) - _IGNORED):
        field = getattr(value, name, None)
        form = _form(field, raised)
        # an absent part is None, an empty list or an empty format, depending on the Python version
        if field is not None and form != "[]" and (name, form) != ("format_spec", "f[]"):
            fields.append(f"{name}={form}")
    return f"{type(value).__name__}({','.join(fields)})"


def _constant(node: ast.Constant) -> str:
    return f"{type(node.value).__name__}:{node.value!a}"


def _items(nodes: list[object], raised: bool) -> Iterator[str]:
    """Return the forms of a list without docstrings; imports that follow one another are sorted."""
    imports: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(_imported(node))
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        yield from sorted(imports)
        imports.clear()
        yield _form(node, raised)
    yield from sorted(imports)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """One text for each imported name, with its origin unless that is this package."""
    origin = "" if isinstance(node, ast.Import) else "." * node.level + (node.module or "")
    for alias in node.names:
        name, source = alias.name, origin
        if isinstance(node, ast.Import) and alias.asname and "." in name:
            source, _, name = name.rpartition(".")  # `import a.b as b` is `from a import b`
        elif isinstance(node, ast.Import) and _is_ours(name):
            name = _PACKAGE  # the name that is bound; which module is meant stands where it is used
        if _is_ours(source):
            source = _PACKAGE
        yield f"import({source!a},{name},{alias.asname or name})"


def _is_ours(path: str) -> bool:
    return f"{path}.".startswith(f"{_PACKAGE}.") and not f"{path}.".startswith(f"{_STRATEGIES}.")


def _string_parts(node: ast.JoinedStr, raised: bool) -> Iterator[str]:
    """Return the parts of an f-string; adjacent texts are joined and empty ones dropped, as Python versions differ."""
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        if text and not raised:
            yield ascii(text)
        text = ""
        yield _form(part, raised)
    if text and not raised:
        yield ascii(text)

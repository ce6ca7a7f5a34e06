"""Code versions: short digests of the sources that decide what a table holds.

Lineage records the version that computed each day; a day that another version computed is stale.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

from algobot_assets.compute import candles, carry, indicators, kernels, units
from algobot_assets.compute.ledger import kernel, run, state, terms
from algobot_assets.compute.metrics import performance
from algobot_assets.compute.source_digest import combined_digest, source_digest, source_text
from algobot_assets.compute.strategies import Registered, registered
from algobot_assets.compute.strategy import bars

_PACKAGE = __name__.partition(".")[0]
_DECLARATIONS = (f"{_PACKAGE}.compute.strategy", f"{_PACKAGE}.compute.strategy.definition")
_INSTALLED = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}

INDICATOR_SOURCES = (carry, kernels, candles, indicators)
"""The modules that compute the stored indicators."""
LEDGER_SOURCES = (kernel, units, terms, state, performance, run)
"""The modules that decide what the ledger's three tables hold."""
STRATEGY_SOURCES = (carry, kernels, candles, bars)
"""The modules that compute for every strategy, besides its own file."""


def indicators_code_version() -> str:
    """Return the version of the code that computes the stored indicators."""
    return combined_digest(map(module_digest, INDICATOR_SOURCES))


def ledger_code_version() -> str:
    """Return the version of the code that computes trades, performance and backtest results."""
    return combined_digest(map(module_digest, LEDGER_SOURCES))


def strategy_code_version(strategy_type: str) -> str:
    """Return the version of the code that computes a strategy's signals.

    It covers the strategy's file, the modules that compute for every strategy, and the modules that the file
    imports, directly or not, unless they belong to an installed package or to another room than ``compute``.
    SettingsError if the strategy is unknown.
    """
    return version_of_strategy(registered(strategy_type))


def version_of_strategy(strategy: Registered, frozen: Mapping[str, str] | None = None) -> str:
    """Return the code version of a strategy; a module that ``frozen`` names counts with the digest given there.

    Migrations use ``frozen`` to tell the version that a certain release gave to a user's strategy.
    """
    digests = {module.__name__: module_digest(module) for module in STRATEGY_SOURCES} | dict(frozen or {})
    imported = own_imports(strategy.text, strategy.strategy.module)
    return combined_digest(
        [
            *(digests[module.__name__] for module in STRATEGY_SOURCES),
            _text_digest(strategy.text),
            *(digests.get(name) or module_digest(sys.modules[name]) for name in imported),
        ]
    )


def module_digest(module: ModuleType) -> str:
    """Return the digest of a module's source as it was when it was first asked for.

    A module that changes on disk does not change in memory.
    """
    return _text_digest(source_text(module))


_text_digest = cache(source_digest)


def own_imports(text: str, module: str) -> list[str]:
    """Return the names of the modules that a source imports, directly or not, and that count for its version."""
    found: set[str] = set()
    todo = [(text, module)]
    while todo:
        text, module = todo.pop()
        for name in _imported(text, module):
            if name not in found and name != module and _is_own(name):
                found.add(name)
                todo.append((source_text(sys.modules[name]), name))
    return sorted(found)


def _imported(text: str, module: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            own = getattr(sys.modules.get(module), "__package__", None)  # that of a package's __init__ is itself
            package = module.rpartition(".")[0] if own is None else own
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

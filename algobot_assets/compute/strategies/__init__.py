"""Find strategies by type: every file of this package, and files loaded by path.

To add a strategy, put a file with a function under `@strategy` here (see `compute.strategy`), or load such a file with
`load_strategy_file`. A strategy's type is the name it is registered by.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from algobot_assets.compute.source_digest import source_text
from algobot_assets.compute.strategy import Strategy
from algobot_assets.errors import SettingsError


@dataclass(frozen=True)
class Registered:
    """A strategy with its origin and the text it was loaded from, which decides its code version."""

    strategy: Strategy
    origin: str
    text: str


_files: dict[str, Registered] = {}


def get_strategy(strategy_type: str) -> Strategy:
    """Return the strategy of that type. If it is unknown, a SettingsError lists all types."""
    return registered(strategy_type).strategy


def registered(strategy_type: str) -> Registered:
    """Return the strategy of that type with its source. If it is unknown, a SettingsError lists all types."""
    known = _built_in() | _files
    if strategy_type not in known:
        raise SettingsError(f"There is no strategy of type {strategy_type!r}. There are: {', '.join(sorted(known))}.")
    return known[strategy_type]


def strategy_types() -> tuple[str, ...]:
    """Return the types of all strategies, in alphabetical order."""
    return tuple(sorted(_built_in() | _files))


def load_strategy_file(path: str | Path) -> tuple[str, ...]:
    """Register the strategies of a Python file and return their types.

    Loading a file again replaces what it registered before. A file also replaces the strategy of the same type in this
    package, so that a copy can be edited and tried elsewhere. SettingsError, and no change, if the file cannot be read
    or run, registers nothing, or registers a type of another loaded file.
    """
    path = Path(path).resolve()
    name = f"algobot_strategy_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    try:
        text = path.read_text(encoding="utf-8")
        module = ModuleType(name)
        module.__file__ = str(path)
        before, sys.modules[name] = sys.modules.get(name), module
        try:
            exec(compile(text, str(path), "exec"), module.__dict__)
        except BaseException:
            sys.modules.pop(name)
            if before is not None:
                sys.modules[name] = before
            raise
    except Exception as error:
        raise SettingsError(f"The strategy file {path} cannot be loaded: {type(error).__name__}: {error}") from error
    found = _registered_by(module, str(path), text)
    _refuse_doubles(found, {kind: one for kind, one in _files.items() if one.origin != str(path)})
    for kind in [kind for kind, one in _files.items() if one.origin == str(path)]:
        del _files[kind]
    _files.update(found)
    return tuple(sorted(found))


@cache
def _built_in() -> dict[str, Registered]:
    known: dict[str, Registered] = {}
    for name in sorted(info.name for info in pkgutil.iter_modules(__path__, f"{__name__}.")):
        module = importlib.import_module(name)
        found = _registered_by(module, name, source_text(module))
        _refuse_doubles(found, known)
        known |= found
    return known


def _registered_by(module: ModuleType, origin: str, text: str) -> dict[str, Registered]:
    """Return the strategies that a module defines, without those it imports."""
    own = [value for value in vars(module).values() if isinstance(value, Strategy) and value.module == module.__name__]
    if not own:
        raise SettingsError(f"{origin} registers no strategy. Put @strategy(...) above its rule.")
    found = {one.name: Registered(one, origin, text) for one in own}
    if len(found) < len(set(map(id, own))):
        raise SettingsError(f"{origin} registers one strategy type twice. Give each rule a name of its own.")
    return found


def _refuse_doubles(found: dict[str, Registered], others: dict[str, Registered]) -> None:
    for kind in sorted(found.keys() & others.keys()):
        raise SettingsError(
            f"{found[kind].origin} registers strategy type {kind!r}, which {others[kind].origin} has already."
            " Rename one of them."
        )

"""Find strategies by type: those of this package, installed ones, and the files of the user.

A strategy's type is the name it is registered by. It may lie in

- a file in the project's folder `strategies/`;
- an installed package that lists its module under the entry-point group `algobot.strategies`;
- any module: then the type is written as a dotted path, `package.module.rule`;
- a file that `load_strategy_file` is given.

A file that cannot be imported only stops the strategies it defines.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from algobot_assets.compute.source_digest import source_text
from algobot_assets.compute.strategy import Strategy
from algobot_assets.compute.strategy_files import ImportFailure, import_file, import_named
from algobot_assets.errors import SettingsError
from algobot_assets.settings import project_root

ENTRY_POINTS = "algobot.strategies"


@dataclass(frozen=True)
class Registered:
    """A strategy with its origin and the text it was loaded from, which decides its code version."""

    strategy: Strategy
    origin: str
    text: str


@dataclass(frozen=True)
class Found:
    """Strategies by type, and the sources that could not be used."""

    known: dict[str, Registered]
    failed: tuple[ImportFailure, ...] = ()


_files: dict[str, Registered] = {}


def get_strategy(strategy_type: str) -> Strategy:
    """Return the strategy of that type. If it is unknown, a SettingsError lists all types."""
    return registered(strategy_type).strategy


def registered(strategy_type: str) -> Registered:
    """Return the strategy of that type with its source.

    SettingsError: if its source cannot be used, with file and line; if it is unknown, with all types.
    """
    known = _all_known()
    if strategy_type in known:
        return known[strategy_type]
    if "." in strategy_type:
        return _by_path(strategy_type)
    failure = failure_of(strategy_type)
    if failure is not None:
        raise SettingsError(failure)
    raise SettingsError(f"There is no strategy of type {strategy_type!r}. There are: {', '.join(sorted(known))}.")


def strategy_types() -> tuple[str, ...]:
    """Return the types of all strategies but those written as dotted paths, in alphabetical order."""
    return tuple(sorted(_all_known()))


def failure_of(strategy_type: str) -> str | None:
    """Return why a type that is not known may be missing: a sentence about the broken source that mentions it."""
    named = re.compile(rf"""["']{re.escape(strategy_type)}["']""")
    for failure in failed_sources():
        if failure.name == strategy_type or named.search(failure.text):
            return failure.sentence
    return None


def failed_sources() -> tuple[ImportFailure, ...]:
    """Return the files and installed modules that should hold strategies and cannot be used."""
    return _installed().failed + _of_project(project_root()).failed


def load_strategy_file(path: str | Path) -> tuple[str, ...]:
    """Register the strategies of a Python file and return their types.

    Loading a file again replaces what it registered before. A file also replaces the strategy of the same type that is
    found otherwise, so that a copy can be edited and tried elsewhere. SettingsError, and no change, if the file cannot
    be read or run, registers nothing, or registers a type of another loaded file.
    """
    path = Path(path).resolve()
    module, text = import_file(path, project_root())
    found = _registered_by(module, str(path), text)
    if not found:
        raise SettingsError(f"{path} registers no strategy. Put @strategy(...) above its rule.")
    _refuse_doubles(found, {kind: one for kind, one in _files.items() if one.origin != str(path)})
    for kind in [kind for kind, one in _files.items() if one.origin == str(path)]:
        del _files[kind]
    _files.update(found)
    return tuple(sorted(found))


def _all_known() -> dict[str, Registered]:
    return _built_in() | _installed().known | _of_project(project_root()).known | _files


@cache
def _built_in() -> dict[str, Registered]:
    known: dict[str, Registered] = {}
    for name in sorted(info.name for info in pkgutil.iter_modules(__path__, f"{__name__}.")):
        module = importlib.import_module(name)
        found = _registered_by(module, name, source_text(module))
        _refuse_doubles(found, known)
        known |= found
    return known


@cache
def _installed() -> Found:
    """Return the strategies of the modules that installed packages list under the entry-point group."""
    known: dict[str, Registered] = {}
    failed: list[ImportFailure] = []
    for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.value):
        try:
            module = import_named(point.module)
            found = _registered_by(module, point.module, source_text(module))
            if not found:
                raise SettingsError(f"{point.module} registers no strategy. Put @strategy(...) above its rule.")
            _refuse_doubles(found, known | _built_in())
        except SettingsError as error:
            failed.append(ImportFailure.of(error, point.name))
        else:
            known |= found
    return Found(known, tuple(failed))


@cache
def _of_project(root: Path | None) -> Found:
    """Return the strategies of the files in the project's folder; a file without any is a helper of others."""
    known: dict[str, Registered] = {}
    failed: list[ImportFailure] = []
    others = _built_in() | _installed().known
    for path in sorted((root / "strategies").glob("*.py")) if root is not None else ():
        try:
            module, text = import_file(path, root)
            found = _registered_by(module, str(path), text)
            _refuse_doubles(found, known | others)
        except SettingsError as error:
            failed.append(ImportFailure.of(error, path.stem, path))
        else:
            known |= found
    return Found(known, tuple(failed))


def _by_path(strategy_type: str) -> Registered:
    """Return the strategy that a dotted path names: the module, then the rule in it."""
    name, _, rule = strategy_type.rpartition(".")
    module = import_named(name)
    found = getattr(module, rule, None)
    if not isinstance(found, Strategy):
        raise SettingsError(f"Module {name} has no strategy {rule!r}. Put @strategy(...) above that function.")
    return Registered(found, name, source_text(module))


def _registered_by(module: ModuleType, origin: str, text: str) -> dict[str, Registered]:
    """Return the strategies that a module defines, without those it imports."""
    own = [value for value in vars(module).values() if isinstance(value, Strategy) and value.module == module.__name__]
    found = {one.name: Registered(one, origin, text) for one in own}
    if len(found) < len(set(map(id, own))):
        raise SettingsError(f"{origin} registers one strategy type twice. Give each rule a name of its own.")
    return found


def _refuse_doubles(found: dict[str, Registered], others: dict[str, Registered]) -> None:
    for kind in sorted(found.keys() & others.keys()):
        raise SettingsError(
            f"{_place(found[kind])} registers strategy type {kind!r}, which {_place(others[kind])} has already."
            " Rename one of them."
        )


def _place(one: Registered) -> str:
    """Return the file, or module, and line of a rule."""
    code = getattr(one.strategy.rule, "__code__", None)
    return f"{one.origin}, line {code.co_firstlineno}," if code is not None else one.origin

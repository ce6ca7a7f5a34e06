"""The strategies there are: every file of this package, and files of one's own given by path.

Adding a strategy is adding a file here with a function under `@strategy` (see `compute.strategy`), or loading
such a file with `load_strategy_file`. Nothing else has to be told. A strategy's type is its registered name.
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
    """A strategy, where it came from, and the text it was loaded from, which decides its code version."""

    strategy: Strategy
    origin: str
    text: str


_files: dict[str, Registered] = {}


def get_strategy(strategy_type: str) -> Strategy:
    """The strategy of that type; SettingsError that lists those there are."""
    return registered(strategy_type).strategy


def registered(strategy_type: str) -> Registered:
    """The strategy of that type with its source; SettingsError that lists those there are."""
    known = _built_in() | _files
    if strategy_type not in known:
        raise SettingsError(f"There is no strategy of type {strategy_type!r}. There are: {', '.join(sorted(known))}.")
    return known[strategy_type]


def strategy_types() -> tuple[str, ...]:
    """The types of all strategies, in alphabetical order."""
    return tuple(sorted(_built_in() | _files))


def load_strategy_file(path: str | Path) -> tuple[str, ...]:
    """Register the strategies of a Python file, and return their types.

    Loading a file again replaces what it registered before, and a file stands for the one of this package that
    has its type: so a strategy that is kept here is edited and tried elsewhere. SettingsError where the file cannot
    be read or run, registers nothing, or registers a type of another loaded file; then nothing changes.
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
    """The strategies defined in a module; those it merely imports are not its own."""
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
            " Give it another name."
        )

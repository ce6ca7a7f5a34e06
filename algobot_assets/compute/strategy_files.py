"""Import strategies' modules and files; an error names file and line in one sentence."""

from __future__ import annotations

import importlib
import sys
import traceback
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from algobot_assets.errors import SettingsError

#: The package that the files of a project's folder `strategies/` form, so that `from .levels import level` works there.
PROJECT_PACKAGE = "algobot_project_strategies"


@dataclass(frozen=True)
class ImportFailure:
    """A source of strategies that cannot be used: the name it has, its text, and a sentence for people."""

    name: str
    text: str
    sentence: str

    @classmethod
    def of(cls, error: SettingsError, name: str, path: Path | None = None) -> ImportFailure:
        """Describe the failure of a file, or of an installed module."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path is not None else ""
        except OSError:
            text = ""
        return cls(name, text, str(error))


def import_file(path: Path, project: Path | None) -> tuple[ModuleType, str]:
    """Run a Python file as a module of its own; return it with its text. SettingsError if that fails."""
    folder = project / "strategies" if project is not None else None
    inside = folder is not None and path.parent == folder
    if inside and folder is not None:
        _make_package(folder)
        name = f"{PROJECT_PACKAGE}.{path.stem}"
    else:
        name = f"algobot_strategy_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    before = sys.modules.get(name)
    try:
        text = path.read_text(encoding="utf-8")
        module = ModuleType(name)
        module.__file__ = str(path)
        module.__package__ = PROJECT_PACKAGE if inside else ""
        sys.modules[name] = module
        exec(compile(text, str(path), "exec"), module.__dict__)
    except Exception as error:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        raise SettingsError(f"The strategy file {path} cannot be loaded: {describe(error, path)}") from error
    return module, text


def import_named(name: str) -> ModuleType:
    """Import a module by its name. SettingsError if that fails."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        spec = sys.modules.get(name.partition(".")[0])
        file = getattr(spec, "__file__", None)
        raise SettingsError(
            f"The strategies' module {name} cannot be imported: {describe(error, Path(file) if file else None)}"
        ) from error


def describe(error: Exception, path: Path | None) -> str:
    """Return kind and text of an error, with the deepest line of the user's that it passed, and a remedy if known."""
    if isinstance(error, SyntaxError):
        message, file, line = error.msg, error.filename, error.lineno
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if path is not None and _is_users(f, path)]
        message, file, line = str(error), frames[-1].filename if frames else None, frames[-1].lineno if frames else None
    place = f" ({Path(file).name}, line {line})" if file else ""
    missing = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else ""
    remedy = f". Install the package that provides {missing}, or correct the import." if missing else ""
    return f"{type(error).__name__}: {message}{place}{remedy}"


def _is_users(frame: traceback.FrameSummary, path: Path) -> bool:
    return Path(frame.filename) == path or Path(frame.filename).is_relative_to(path.parent)


def _make_package(folder: Path) -> None:
    """Make the project's folder importable: as a package, and by plain names after everything installed."""
    package = sys.modules.get(PROJECT_PACKAGE)
    if package is None or list(package.__path__) != [str(folder)]:
        package = ModuleType(PROJECT_PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[PROJECT_PACKAGE] = package
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

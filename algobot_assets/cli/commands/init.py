"""`algobot init`: create a project."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

import click

from algobot_assets.cli.output import emit, json_option
from algobot_assets.errors import SettingsError

#: A complete project called mybot. That name is replaced in its files and folders.
TEMPLATE = Path(__file__).parents[1] / "project"
_NAME = "mybot"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
def init(folder: Path, as_json: bool) -> None:
    """Create a project in FOLDER: settings, a strategy, definitions, a test.

    FOLDER is created, or holds at most a virtual environment and .git. Its name becomes the name of the project's
    Python package.
    """
    folder = folder.resolve()
    module = _module_name(folder.name)
    _require_empty(folder)
    files = []
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            files.append(str(source.relative_to(TEMPLATE)).replace(_NAME, module))
            target = folder / files[-1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text(encoding="utf-8").replace(_NAME, module), encoding="utf-8")
    if as_json:
        emit({"project": module, "folder": str(folder), "files": files})
        return
    click.echo(f"Created the project {module} in {folder}. Next:")
    if folder != Path.cwd():
        click.echo(f"  cd {folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder}")
    click.echo("  algobot demo         database, candles, nine tables, backtests, a summary")
    click.echo("  algobot up           the UI, at http://127.0.0.1:3000")


def _module_name(name: str) -> str:
    """Return the Python name for a folder's name. SettingsError if there is none, or another package has it."""
    module = name.lower().replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        raise SettingsError(f"{name!r} is not a name for a project. Use letters, digits, - and _, like mybot.")
    if module in ("strategies", "tests") or importlib.util.find_spec(module) is not None:
        raise SettingsError(f"The Python package {module} exists already. Choose another name for the folder.")
    return module


def _require_empty(folder: Path) -> None:
    if not folder.exists():
        return
    held = [item.name for item in sorted(folder.iterdir()) if item.name != ".git" and not _is_environment(item)]
    if held:
        raise SettingsError(f"{folder} is not empty ({held[0]} is in it). Choose a folder that does not exist yet.")


def _is_environment(item: Path) -> bool:
    return (item / "pyvenv.cfg").is_file()

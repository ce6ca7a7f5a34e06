"""Count the rooms of the package and check their order; the figures of docs/architecture.md come from here.

python docs/_build/house.py
"""

from __future__ import annotations

import configparser
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "algobot_assets"


def order() -> list[str]:
    """Return the rooms from the top floor to the bottom, as .importlinter declares them."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser["importlinter:contract:rooms"]["layers"].split()


def arrows() -> set[tuple[str, str]]:
    """Return each pair of rooms of which the first imports from the second."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    rooms = {name.split(".")[1] for name in graph.modules if name.count(".") == 1}
    found = set()
    for module in graph.modules - {PACKAGE}:
        room = module.split(".")[1]
        found |= {(room, target.split(".")[1]) for target in graph.find_modules_directly_imported_by(module)
                  if target.count(".") and target.split(".")[1] in rooms}  # fmt: skip
    return {(room, other) for room, other in found if room != other}


def floors(pairs: set[tuple[str, str]], rooms: list[str]) -> int:
    """Return the number of floors: the longest way down from room to room, rooms counted."""
    height: dict[str, int] = {}
    for room in reversed(rooms):  # lower rooms first
        height[room] = 1 + max((height.get(below, 0) for above, below in pairs if above == room), default=0)
    return max(height.values())


def circles(pairs: set[tuple[str, str]], rooms: list[str]) -> int:
    """Return the number of rooms that import each other, directly or through others."""
    reach = {room: {below for above, below in pairs if above == room} for room in rooms}
    for middle in rooms:
        for room in rooms:
            if middle in reach[room]:
                reach[room] |= reach[middle]
    return sum(room in reach[room] for room in rooms)


def figures() -> dict[str, int]:
    """Return the figures of the table in docs/architecture.md."""
    rooms, pairs = order(), arrows()
    modules = [path.stem for path in (ROOT / PACKAGE).glob("*.py") if not path.stem.startswith("__")]
    folders = [path for path in (ROOT / PACKAGE).iterdir() if (path / "__init__.py").is_file()]
    return {
        "floors": floors(pairs, rooms),
        "rooms": len(folders),
        "arrows upwards": sum(rooms.index(above) >= rooms.index(below) for above, below in pairs),
        "circles": circles(pairs, rooms),
        "modules at top level": len(modules),
    }


if __name__ == "__main__":
    for name, figure in figures().items():
        print(f"| {name} | {figure} |")
    print(f"{len(arrows())} arrows")

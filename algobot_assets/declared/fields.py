"""Shapes that several sections of the declared file share: mappings with known keys, and entries by date.

They remember the line of every value, so that an error can name it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal

from algobot_assets.declared.rules import Refusal
from algobot_assets.declared.yaml_file import (
    Mapping,
    Node,
    Problem,
    Sequence,
    day_of,
    decimal_of,
    nearest,
    shown,
)

#: Lines of the values of an entry, by the path to each.
Lines = dict[tuple[str | int, ...], int]


class Fields:
    """A mapping that allows only ``known`` keys; ``what`` names it in errors."""

    def __init__(self, node: Node, what: str, known: Collection[str]) -> None:
        if not isinstance(node, Mapping):
            raise Problem(node.line, f"{what} is {shown(node)}; write keys and values: {', '.join(known)}")
        for key, place in node.keys.items():
            if key not in known:
                raise Problem(place.line, f"{what} has the unknown key {shown(place)}; {nearest(key, known)}")
        self.node = node
        self.what = what

    def __contains__(self, key: str) -> bool:
        return key in self.node.values

    def __getitem__(self, key: str) -> Node:
        if key not in self:
            raise Problem(self.node.line, f"{self.what} has no `{key}`; add it")
        return self.node.values[key]

    def line_of(self, key: str) -> int:
        """Return the line of ``key``, or that of the mapping if the key is absent."""
        place = self.node.keys.get(key)
        return self.node.line if place is None else place.line

    def decimal(self, key: str) -> Decimal:
        """Return the number under ``key``."""
        return decimal_of(self[key], key)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Turn a Refusal into a Problem at the line of the refused value."""
        try:
            yield
        except Refusal as refusal:
            raise Problem(self.line_of(str(refusal.path[0]) if refusal.path else ""), str(refusal)) from None


def dated(node: Node, what: str, known: Collection[str], default: date) -> list[tuple[date, Fields]]:
    """Return the dated entries under a key: one mapping, or a list by effective_from, which the first may omit."""
    items = node.items if isinstance(node, Sequence) else (node,)
    if not items:
        raise Problem(node.line, f"{what} is an empty list; add an entry, or remove the key")
    entries: list[tuple[date, Fields]] = []
    for item in items:
        fields = Fields(item, what, known)
        if "effective_from" in fields:
            day = day_of(fields["effective_from"], "effective_from")
        elif not entries:
            day = default
        else:
            raise Problem(item.line, f"{what} after the first has no effective_from; add the day from which it holds")
        if entries and day <= entries[-1][0]:
            raise Problem(
                fields.line_of("effective_from"),
                f"{what}: {day} does not come after {entries[-1][0]} above it; list the entries in order of "
                "effective_from, each day once",
            )
        entries.append((day, fields))
    return entries


def line_at(lines: Lines, path: tuple[str | int, ...], default: int) -> int:
    """Return the line of the value at ``path``, or of the nearest enclosing value that has one."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return default

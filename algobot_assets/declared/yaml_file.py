"""Parse a strict subset of YAML into nodes that know their line and column, and read typed values from them.

PyYAML's safe loader only turns text into events. Each value is read from the text of its scalar by code that knows
the expected type, so 0.1 is never a float on its way to a decimal, and none of YAML 1.1's surprises (no, 010, 1:30)
can happen.

Rejected: aliases and anchors, tags, several documents, duplicate and non-text keys, characters that a database
cannot hold, nesting deeper than MAX_DEPTH, and files longer than MAX_CHARACTERS.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import yaml

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 12
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*|[1-9][0-9]{0,2}(_[0-9]{3})+)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_MAX_NUMBER = 60


class Problem(Exception):
    """An error at a line (from 1) of the file; the text names the fact and the remedy."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as written; ``plain`` means without quotes. Lines and columns count from 1."""

    text: str
    plain: bool
    line: int
    column: int

    @property
    def is_empty(self) -> bool:
        """Whether the file gives no value, or a null."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in the order of the file, with the position of each key."""

    keys: dict[str, Scalar]
    values: dict[str, Node]
    line: int
    column: int


Node = Scalar | Sequence | Mapping


@lru_cache(maxsize=2)
def parse(text: str) -> Node:
    """Return the document in ``text``, which callers do not change. Raises Problem if it is not the YAML accepted here.

    A run parses the same file for several tables, so the last results are kept.
    """
    if len(text) > MAX_CHARACTERS:
        raise Problem(1, f"the file is longer than {MAX_CHARACTERS} characters; is it the right one?")
    if yaml.__with_libyaml__:
        with suppress(Problem):  # ten times faster, but its messages are others
            return _document(_events(text, yaml.CSafeLoader))
    return _document(_events(text, yaml.SafeLoader))


def _document(events: Iterator[yaml.Event]) -> Node:
    root: Node | None = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if root is not None:
                raise Problem(_position(event)[0], "a second document begins here; keep one, remove the ---")
            root = _node(next(events), events, 1)
    if root is None or (isinstance(root, Scalar) and root.is_empty):
        raise Problem(1, "the file is empty; declare at least one market under `markets`")
    return root


def _events(text: str, loader: type[yaml.SafeLoader | yaml.CSafeLoader]) -> Iterator[yaml.Event]:
    line = 1
    try:
        for event in yaml.parse(text, Loader=loader):
            line, _ = _position(event)
            yield event
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            line = mark.line + 1
        said = (error.problem or error.context or "the text cannot be read").replace("\n", " ")
        remedy = "indent with spaces" if "\\t" in said else "check indentation, colons and quotes here and above"
        raise Problem(line, f"not valid YAML: {said}; {remedy}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Problem(line, f"the character U+{error.character:04X} cannot be read; remove it") from None
    except (ValueError, OverflowError):
        # PyYAML lets chr() and int() fail on escapes and versions that are out of range.
        raise Problem(line, "not valid YAML: a number in an escape or directive is out of range; remove it") from None


def _position(event: yaml.Event) -> tuple[int, int]:
    """Line and column of an event, from 1."""
    mark = event.start_mark
    assert mark is not None, "the loader marks every event"
    return mark.line + 1, mark.column + 1


def _node(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
    line, column = _position(event)
    if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) or event.anchor is not None:
        raise Problem(line, "anchors (&) and aliases (*) are not supported; write the values out, or quote the text")
    if event.tag is not None:
        raise Problem(line, "tags (!) are not supported; remove it, or quote the text")
    if depth > MAX_DEPTH:
        raise Problem(line, f"nested deeper than {MAX_DEPTH} levels; check the indentation or brackets")
    match event:
        case yaml.ScalarEvent():
            if unfit := _UNFIT.search(event.value):
                raise Problem(line, f"the text holds the character U+{ord(unfit[0]):04X}; remove it")
            return Scalar(event.value, not event.style, line, column)
        case yaml.SequenceStartEvent():
            items = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(_node(event, events, depth + 1))
            return Sequence(tuple(items), line, column)
    keys: dict[str, Scalar] = {}
    values: dict[str, Node] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _node(event, events, depth + 1)
        if not isinstance(key, Scalar) or key.is_empty or len(key.text.splitlines()) != 1:
            raise Problem(key.line, "a key must be text of one line; look for a missing name or a stray bracket")
        if key.text in keys:
            raise Problem(
                key.line, f"{shown(key)} was already given in line {keys[key.text].line}; keep one of the two"
            )
        keys[key.text] = key
        values[key.text] = _node(next(events), events, depth + 1)
    return Mapping(keys, values, line, column)


def shown(node: Node) -> str:
    """Return a node as it is quoted in an error."""
    match node:
        case Sequence():
            return "a list"
        case Mapping():
            return "a mapping"
    if node.is_empty:
        return "nothing"
    text = " ".join(node.text.split())
    text = text if len(text) <= 40 else f"{text[:37]}..."
    return f"`{text}`" if node.plain else f'"{text}"'


def nearest(word: str, known: Collection[str]) -> str:
    """Return the remedy for an unknown word: the most similar known one, or all of them."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word[:60].lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean `{by_lower[close[0]]}`?" if close else f"known are {', '.join(known)}"


def text_of(node: Node, what: str) -> str:
    """Read a non-empty text of one line."""
    if not isinstance(node, Scalar) or node.is_empty or not node.text.strip() or "\n" in node.text:
        raise Problem(node.line, f"{what} is {shown(node)}; write a text")
    return node.text


def decimal_of(node: Node, what: str) -> Decimal:
    """Read a number exactly as written."""
    if isinstance(node, Scalar) and node.plain and len(node.text) <= _MAX_NUMBER and _NUMBER.fullmatch(node.text):
        return Decimal(node.text.replace("_", ""))
    remedy = "write a number, like 0.02"
    if isinstance(node, Scalar) and not node.plain and _NUMBER.fullmatch(node.text):
        remedy = "remove the quotes"
    elif isinstance(node, Scalar) and node.text.endswith("%"):
        remedy = "write a number without the percent sign"
    raise Problem(node.line, f"{what} is {shown(node)}; {remedy}")


def whole_of(node: Node, what: str) -> int:
    """Read a whole number."""
    number = decimal_of(node, what)
    if number != number.to_integral_value():
        raise Problem(node.line, f"{what} is {shown(node)}; write a whole number")
    return int(number)


def truth_of(node: Node, what: str) -> bool:
    """Read true or false."""
    if isinstance(node, Scalar) and node.plain and node.text in ("true", "false"):
        return node.text == "true"
    raise Problem(node.line, f"{what} is {shown(node)}; write true or false")


def day_of(node: Node, what: str) -> date:
    """Read a date written YYYY-MM-DD."""
    if isinstance(node, Scalar) and _DAY.fullmatch(node.text):
        try:
            return date.fromisoformat(node.text)
        except ValueError:
            raise Problem(node.line, f"{what} is {shown(node)}, which is not a day of the calendar") from None
    raise Problem(node.line, f"{what} is {shown(node)}; write a date as YYYY-MM-DD, like 2024-01-01")


def value_of(node: Node, what: str) -> Any:
    """Read any value: a Decimal, True, False, text, a list or a mapping of these; never null."""
    match node:
        case Sequence():
            return [value_of(item, f"an item of {what}") for item in node.items]
        case Mapping():
            return {key: value_of(item, f"{what}.{key}") for key, item in node.values.items()}
    if node.is_empty:
        raise Problem(node.line, f"{what} has no value; write one or remove the key")
    if not node.plain:
        return node.text
    if node.text in ("true", "false"):
        return node.text == "true"
    return decimal_of(node, what) if _NUMBER.fullmatch(node.text) else node.text

"""Compare the declared state with the stored one: new versions, corrections, retirements, missing entries.

A new date is a new version and always accepted. The same date with other values is a correction and needs
``rewrite``, because it changes days that are already computed. effective_to retires a version. A stored entry that is
missing from the file is refused.

Frames have the columns of their table; stored strategies also carry their id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

import polars as pl

from algobot_assets.declared import versions
from algobot_assets.declared.model import DeclaredState
from algobot_assets.declared.parameters import texts
from algobot_assets.declared.rules import plain
from algobot_assets.errors import SettingsError
from algobot_assets.schema.frames import empty

TABLES = ("configurations", "strategies", "risk_parameters")
_EVER = (date.min, date.max)
_MOST_SHOWN = 20


class Kind(StrEnum):
    """The kind of a difference: CORRECTION needs rewrite, DISAPPEARED is refused, the others are accepted."""

    NEW = "new version"
    CORRECTION = "correction"
    RETIREMENT = "retirement"
    RENUMBERED = "renumbered"
    DISAPPEARED = "disappeared"


@dataclass(frozen=True, slots=True)
class Stored:
    """All stored versions; columns as in schema_of of each table, strategies also with id."""

    configurations: pl.DataFrame
    strategies: pl.DataFrame
    risk_parameters: pl.DataFrame

    @classmethod
    def nothing(cls) -> Stored:
        """Return the content of a new database."""
        identity = pl.Series("id", [], pl.Int64)
        return cls(empty("configurations"), empty("strategies").insert_column(0, identity), empty("risk_parameters"))


@dataclass(frozen=True, slots=True)
class Change:
    """A changed value as texts; column is "parameters.<key>" for one inside the parameters."""

    column: str
    stored: str
    declared: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that differs.

    table; name: configuration or strategy; day: effective_from of the row, its partition; affected_from: the
    first day whose computations use other values, None if none does; changes: the values that differ, empty unless
    the row is both stored and declared; hint: the likely intention.
    """

    kind: Kind
    table: str
    name: str
    day: date
    affected_from: date | None
    changes: tuple[Change, ...] = ()
    hint: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} in {self.table}: {self.name} from {self.day}"
        if self.changes:
            what += ": " + ", ".join(f"{item.column} {item.stored} -> {item.declared}" for item in self.changes)
        if self.affected_from is not None:
            what += f"; affects the days from {self.affected_from}"
        return what + (f"; {self.hint}" if self.hint else "")


def differences(state: DeclaredState, stored: Stored, first: date = date.min, end: date = date.max) -> list[Difference]:
    """Return the differences of rows whose effective_from lies in [first, end), by table, name and day."""
    found = [item for table in TABLES for item in _compare(table, _declared(table, state), _held(table, stored))]
    return [item for item in found if first <= item.day < end]


def refuse(found: Iterable[Difference], rewrite: bool = False) -> None:
    """Raise SettingsError with everything in ``found`` that must not be applied; rewrite allows corrections."""
    found = list(found)
    gone = [item for item in found if item.kind is Kind.DISAPPEARED]
    corrections = [] if rewrite else [item for item in found if item.kind is Kind.CORRECTION]
    sentences = []
    if corrections:
        sentences.append(
            "The declared state has other values under dates that are already stored. Give the change an "
            "effective_from of its own to make it a new version, or run `algobot apply --rewrite` (run "
            "config rewrite: true) to change the stored values:"
        )
        sentences += _listed(corrections)
    if gone:
        sentences.append(
            "Entries are stored but missing from the declared state. Restore them. To end a strategy, write "
            "effective_to; to change other values, write a new version:"
        )
        sentences += _listed(gone)
    if sentences:
        raise SettingsError("\n".join(sentences))


def rows_to_hold(
    table: str, state: DeclaredState, stored: Stored, first: date, end: date, rewrite: bool = False
) -> pl.DataFrame:
    """Return the rows that partitions [first, end) of a reference table must hold, dtypes as in schema_of.

    Raises SettingsError if a stored row of the window would be corrected without rewrite, or would disappear;
    WindowError if risk parameters belong to a strategy that is not stored yet.
    """
    refuse((item for item in differences(state, stored, first, end) if item.table == table), rewrite)
    match table:
        case "configurations":
            return versions.configurations(state, first, end)
        case "strategies":
            return versions.strategies(state, first, end)
        case "risk_parameters":
            return versions.risk_parameters(state, stored.strategies, first, end)
    raise ValueError(f"{table} is not declared in the file")


def _listed(found: list[Difference]) -> list[str]:
    lines = [f"- {item}" for item in found[:_MOST_SHOWN]]
    return lines + ([f"- and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else [])


#: Rows by their identity: name and effective_from; for risk parameters, preceded by those of their strategy.
_Rows = dict[tuple[Any, ...], dict[str, Any]]


def _declared(table: str, state: DeclaredState) -> _Rows:
    if table == "configurations":
        return _by(versions.configurations(state, *_EVER), "config_name", "effective_from")
    if table == "strategies":
        return _by(versions.strategies(state, *_EVER), "strategy_name", "effective_from")
    # Not yet stored strategies have no id: number them as if they were stored.
    numbered = versions.strategies(state, *_EVER).with_row_index("id")
    return _risk_by(versions.risk_parameters(state, numbered, *_EVER), numbered)


def _held(table: str, stored: Stored) -> _Rows:
    if table == "configurations":
        return _by(stored.configurations, "config_name", "effective_from")
    if table == "strategies":
        return _by(stored.strategies, "strategy_name", "effective_from")
    return _risk_by(stored.risk_parameters, stored.strategies)


def _by(frame: pl.DataFrame, *key: str) -> _Rows:
    return {tuple(row[column] for column in key): row for row in frame.to_dicts()}


def _risk_by(risk: pl.DataFrame, strategies: pl.DataFrame) -> _Rows:
    owners = strategies.select(
        pl.col("id").cast(pl.Int64).alias("strategy_id"), "strategy_name", strategy_from="effective_from"
    )
    return _by(risk.join(owners, on="strategy_id"), "strategy_name", "strategy_from", "effective_from")


_VALUES = {
    "configurations": ("config_value",),
    "strategies": (
        "strategy_type",
        "symbol",
        "interval",
        "initial_balance",
        "risk_per_trade",
        "parameters",
        "effective_to",
    ),
    "risk_parameters": (
        "max_risk_per_trade",
        "max_open_trades",
        "stop_loss_percentage",
        "take_profit_percentage",
    ),
}


def _compare(table: str, declared: _Rows, held: _Rows) -> list[Difference]:
    found = []
    for key in sorted(declared.keys() | held.keys()):
        name, day = key[0], key[-1]
        if key not in held:
            found.append(Difference(Kind.NEW, table, name, day, day))
        elif key not in declared:
            found.append(Difference(Kind.DISAPPEARED, table, name, day, day, hint=_hint(key, declared, held)))
        elif changes := _changes(table, held[key], declared[key]):
            found.append(_changed(table, name, day, changes, held[key], declared[key]))
        elif held[key]["version"] != declared[key]["version"]:
            number = Change("version", str(held[key]["version"]), str(declared[key]["version"]))
            found.append(Difference(Kind.RENUMBERED, table, name, day, None, (number,)))
    return found


def _changed(
    table: str,
    name: str,
    day: date,
    changes: tuple[Change, ...],
    held: dict[str, Any],
    declared: dict[str, Any],
) -> Difference:
    if [item.column for item in changes] != ["effective_to"]:
        return Difference(Kind.CORRECTION, table, name, day, day, changes)
    ends = [end for end in (held["effective_to"], declared["effective_to"]) if end is not None]
    kind = Kind.RETIREMENT if held["effective_to"] is None else Kind.CORRECTION
    return Difference(kind, table, name, day, min(ends), changes)


def _hint(key: tuple[Any, ...], declared: _Rows, held: _Rows) -> str:
    """Suggest that only the date has moved if the same name is newly declared from another day."""
    others = [other[-1] for other in declared.keys() - held.keys() if other[:-1] == key[:-1]]
    if not others:
        return ""
    return f"it is now declared from {min(others)}, write effective_from: {key[-1]} to keep the stored version"


def _changes(table: str, held: dict[str, Any], declared: dict[str, Any]) -> tuple[Change, ...]:
    changes: list[Change] = []
    for column in _VALUES[table]:
        if column == "parameters":
            changes += _parameter_changes(held[column], declared[column])
        elif held[column] != declared[column]:
            changes.append(Change(column, _text(held[column]), _text(declared[column])))
    return tuple(changes)


def _parameter_changes(held: str, declared: str) -> list[Change]:
    before, after = texts(held), texts(declared)
    return [
        Change(f"parameters.{key}", before.get(key, "none"), after.get(key, "none"))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return plain(value) if isinstance(value, Decimal) else str(value)

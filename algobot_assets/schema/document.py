"""Write the schema as a page for docs/schema.md and `algobot db schema`, from the metadata in tables.py.

It lists every table and column with type, unit, meaning and keys, with a diagram of their relations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from algobot_assets.schema.tables import GENERATED, MONTHLY, NINE, metadata

#: The views, with the comments that the migrations give them.
VIEWS = {
    "stale_partitions": "Partitions that no longer match what they were computed from, or are missing, with the "
    "reason.",
    "trade_trace": "Each trade with the candles, signals and indicators that decided and filled it, the source of each "
    "candle, and the file it is in where it has been archived.",
    "parameter_periods": "Digest of the settings in force for indicators, signals and the ledger, per strategy and "
    "period [valid_from, valid_to).",
}
#: Words of a comment that name the unit of the value, in the order of the search.
_UNITS = ("percent", "fraction", "quote asset", "base asset", "hours")
_HEAD = """\
# Schema

Every table and column of the data database, written by `algobot db schema > docs/schema.md` from
`algobot_assets/schema/tables.py`; a test compares the two. The same texts are comments in the database and column
descriptions in Dagster's catalog.

Money is in the market's quote asset, quantities in its base asset. Fractions are fractions (0.02 is 2 %); names that
end in `_pct` or `_percentage` hold percent. Times are UTC. `NUMERIC(20, 8)` has eight decimals and is exact. Formulas:
[definitions.md](definitions.md).
"""


def schema_page() -> str:
    """Return all tables as Markdown: two diagrams, a section per table, then the views."""
    own = tuple(name for name in metadata.tables if name not in NINE)
    lines = [_HEAD, "## Diagram of the nine tables", "", *_diagram(NINE, every_column=True), ""]
    lines += ["## Diagram of the platform's own records", "", "Only keys are drawn."]
    lines += ["", *_diagram(own, every_column=False), ""]
    for title, names in (("The nine tables", NINE), ("The platform's own records", own)):
        lines += [f"## {title}", ""]
        for name in names:
            lines += _section(metadata.tables[name])
    lines += ["## Views", "", "| view | what a row is |", "| --- | --- |"]
    lines += [f"| `{name}` | {_cell(text)} |" for name, text in VIEWS.items()]
    return "\n".join(lines) + "\n"


def schema_document() -> dict[str, Any]:
    """Return the same as plain values: table -> comment, columns, keys."""
    found = {}
    for name in (*NINE, *(each for each in metadata.tables if each not in NINE)):
        table = metadata.tables[name]
        columns = [
            {
                "name": column.name,
                "type": _type(column),
                "unit": _unit(column),
                "nullable": bool(column.nullable),
                "meaning": column.comment,
            }
            for column in table.columns
        ]
        references = [
            {"columns": list(reference[0]), "table": reference[1], "references": list(reference[2])}
            for reference in _references(table)
        ]
        found[name] = {
            "comment": table.comment,
            "columns": columns,
            "primary_key": [column.name for column in table.primary_key.columns],
            "unique": [list(key) for key in _unique(table)],
            "references": references,
        }
    return {"tables": found, "views": VIEWS}


def _section(table: sa.Table) -> Iterator[str]:
    yield f"### {table.name}"
    yield ""
    yield table.comment or ""
    yield ""
    yield "| column | type | unit | null | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for column in table.columns:
        null = "yes" if column.nullable else ""
        yield f"| `{column.name}` | {_type(column)} | {_unit(column)} | {null} | {_cell(column.comment)} |"
    yield ""
    yield f"- Primary key: {_names(table.primary_key.columns.keys())}"
    for key in _unique(table):
        yield f"- Unique: {_names(key)}"
    for columns, other, referenced, how in _references(table):
        yield f"- Reference: {_names(columns)} to `{other}` ({', '.join(referenced)}){how}"
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield f"- Index: {_names(index.columns.keys())}"
    if table.name in MONTHLY:
        yield "- Partitioned by month of `timestamp`, one leaf per month"
    yield ""


def _diagram(names: tuple[str, ...], every_column: bool) -> Iterator[str]:
    yield "```mermaid"
    yield "erDiagram"
    for name in names:
        table = metadata.tables[name]
        for columns, other, _, _ in _references(table):
            single = any(set(columns) == set(key) for key in _unique(table))
            yield f"    {other} ||--o{'|' if single else '{'} {name} : {columns[0]}"
    for name in names:
        table = metadata.tables[name]
        yield f"    {name} {{"
        for column in table.columns:
            marks = _marks(table, column)
            if (every_column and column.name not in GENERATED[1:]) or marks:
                kind = _type(column).split("(")[0].replace(" ", "_")
                yield f"        {kind} {column.name}{' ' + ', '.join(marks) if marks else ''}"
        yield "    }"
    yield "```"


def _marks(table: sa.Table, column: sa.Column[Any]) -> list[str]:
    found = ["PK"] if column.name in table.primary_key.columns else []
    found += ["FK"] if any(column.name in columns for columns, *_ in _references(table)) else []
    return found + (["UK"] if any(column.name in key for key in _unique(table)) else [])


def _references(table: sa.Table) -> list[tuple[tuple[str, ...], str, tuple[str, ...], str]]:
    """Return the referring columns, the table they refer to, its columns, and a remark."""
    found: list[tuple[tuple[str, ...], str, tuple[str, ...], str]] = []
    if table.name in MONTHLY[1:]:  # made with the leaves of a month, so no key of the parent
        columns = ("market_data_id", "timestamp")
        found.append((columns, MONTHLY[0], ("id", "timestamp"), ", from leaf to leaf, deleted with it"))
    for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name)):
        how = ", deleted with it" if key.ondelete == "CASCADE" else ""
        referenced = tuple(element.column.name for element in key.elements)
        found.append((tuple(key.columns.keys()), key.referred_table.name, referenced, how))
    return found


def _unique(table: sa.Table) -> list[tuple[str, ...]]:
    keys = [item for item in table.constraints if isinstance(item, sa.UniqueConstraint)]
    return sorted(tuple(key.columns.keys()) for key in keys)


def _type(column: sa.Column[Any]) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it without types
    text = str(column.type.compile(dialect=dialect)).replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
    return text.replace(' COLLATE "C"', "")


def _unit(column: sa.Column[Any]) -> str:
    if isinstance(column.type, sa.TIMESTAMP | sa.Date):
        return "UTC"
    return next((unit for unit in _UNITS if unit in (column.comment or "").lower()), "")


def _names(columns: Any) -> str:
    return "`" + "`, `".join(columns) + "`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")

"""Make the stored rows of many windows of one table equal to frames, with a fixed number of statements.

Stretches without stored rows are copied in; the rest is staged, merged and deleted, so that ids stay. The stored rows
are then compared with the frames by count and exact sums: no encoder is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.schema.frames import UTC, schema_of
from algobot_assets.schema.windows import WINDOWING, Window, frame_schema
from algobot_assets.store.copy import copy_in
from algobot_assets.store.session import fetch_value

#: Tables with a column that pgpq does not encode (JSONB).
_TEXT_ONLY = frozenset({"strategies"})
#: Tables that a function of the owner fills, because it may skip the checks of references that its join has proven.
_BY_OWNER = frozenset({"indicators", "signals"})


@dataclass(frozen=True)
class Stretch:
    """Rows that replace the stored ones of a window between two values of its time column, ``lo`` up to ``hi``."""

    window: Window
    rows: pl.DataFrame
    lo: date | datetime
    hi: date | datetime


@dataclass(frozen=True)
class Counts:
    """Rows inserted, updated and deleted."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.inserted + other.inserted, self.updated + other.updated, self.deleted + other.deleted)


class RefusedStretches(Exception):
    """Stretches that cannot be stored as they are, by position, with the reason; nothing may be committed."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


def write_stretches(connection: psycopg.Connection, table: str, stretches: Sequence[Stretch]) -> Counts:
    """Replace the stored rows of each stretch, in the caller's transaction.

    RefusedStretches names those whose rows lack the row they refer to, or that the database did not receive as sent.
    """
    among = _Among(table, stretches)
    occupied = among.occupied(connection)
    empty = [i for i in range(len(stretches)) if i not in occupied]
    counts = Counts()
    if any(stretches[i].rows.height for i in empty):
        counts += _insert(connection, among, empty)
    if occupied:
        counts += _merge(connection, among.only(sorted(occupied)))
    _compare(connection, among)
    return counts


class _Among:
    """The stretches as rows of SQL: their position n, bounds of the time column, and market or strategy."""

    def __init__(self, table: str, stretches: Sequence[Stretch], numbers: Sequence[int] | None = None) -> None:
        self.table, self.stretches = table, stretches
        self.numbers = list(range(len(stretches))) if numbers is None else list(numbers)
        self.rule = WINDOWING[table]
        self._scope = self.rule.scope or (("strategy_id",) if table == "performance_metrics" else ())

    def only(self, numbers: Sequence[int]) -> _Among:
        """Return some of the stretches, under their positions in the whole."""
        return _Among(self.table, [self.stretches[n] for n in numbers], numbers)

    def frame(self) -> pl.DataFrame:
        """Return the rows of all stretches."""
        return pl.concat([stretch.rows for stretch in self.stretches])

    @property
    def source(self) -> sql.Composed:
        """The stretches as a FROM item named w."""
        time = sql.SQL("timestamptz" if self.rule.time == "timestamp" else "date")
        kinds = [sql.SQL("int"), time, time]
        kinds += [sql.SQL("bigint" if name == "strategy_id" else "varchar") for name in self._scope]
        return sql.SQL("unnest({}) AS w ({})").format(
            sql.SQL(", ").join(sql.SQL("%s::{}[]").format(kind) for kind in kinds),
            sql.SQL(", ").join(map(sql.Identifier, ("n", "lo", "hi", *self._scope))),
        )

    @property
    def parameters(self) -> list[Any]:
        """The parameters of ``source``."""
        lows, highs = [s.lo for s in self.stretches], [s.hi for s in self.stretches]
        scopes = [[getattr(s.window, name) for s in self.stretches] for name in self._scope]
        return [self.numbers, lows, highs, *scopes]

    @property
    def inside(self) -> sql.Composed:
        """The condition that a row t of the table lies in the stretch w; the constants let the planner skip months."""
        time = sql.Identifier("t", self.rule.time)
        conditions: list[sql.Composable] = [sql.SQL("{0} >= w.lo AND {0} < w.hi").format(time), self.between]
        if self.table == "performance_metrics":
            conditions.append(sql.SQL("t.trade_id IN (SELECT id FROM trade_history WHERE strategy_id = w.strategy_id)"))
        else:
            conditions += [sql.SQL("t.{0} = w.{0}").format(sql.Identifier(name)) for name in self._scope]
        return sql.SQL(" AND ").join(conditions)

    @property
    def between(self) -> sql.Composed:
        """The condition that a row t lies between the first stretch's begin and the last one's end."""
        return sql.SQL("{0} >= {1} AND {0} < {2}").format(
            sql.Identifier("t", self.rule.time),
            sql.Literal(min(s.lo for s in self.stretches)),
            sql.Literal(max(s.hi for s in self.stretches)),
        )

    def occupied(self, connection: psycopg.Connection) -> set[int]:
        """Return the stretches with stored rows, or with rows to write that may be stored under another day."""
        statement = sql.SQL("SELECT w.n FROM {} WHERE EXISTS (SELECT FROM {} AS t WHERE {})").format(
            self.source, sql.Identifier(self.table), self.inside
        )
        found = {n for (n,) in connection.execute(statement, self.parameters)}
        if self.table in ("trade_history", "performance_metrics"):
            found |= self._stored_elsewhere(connection)
        return found

    def _stored_elsewhere(self, connection: psycopg.Connection) -> set[int]:
        """Return the stretches with a trade that may be stored under another day, because it closes later or earlier.

        By span instead of by key: an unneeded merge is still correct, and thousands of keys cost more than the COPY.
        """
        spans = [
            (n, s.window.strategy_id, s.rows["entry_time"].min(), s.rows["entry_time"].max())
            for n, s in zip(self.numbers, self.stretches, strict=True)
            if s.rows.height
        ]
        if not spans:
            return set()
        metrics = self.table == "performance_metrics"
        rows = connection.execute(
            sql.SQL(
                """SELECT w.n FROM unnest(%s::int[], %s::bigint[], %s::timestamptz[], %s::timestamptz[])
                          AS w (n, strategy_id, lo, hi)
                    WHERE EXISTS (SELECT FROM trade_history AS t {}
                                   WHERE t.strategy_id = w.strategy_id AND t.entry_time BETWEEN w.lo AND w.hi)"""
            ).format(sql.SQL("JOIN performance_metrics AS p ON p.trade_id = t.id" if metrics else "")),
            [list(column) for column in zip(*spans, strict=True)],
        )
        return {n for (n,) in rows}


def _insert(connection: psycopg.Connection, among: _Among, numbers: Sequence[int]) -> Counts:
    """Insert rows where none are stored: by COPY, or staged and joined with the rows they lead to."""
    part = among.only(numbers)
    rows = part.frame()
    if not part.rule.links:
        copy_in(connection, part.table, rows, binary=part.table not in _TEXT_ONLY)
        return Counts(inserted=rows.height)
    by_owner = part.table in _BY_OWNER and fetch_value(connection.execute("SELECT open_stage(%s)", (part.table,)), bool)
    stage = _stage(connection, part, rows, by_owner=by_owner)
    if by_owner:
        bounds = [part.table, min(s.lo for s in part.stretches), max(s.hi for s in part.stretches)]
        inserted = fetch_value(connection.execute("SELECT insert_staged(%s, %s, %s)", bounds), int)
    else:
        source, columns = _linked(part, stage)
        inserted = connection.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
                sql.Identifier(part.table), _listed(None, columns), _listed("s", columns), source
            )
        ).rowcount
    if inserted != rows.height:
        raise _without_link(connection, part, stage)
    return Counts(inserted=inserted)


def _merge(connection: psycopg.Connection, part: _Among) -> Counts:
    """Stage the rows, then delete, update and insert until the table matches them; ids stay.

    A trade that now closes on another day is found by its natural key.
    """
    rows, rule, table = part.frame(), part.rule, sql.Identifier(part.table)
    stage = _stage(connection, part, rows, by_owner=False)
    connection.execute(sql.SQL("ANALYZE {}").format(stage))
    source, columns = _linked(part, stage)
    if rule.links:
        found = fetch_value(connection.execute(sql.SQL("SELECT count(*) FROM {}").format(source)), int)
        if found != rows.height:
            raise _without_link(connection, part, stage)
    keys = _equal("t", "s", rule.natural_key)
    gone = sql.SQL("{} WHERE {} AND NOT EXISTS (SELECT FROM {} WHERE {})").format(
        part.source, part.inside, source, keys
    )
    deleted = 0
    if fetch_value(
        connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {} AS t, {})").format(table, gone), part.parameters),
        bool,
    ):  # a DELETE takes locks even if it finds nothing
        deleted = connection.execute(
            sql.SQL("DELETE FROM {} AS t USING {}").format(table, gone), part.parameters
        ).rowcount
    on = keys
    if rule.time != "day":
        on = sql.SQL("{} AND {}").format(keys, part.between)
    matched = fetch_value(
        connection.execute(sql.SQL("SELECT count(*) FROM {} AS t JOIN {} ON {}").format(table, source, on)), int
    )
    values = [name for name in columns if name not in rule.natural_key]
    merged = connection.execute(
        sql.SQL(
            "MERGE INTO {table} AS t USING {source} ON {on} "
            "WHEN MATCHED AND ({old}) IS DISTINCT FROM ({new}) THEN UPDATE SET {sets}, updated_at = now() "
            "WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({staged})"
        ).format(
            table=table,
            source=source,
            on=on,
            old=_listed("t", values),
            new=_listed("s", values),
            sets=sql.SQL(", ").join(sql.SQL("{0} = s.{0}").format(sql.Identifier(name)) for name in values),
            columns=_listed(None, columns),
            staged=_listed("s", columns),
        )
    ).rowcount
    inserted = rows.height - matched
    return Counts(inserted, merged - inserted, deleted)


def _stage(connection: psycopg.Connection, part: _Among, rows: pl.DataFrame, *, by_owner: bool) -> sql.Identifier:
    """Copy the rows into a temporary table, the one that open_stage made or this session's, and return its name."""
    name = f"{'staged' if by_owner else 'stage'}_{part.table}"
    if not by_owner:
        own = schema_of(part.table)
        columns = sql.SQL(", ").join(sql.Identifier("t" if column in own else "l", column) for column in rows.columns)
        tables = [sql.SQL("{} AS t").format(sql.Identifier(part.table))]
        if part.rule.linked_table:
            tables.append(sql.SQL("{} AS l").format(sql.Identifier(part.rule.linked_table)))
        connection.execute(sql.SQL("DROP TABLE IF EXISTS pg_temp.{}").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                sql.Identifier(name), columns, sql.SQL(", ").join(tables)
            )
        )
    copy_in(connection, name, rows, binary=part.table not in _TEXT_ONLY)
    return sql.Identifier("pg_temp", name)


def _linked(part: _Among, stage: sql.Identifier) -> tuple[sql.Composed, list[str]]:
    """Return the staged rows, with their links, as a FROM item named s, and its columns."""
    rule = part.rule
    columns = [name for name in schema_of(part.table) if name not in rule.links]
    if not rule.links:
        return sql.SQL("{} AS s").format(stage), columns
    (link,) = rule.links
    within: sql.Composable = sql.SQL("")
    if rule.linked_table == "market_data":
        within = sql.SQL(' AND l."timestamp" >= {} AND l."timestamp" < {}').format(
            sql.Literal(min(s.lo for s in part.stretches)), sql.Literal(max(s.hi for s in part.stretches))
        )
    source = sql.SQL("(SELECT {}, l.id AS {} FROM {} AS r JOIN {} AS l ON {}{}) AS s").format(
        _listed("r", columns),
        sql.Identifier(link),
        stage,
        sql.Identifier(rule.linked_table),
        _equal("l", "r", rule.linked_by),
        within,
    )
    return source, [*columns, link]


def _without_link(connection: psycopg.Connection, part: _Among, stage: sql.Identifier) -> RefusedStretches:
    """Return the refusal of the stretches with rows that lead to no stored row."""
    rule = part.rule
    scope = [name for name in ("symbol", "interval", "strategy_id") if name in part.stretches[0].rows.columns]
    missing = connection.execute(
        sql.SQL("SELECT {}, count(*) FROM {} AS r WHERE NOT EXISTS (SELECT FROM {} AS l WHERE {}) GROUP BY {}").format(
            _listed("r", scope),
            stage,
            sql.Identifier(rule.linked_table),
            _equal("l", "r", rule.linked_by),
            _listed("r", scope),
        )
    ).fetchall()
    counts = {tuple(row[:-1]): row[-1] for row in missing}
    reasons = {}
    for n, stretch in zip(part.numbers, part.stretches, strict=True):
        found = counts.get(tuple(getattr(stretch.window, name) for name in scope))
        if found:
            what = "candle" if rule.linked_table == "market_data" else "trade"
            reasons[n] = f"{stretch.window}: {found} rows have no stored {what}. None was written. Run it again."
    if reasons:
        return RefusedStretches(reasons)
    # without its strategy, a signal leads nowhere either
    return RefusedStretches(
        {
            n: f"{stretch.window}: its strategy is no longer stored. None of its rows was written. Run `algobot apply`."
            for n, stretch in zip(part.numbers, part.stretches, strict=True)
        }
    )


def _listed(alias: str | None, names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) if alias else sql.Identifier(name) for name in names)


def _equal(one: str, other: str, names: Sequence[str]) -> sql.Composed:
    pairs = (sql.SQL("{} = {}").format(sql.Identifier(one, name), sql.Identifier(other, name)) for name in names)
    return sql.SQL(" AND ").join(pairs)


def _compare(connection: psycopg.Connection, among: _Among) -> None:
    """Raise RefusedStretches if the count or an exact sum of a stretch's stored rows differs from that of its frame.

    Keys and times are summed too, so that rows exchanged between two markets are noticed. The sums are wider than any
    column: a sum of 32-bit integers overflows 32 bits after a few thousand rows.
    """
    expressions: list[sql.Composable] = [sql.SQL("w.n"), sql.SQL("count(*)")]
    sums: list[pl.Expr] = [pl.len().cast(pl.Int128)]
    own = schema_of(among.table)
    for name, dtype in frame_schema(among.table).items():
        column = sql.Identifier("t", name)
        if name not in own:
            continue
        if dtype.is_decimal() or dtype.is_integer():
            expressions.append(sql.SQL("coalesce(sum({}), 0)").format(column))
            sums.append(pl.col(name).cast(pl.Decimal(38, 8) if dtype.is_decimal() else pl.Int128()).sum())
        elif dtype == UTC:
            expressions.append(sql.SQL("coalesce(sum((date_part('epoch', {}) * 1000000)::bigint), 0)").format(column))
            sums.append(pl.col(name).dt.epoch("us").cast(pl.Int128).sum())
        elif dtype == pl.Date:
            expressions.append(sql.SQL("coalesce(sum({} - DATE '1970-01-01'), 0)").format(column))
            sums.append(pl.col(name).to_physical().cast(pl.Int128).sum())
        elif dtype == pl.Float64:
            expressions.append(
                sql.SQL("coalesce(sum(('x' || encode(float8send({}), 'hex'))::bit(64)::bigint), 0)").format(column)
            )
            sums.append(pl.col(name).map_batches(_sum_of_bits, return_dtype=pl.Int128, returns_scalar=True))
    found = {
        n: rest
        for n, *rest in connection.execute(
            sql.SQL("SELECT {} FROM {} JOIN {} AS t ON {} GROUP BY w.n").format(
                sql.SQL(", ").join(expressions), among.source, sql.Identifier(among.table), among.inside
            ),
            among.parameters,
        )
    }
    reasons = {}
    for n, stretch in zip(among.numbers, among.stretches, strict=True):
        expected = stretch.rows.select(item.alias(str(i)) for i, item in enumerate(sums)).row(0)
        received = found.get(n, [0] * len(expected))
        if list(map(Decimal, received)) != list(map(Decimal, expected)):
            reasons[n] = (
                f"{stretch.window}: what the database received differs from what was sent (count and sums "
                f"{tuple(received)}, expected {expected}). Nothing was written. Please report it with the versions of "
                "pgpq and psycopg."
            )
    if reasons:
        raise RefusedStretches(reasons)


def _sum_of_bits(column: pl.Series) -> pl.Series:
    """Sum the bits of doubles as signed 64-bit integers, in two halves that each fit into 64 bits."""
    bits = column.drop_nulls().to_numpy().view(np.int64)
    return pl.Series([int((bits >> 32).sum()) * 2**32 + int((bits & 0xFFFFFFFF).sum())], dtype=pl.Int128)

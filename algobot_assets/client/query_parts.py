"""Parts that the client's queries share: which strategy versions, which range, how far behind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from algobot_assets.client.results import When, time_range
from algobot_assets.compute.ledger.unfilled import LABELS
from algobot_assets.errors import WindowError
from algobot_assets.store import catalogue
from algobot_assets.store.catalogue import StoredVersion

Schema = Mapping[str, pl.DataType]
#: Sums of the counts of signals that led to no order, by reason: columns for a query of unfilled_signals.
UNFILLED_SUMS = sql.SQL(", ").join(sql.SQL("sum({0})::bigint AS {0}").format(sql.Identifier(name)) for name in LABELS)
NAMED: Schema = {"strategy_name": pl.String(), "version": pl.Int32()}


def choose_versions(
    connection: psycopg.Connection, strategy: str | None, version: int | None, as_of: datetime
) -> list[StoredVersion]:
    """Return the requested strategy version, or all versions if no strategy is named."""
    stored = catalogue.versions(connection)
    if strategy is not None:
        return [catalogue.choose_version(stored, strategy, version, as_of.date())]
    if version is not None:
        raise WindowError(f"Version {version} needs the name of its strategy. Pass `strategy` too.")
    return stored


def furthest_behind(ends: Mapping[StoredVersion, datetime | None], as_of: datetime) -> datetime | None:
    """Return the earliest end among versions in force, which are still computed; if none is, the latest of the rest."""
    stored = {item: end for item, end in ends.items() if end is not None}
    in_force = [end for item, end in stored.items() if item.until is None or item.until > as_of.date()]
    return min(in_force) if in_force else max(stored.values(), default=None)


def range_condition(at: sql.Composable, start: When, end: When) -> tuple[sql.Composable, list[Any]]:
    """Return SQL conditions that keep ``at`` in [start, end), each led by AND, with their parameters."""
    given = {s: bound for s, bound in zip((">=", "<"), time_range(start, end), strict=True) if bound is not None}
    return sql.Composed([sql.SQL(f" AND {{}} {s} %s").format(at) for s in given]), list(given.values())

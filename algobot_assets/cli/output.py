"""Output for scripts: `--json` prints one document to standard output; everything else goes to standard error.

docs/cli.md describes keys and exit codes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import polars as pl

#: Exit codes other than 0. Click uses 2 for wrong usage.
FAILED, NOT_RUNNING, STALE, DIFFERS = 1, 3, 4, 5

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document: exact numbers as text, times as ISO 8601."
)


def emit(document: Mapping[str, Any]) -> None:
    """Print the JSON document of a command."""
    click.echo(json.dumps(plain(document), indent=2, allow_nan=False, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Convert a value for JSON: Decimals to text with every digit, dates and times to ISO 8601, NaN to null."""
    match value:
        case Decimal():
            return f"{value:f}"
        case date():  # a datetime is one
            return value.isoformat()
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case Path():
            return str(value)
        case pl.DataFrame():
            return [plain(row) for row in value.iter_rows(named=True)]
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


def say(text: str) -> None:
    """Print a message for people to standard error, which scripts do not read."""
    click.echo(text, err=True)

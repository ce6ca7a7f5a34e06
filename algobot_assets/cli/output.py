"""How commands speak to scripts: `--json` is one document on standard output, everything else goes to standard error.

Keys and exit codes are described in docs/cli.md.
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

#: Exit codes beside 0; 2 is click's, for a command line that is wrong.
FAILED, NOT_RUNNING, STALE, DIFFERS, INTERRUPTED = 1, 3, 4, 5, 130

json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document: exact numbers as text, times as ISO 8601."
)


def emit(document: Mapping[str, Any]) -> None:
    """Print the one document of a command."""
    click.echo(json.dumps(plain(document), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """A value as JSON has it: Decimals as text with every digit, days and times as ISO 8601, NaN as null."""
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
    """Tell the person; never a part of what a script reads."""
    click.echo(text, err=True)

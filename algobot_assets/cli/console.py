"""What the commands show a person: tables that fit 80 columns, and progress while something takes long.

Tables go to standard output; progress goes to standard error, and only where that is a terminal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import polars as pl
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from algobot_assets.schema.tables import NINE

WIDTH = 80
T = TypeVar("T")


def console(stderr: bool = False) -> Console:
    """A console of at most 80 columns."""
    found = Console(stderr=stderr)
    return Console(width=min(WIDTH, found.width), stderr=stderr) if found.width > WIDTH else found


def grid(frame: pl.DataFrame, title: str, formats: dict[str, str] | None = None, right: Sequence[str] = ()) -> None:
    """Print a frame as a table; numbers and the columns of ``right`` to the right, nulls as a dash."""
    out = console()
    if title:
        out.print(title, style="italic", highlight=False)
    table = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, dtype in frame.schema.items():
        side = "right" if dtype.is_numeric() or name in right else "left"
        table.add_column(name, justify=side, no_wrap=name != "note")
    formats = formats or {}
    for row in frame.iter_rows(named=True):
        table.add_row(*("-" if value is None else format(value, formats.get(name, "")) for name, value in row.items()))
    out.print(table)


class _Windows(logging.Handler):
    """Turns the log lines of fetching and of the IO manager into progress."""

    def __init__(self, shown: Progress) -> None:
        super().__init__(logging.INFO)
        self.shown = shown
        self.tasks = {table: shown.add_task(table, total=None, start=False, rows=0, state="") for table in NINE}

    def emit(self, record: logging.LogRecord) -> None:
        """Count rows of a window; finish the table where the record says so. A table's clock begins with it."""
        task = self.tasks.get(getattr(record, "table", ""))
        if task is None:
            return
        shown = self.shown.tasks[task]
        if not shown.started:
            self.shown.start_task(task)
        if planned := getattr(record, "planned", 0):
            shown.finished_time = None  # a bar that was full goes on with the next market
            self.shown.update(task, total=(shown.total or 0) + planned)
            return
        if fetching := getattr(record, "fetching", ""):
            self.shown.update(task, state=fetching)
            return
        rows = shown.fields["rows"] + getattr(record, "rows", 0)
        # where windows are planned, the bar shows how many are written, and the text which one is being fetched
        state = shown.fields["state"] if shown.total else getattr(record, "days", "")
        self.shown.update(task, rows=rows, state=state, advance=1 if shown.total and "days" in vars(record) else 0)
        if getattr(record, "finished", False):
            shown.finished_time = None
            self.shown.update(task, total=1, completed=1, state="done")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show the tables of a run filling for the time of the block; in a pipe only its title."""
    logger = logging.getLogger("algobot.windows")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    out = console(stderr=True)
    out.print(f"Materialising {title}", highlight=False)
    columns = (
        SpinnerColumn(finished_text="*"),
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[rows]:>11,} rows"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=out, disable=not out.is_terminal) as shown:
        handler = _Windows(shown)
        logger.addHandler(handler)
        try:
            yield shown
        finally:
            logger.removeHandler(handler)


@contextmanager
def working(title: str) -> Iterator[None]:
    """A spinner with the elapsed time for the time of the block; nothing in a pipe."""
    out = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as shown:
        shown.add_task(title, total=None)
        yield


def watched(items: Iterator[T], title: str) -> Iterator[T]:
    """The items, none of which is None, with a spinner while each is being made and none while it is shown."""
    while True:
        with working(title):
            item = next(items, None)
        if item is None:
            return
        yield item

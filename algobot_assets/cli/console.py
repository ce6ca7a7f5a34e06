"""Print tables of 80 columns to standard output, and progress to standard error if that is a terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import polars as pl
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from algobot_assets.schema.tables import NINE

WIDTH = 80
#: Columns of prose, which wrap. All others stay on one line.
_WRAPPED = ("note", "evidence")
T = TypeVar("T")


def console(stderr: bool = False) -> Console:
    """Return a console of at most 80 columns."""
    found = Console(stderr=stderr)
    return Console(width=min(WIDTH, found.width), stderr=stderr) if found.width > WIDTH else found


def print_table(
    frame: pl.DataFrame, title: str, formats: dict[str, str] | None = None, right: Sequence[str] = ()
) -> None:
    """Print a frame as a table: numbers and the columns in ``right`` right-aligned, nulls as a dash."""
    out = console()
    if title:
        out.print(title, style="italic", highlight=False)
    table = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, dtype in frame.schema.items():
        side: Literal["left", "right"] = "right" if dtype.is_numeric() or name in right else "left"
        table.add_column(name, justify=side, no_wrap=name not in _WRAPPED)
    formats = formats or {}
    for row in frame.iter_rows(named=True):
        table.add_row(*("-" if value is None else format(value, formats.get(name, "")) for name, value in row.items()))
    out.print(table)


class _ProgressHandler(logging.Handler):
    """Log handler that turns records of the feed and the IO manager into progress bars."""

    def __init__(self, shown: Progress) -> None:
        super().__init__(logging.INFO)
        self.shown = shown
        self.tasks = {table: shown.add_task(table, total=None, start=False, rows=0, state="") for table in NINE}

    def emit(self, record: logging.LogRecord) -> None:
        """Count the rows of a window, or mark its table as finished. A table's clock starts with its first record."""
        task = self.tasks.get(getattr(record, "table", ""))
        if task is None:
            return
        shown = self.shown.tasks[task]
        if not shown.started:
            self.shown.start_task(task)
        if planned := getattr(record, "planned", 0):
            shown.finished_time = None  # the next market reopens a full bar
            self.shown.update(task, total=(shown.total or 0) + planned)
            return
        if fetching := getattr(record, "fetching", ""):
            self.shown.update(task, state=fetching)
            return
        rows = shown.fields["rows"] + getattr(record, "rows", 0)
        # if windows are planned, the bar counts the written ones and the text names the one being fetched
        state = shown.fields["state"] if shown.total else getattr(record, "days", "")
        self.shown.update(task, rows=rows, state=state, advance=1 if shown.total and "days" in vars(record) else 0)
        if getattr(record, "finished", False):
            shown.finished_time = None
            self.shown.update(task, total=1, completed=1, state="done")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show a progress bar per table during the block; in a pipe, only the title."""
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
        handler = _ProgressHandler(shown)
        logger.addHandler(handler)
        try:
            yield shown
        finally:
            logger.removeHandler(handler)


@contextmanager
def spinner(title: str) -> Iterator[None]:
    """Show a spinner with the elapsed time during the block; nothing in a pipe."""
    out = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as shown:
        shown.add_task(title, total=None)
        yield


def with_spinner(items: Iterator[T], title: str) -> Iterator[T]:
    """Yield the items, with a spinner while each is produced. No item may be None."""
    while True:
        with spinner(title):
            item = next(items, None)
        if item is None:
            return
        yield item

"""What the commands show a person: tables that fit 80 columns, and progress while a run goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import polars as pl
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from algobot_assets.schema.tables import NINE
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store
from algobot_assets.store.health import Health
from algobot_assets.store.reader import query

WIDTH = 80


def console() -> Console:
    """A console of at most 80 columns."""
    found = Console()
    return Console(width=min(WIDTH, found.width)) if found.width > WIDTH else found


def grid(frame: pl.DataFrame, title: str, formats: dict[str, str] | None = None) -> None:
    """Print a frame as a table; numbers to the right, nulls as a dash."""
    table = Grid(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", no_wrap=name != "note")
    formats = formats or {}
    for row in frame.iter_rows(named=True):
        table.add_row(*("-" if value is None else format(value, formats.get(name, "")) for name, value in row.items()))
    console().print(table)


class _Windows(logging.Handler):
    """Turns the log lines of fetching and of the IO manager into progress."""

    def __init__(self, shown: Progress) -> None:
        super().__init__(logging.INFO)
        self.shown = shown
        self.tasks = {table: shown.add_task(table, total=None, rows=0, state="") for table in NINE}

    def emit(self, record: logging.LogRecord) -> None:
        """Count rows of a window; finish the table where the record says so."""
        task = self.tasks.get(getattr(record, "table", ""))
        if task is None:
            return
        shown = self.shown.tasks[task]
        if planned := getattr(record, "planned", 0):
            self.shown.update(task, total=(shown.total or 0) + planned)
            return
        if fetching := getattr(record, "fetching", ""):
            self.shown.update(task, state=fetching)
            return
        rows = shown.fields["rows"] + getattr(record, "rows", 0)
        # where windows are planned, the bar shows how many are written, and the text which one is being fetched
        state = shown.fields["state"] if shown.total else getattr(record, "days", "")
        self.shown.update(task, rows=rows, state=state, advance=1 if shown.total else 0)
        if getattr(record, "finished", False):
            self.shown.update(task, total=1, completed=1, state="done")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show the tables of a run filling for the time of the block."""
    logger = logging.getLogger("algobot.windows")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    out = console()
    out.print(f"Materialising {title}")
    columns = (
        SpinnerColumn(finished_text="*"),
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[rows]:>11,} rows"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=out) as shown:
        handler = _Windows(shown)
        logger.addHandler(handler)
        try:
            yield shown
        finally:
            logger.removeHandler(handler)


#: Confirmed gaps by market and reason; what may be another coin, a halt or a delisting one by one.
ABSENT = """
SELECT symbol, "interval", reason, count(*) AS gaps,
       sum(extract(epoch FROM end_open - first_open) / 3600)::float8 AS hours,
       to_char(min(first_open), 'YYYY-MM-DD HH24:MI') AS "from", to_char(max(end_open), 'YYYY-MM-DD HH24:MI') AS "to"
  FROM gaps WHERE reason <> 'listing'
 GROUP BY symbol, "interval", reason, CASE WHEN reason <> 'outage' THEN first_open END
 ORDER BY 1, 2, min(first_open)
"""


#: What has left the database for the archive, by table.
ARCHIVED = """
SELECT table_name AS "table", count(DISTINCT month) AS months, to_char(min(month), 'YYYY-MM') AS "from",
       to_char(max(month), 'YYYY-MM') AS "to", sum(rows)::bigint AS rows, (sum(bytes) / 1048576.0)::float8 AS "MB"
  FROM archived_files GROUP BY table_name ORDER BY array_position(ARRAY['market_data', 'indicators'], table_name::text)
"""


def show_tables(settings: Settings) -> None:
    """Rows of each of the nine tables."""
    with Store.open(settings) as store:
        union = " UNION ALL ".join(
            f"SELECT {i} AS n, '{table}' AS table, count(*) AS rows FROM {table}" for i, table in enumerate(NINE)
        )
        rows = query(store, f"SELECT * FROM ({union}) AS counted ORDER BY n").drop("n")
        name = store.database.name
        archived = query(store, ARCHIVED)
        place = store.archive.shown()
    grid(rows, f"Database {name}", {"rows": ","})
    if archived.height:
        grid(archived, f"Archived in {place}", {"rows": ",", "MB": ",.1f"})


def show_summary(settings: Settings) -> None:
    """Rows of the tables, what is stored of each market, and each strategy's newest backtest."""
    show_tables(settings)
    with Store.open(settings) as store:
        markets = query(
            store,
            """SELECT symbol, "interval", min(day)::text AS "from", max(day)::text AS "to",
                      sum(rows)::bigint AS candles,
                      to_char(max(complete_through) FILTER (WHERE rows > 0), 'YYYY-MM-DD HH24:MI') AS "complete through"
                 FROM lineage WHERE table_name = 'market_data' GROUP BY 1, 2 ORDER BY 1, 2""",
        )
        results = query(
            store,
            """SELECT s.strategy_name || CASE WHEN s.version > 1 THEN ' v' || s.version ELSE '' END AS strategy,
                      b.day::text AS "as of", round(b.final_capital, 2)::float8 AS equity,
                      round(100 * b.total_return, 2)::float8 AS "return %",
                      round(b.sharpe_ratio, 2)::float8 AS sharpe,
                      round(100 * b.max_drawdown, 2)::float8 AS "fall %",
                      b.total_trades AS trades
                 FROM strategies AS s JOIN LATERAL (
                      SELECT * FROM backtest_results AS b WHERE b.strategy_id = s.id
                       ORDER BY day DESC LIMIT 1) AS b ON true
                ORDER BY s.strategy_name, s.version""",
        )
        absent = query(store, ABSENT)
        notes = query(store, "SELECT count(*) AS notes FROM sources WHERE note IS NOT NULL").item()
    grid(markets, "Markets (UTC)", {"candles": ","})
    if absent.height:
        grid(absent, "Candles that do not exist (UTC; SELECT * FROM gaps has the evidence)", {"hours": ",.1f"})
    if notes:
        console().print(f"{notes} stretches of candles have a note: SELECT * FROM sources WHERE note IS NOT NULL\n")
    money = {"equity": ",.2f", "return %": ".2f", "sharpe": ".2f", "fall %": ".2f", "trades": ","}
    grid(results, "Backtests as of their newest day (fall: largest drawdown)", money)


def show_health(found: Health, before: Mapping[tuple[str, str], float]) -> None:
    """The database's figures, with what they were a week ago or, where none is so old, at first."""
    megabytes, hours = (1 / 1_048_576, ",.1f", "MB"), (1 / 3600, ",.1f", "h")
    shown: dict[str, tuple[float, str, str]] = {
        "database_bytes": megabytes,
        "connections": (1, ",.0f", ""),
        "cache_hit_ratio": (100, ".1f", "%"),
        "oldest_transaction_seconds": (1, ",.0f", "s"),
        "partitions_ahead": (1, ".0f", ""),
        "dirty_days": (1, ",.0f", ""),
        "candle_age_seconds": hours,
    }
    rows = []
    for item in found.measures:
        if item.name not in shown:
            continue
        factor, form, unit = shown[item.name]
        was = before.get((item.name, item.subject))
        name = f"{item.name.removesuffix('_bytes').removesuffix('_seconds').replace('_', ' ')} {item.subject}".strip()
        rows.append(
            {
                "figure": name,
                "now": f"{item.value * factor:{form}} {unit}".strip(),
                "a week ago": None if was is None else f"{was * factor:{form}} {unit}".strip(),
            }
        )
    grid(pl.DataFrame(rows, schema=dict.fromkeys(("figure", "now", "a week ago"), pl.String)), "Database")

"""Read and show the stored rows, markets, newest results and health. Used by `status`, `demo` and `backfill`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
import polars as pl
from polars import selectors
from psycopg import sql

from algobot_assets.audit.assumptions import read_assumptions
from algobot_assets.cli.console import WIDTH, console, print_table
from algobot_assets.client.query_parts import UNFILLED_SUMS
from algobot_assets.compute.ledger.assumptions import Assumption, describe_by_strategy
from algobot_assets.compute.ledger.unfilled import LABELS, describe_unfilled
from algobot_assets.schema.tables import NINE
from algobot_assets.store.catalogue import StoredVersion
from algobot_assets.store.connection import Store
from algobot_assets.store.health import Health
from algobot_assets.store.reader import query
from algobot_assets.store.roles import joins_prove_references

#: Confirmed gaps by market and reason. Outages are summed up; halts, delistings and renamed coins are listed singly.
CONFIRMED_GAPS = """
SELECT symbol, "interval", reason, count(*) AS gaps,
       sum(extract(epoch FROM end_open - first_open) / 3600)::float8 AS hours,
       to_char(min(first_open), 'YYYY-MM-DD HH24:MI') AS "from", to_char(max(end_open), 'YYYY-MM-DD HH24:MI') AS "to"
  FROM gaps WHERE reason NOT IN ('listing', 'delivery')
 GROUP BY symbol, "interval", reason, CASE WHEN reason <> 'outage' THEN first_open END
 ORDER BY 1, 2, min(first_open)
"""
#: Months moved from the database to the archive, by table.
ARCHIVED = """
SELECT table_name AS "table", count(DISTINCT month) AS months, to_char(min(month), 'YYYY-MM') AS "from",
       to_char(max(month), 'YYYY-MM') AS "to", sum(rows)::bigint AS rows, sum(bytes)::bigint AS bytes
  FROM archived_files GROUP BY table_name ORDER BY array_position(ARRAY['market_data', 'indicators'], table_name::text)
"""
_MARKETS = """
SELECT symbol, "interval", min(day)::text AS "from", max(day)::text AS "to", sum(rows)::bigint AS candles,
       max(complete_through) FILTER (WHERE rows > 0) AS complete_through
  FROM lineage WHERE table_name = 'market_data' GROUP BY 1, 2 ORDER BY 1, 2
"""
_RESULTS = """
SELECT s.strategy_name AS strategy, s.version, b.day::text AS as_of, b.final_capital, b.total_return, b.sharpe_ratio,
       b.max_drawdown, b.total_trades
  FROM strategies AS s JOIN LATERAL (
       SELECT * FROM backtest_results AS b WHERE b.strategy_id = s.id ORDER BY day DESC LIMIT 1) AS b ON true
 ORDER BY s.strategy_name, s.version
"""


_UNFILLED = sql.SQL("""
SELECT s.strategy_name AS strategy, s.version, {}, min(u.day)::text AS counted_from, max(u.day)::text AS counted_to
  FROM strategies AS s JOIN unfilled_signals AS u ON u.strategy_id = s.id
 GROUP BY s.strategy_name, s.version ORDER BY s.strategy_name, s.version
""")


@dataclass(frozen=True)
class StoredTables:
    """Row counts of the nine tables, the archived months with their place, and how references are checked."""

    database: str
    rows: pl.DataFrame
    archived: pl.DataFrame
    place: str
    row_by_row: bool

    @classmethod
    def read(cls, store: Store) -> StoredTables:
        """Count the stored rows, and read the list of archived months."""
        union = " UNION ALL ".join(
            f"SELECT {i} AS n, '{table}' AS table, count(*) AS rows FROM {table}" for i, table in enumerate(NINE)
        )
        rows = query(store, f"SELECT * FROM ({union}) AS counted ORDER BY n").drop("n")
        with store.transaction() as connection:
            row_by_row = not joins_prove_references(connection)
        return cls(store.database.name, rows, query(store, ARCHIVED), store.archive.shown(), row_by_row)

    def show(self) -> None:
        """Print the row counts and the archived months as tables."""
        print_table(self.rows, f"Database {self.database}", {"rows": ","})
        if self.archived.height:
            megabytes = self.archived.select(pl.exclude("bytes"), (pl.col("bytes") / 2**20).alias("MB"))
            print_table(megabytes, f"Archived in {self.place}", {"rows": ",", "MB": ",.1f"})
        if self.row_by_row:
            text = (
                "References to candles are checked row by row, which makes writing slower: the owner of the tables may "
                "not set session_replication_role. A superuser can allow it: see `algobot db grants`."
            )
            click.echo(textwrap.fill(text, WIDTH))

    def document(self) -> dict[str, Any]:
        """Return the row counts and the archived months for JSON."""
        checked = "row by row" if self.row_by_row else "by join"
        rows = dict(self.rows.iter_rows())
        return {"database": self.database, "rows": rows, "archived": self.archived, "references_checked": checked}


@dataclass(frozen=True)
class Summary:
    """The tables, the stored range of each market, and the newest backtest of each strategy version."""

    tables: StoredTables
    markets: pl.DataFrame
    results: pl.DataFrame
    gaps: pl.DataFrame
    notes: int
    unfilled: pl.DataFrame
    assumptions: dict[StoredVersion, tuple[Assumption, ...]]

    @classmethod
    def read(cls, store: Store) -> Summary:
        """Query the current summary."""
        markets, results, gaps = (query(store, statement) for statement in (_MARKETS, _RESULTS, CONFIRMED_GAPS))
        notes = query(store, "SELECT count(*) AS notes FROM sources WHERE note IS NOT NULL").item()
        results = results.with_columns(selectors.decimal().cast(pl.Decimal(20, 8)))  # the type of the columns
        unfilled = query(store, _UNFILLED.format(UNFILLED_SUMS))
        return cls(StoredTables.read(store), markets, results, gaps, notes, unfilled, read_assumptions(store))

    def show(self) -> None:
        """Print it as tables."""
        self.tables.show()
        through = pl.col("complete_through").dt.strftime("%Y-%m-%d %H:%M").alias("complete through")
        print_table(self.markets.select(pl.exclude("complete_through"), through), "Markets (UTC)", {"candles": ","})
        if self.gaps.height:
            title = "Gaps: candles that do not exist (UTC; evidence: SELECT * FROM gaps)"
            print_table(self.gaps, title, {"hours": ",.1f"})
        if self.notes:
            text = f"Notes on {self.notes} stretches of candles: SELECT * FROM sources WHERE note IS NOT NULL\n"
            console().print(text)
        version = pl.when(pl.col("version") > 1).then(pl.format(" v{}", "version")).otherwise(pl.lit(""))
        shown = self.results.select(
            (pl.col("strategy") + version).alias("strategy"),
            pl.col("as_of").alias("as of"),
            pl.col("final_capital").alias("equity"),
            (100 * pl.col("total_return").cast(pl.Float64)).alias("return %"),
            pl.col("sharpe_ratio").alias("sharpe"),
            (100 * pl.col("max_drawdown").cast(pl.Float64)).alias("max DD %"),
            pl.col("total_trades").alias("trades"),
        )
        money = {"equity": ",.2f", "return %": ".2f", "sharpe": ".2f", "max DD %": ".2f", "trades": ","}
        print_table(shown, "Backtests as of their newest day (max DD: max drawdown)", money)

    def show_doubts(self) -> None:
        """Print signals without an order and favourable assumptions."""
        lines = []
        for row in self.unfilled.iter_rows(named=True):
            if text := describe_unfilled({reason: row[reason] for reason in LABELS}):
                number = f" v{row['version']}" if row["version"] > 1 else ""
                lines.append(f"{row['strategy']}{number}: {text}")
        lines.append(describe_by_strategy({version.name: found for version, found in self.assumptions.items()}))
        for line in filter(None, lines):
            click.echo(textwrap.fill(line, WIDTH, subsequent_indent="  "))

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            **self.tables.document(),
            "markets": self.markets,
            "gaps": self.gaps,
            "notes": self.notes,
            "strategies": self.results,
            "unfilled_signals": self.unfilled,
            "assumptions": [
                {"strategy": version.name, "version": version.version, **vars(assumption)}
                for version, found in self.assumptions.items()
                for assumption in found
            ],
        }


def health_document(found: Health, before: Mapping[tuple[str, str], float]) -> list[dict[str, Any]]:
    """List every figure with its value a week ago, or the oldest one if the history is shorter."""
    return [
        {"figure": m.name, "subject": m.subject, "value": m.value, "before": before.get((m.name, m.subject))}
        for m in found.measures
    ]


def show_health(found: Health, before: Mapping[tuple[str, str], float]) -> None:
    """Print the main figures with their values a week ago, or the oldest ones if the history is shorter."""
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
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("figure", "now", "a week ago"), pl.String))
    print_table(frame, "Database", right=("now", "a week ago"))

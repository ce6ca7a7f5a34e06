"""The questions people ask, as the client asks them: how long each takes, and by which plan it is answered.

Used by scale.py, which asks them at several sizes, and by tests/test_plans.py, which asks them of a small database
and looks at the plans. Here belong the questions and how a plan is read; what data they meet is the caller's affair.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from unittest import mock

import psycopg
from psycopg import sql

from algobot_assets.client import Client, ledger_queries, queries
from algobot_assets.schema.intervals import next_month
from algobot_assets.store.connection import Store

#: Calls of each question; the first is not counted.
CALLS = 8
Question = Callable[[Client], Any]

#: The newest signal of every strategy at once, as SQL users write it: the newest day comes from lineage.
LATEST_SIGNALS = """
    SELECT v.strategy_name, s."timestamp", s.signal
      FROM strategies AS v
     CROSS JOIN LATERAL (SELECT max(day) AS day FROM lineage
                          WHERE table_name = 'signals' AND symbol = v.symbol AND "interval" = v."interval"
                            AND strategy_id = v.id AND rows > 0) AS newest
     CROSS JOIN LATERAL (SELECT "timestamp", signal FROM signals
                          WHERE symbol = v.symbol AND "interval" = v."interval" AND strategy_id = v.id
                            AND "timestamp" >= (newest.day - 31)::timestamp AT TIME ZONE 'UTC'
                          ORDER BY "timestamp" DESC LIMIT 1) AS s"""


def asked(market: str, strategy: str, month: date, interval: str = "1m") -> dict[str, Question]:
    """The client's questions by name: of a market, one of its strategies, and a month."""
    end = next_month(month)
    return {
        "latest signal": lambda client: client.latest_signal(strategy),
        "trades of a strategy": lambda client: client.trades(strategy),
        "candles with indicators, a month": lambda client: client.candles_with_indicators(market, interval, month, end),
        "candles, a day": lambda client: client.candles(market, interval, month, month + timedelta(days=1)),
        "markets": lambda client: client.markets(),
    }


def measure(client: Client, store: Store, market: str, strategy: str, month: date) -> dict[str, float]:
    """Median milliseconds of each question, without the client's memory; SystemExit where one has no answer."""
    figures: dict[str, float] = {}
    for name, question in asked(market, strategy, month).items():
        figures[f"{name}, ms"] = _milliseconds(lambda question=question: question(client))

    def latest() -> None:
        with store.transaction() as connection:
            if not connection.execute(LATEST_SIGNALS).fetchall():
                raise SystemExit("No strategy has a signal; no figure is worth anything.")

    figures["latest signals of all strategies, ms"] = _milliseconds(latest)
    rows = client.candles_with_indicators(market, "1m", month, next_month(month)).frame
    if rows.height != (next_month(month) - month).days * 1440 or rows["ema"].null_count() == rows.height:
        raise SystemExit("The month is not whole; no figure is worth anything.")
    if not client.trades(strategy).frame.height:
        raise SystemExit("The strategy has no trades; no figure is worth anything.")
    return figures


def _milliseconds(call: Callable[[], Any]) -> float:
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:]) * 1000


def add_trades(store: Store, first: date, days: int, per_day: int = 4) -> None:
    """So many trades a day for every strategy, before whatever its ledger has."""
    with store.transaction() as connection:
        connection.execute(
            """INSERT INTO trade_history (strategy_id, day, symbol, "interval", entry_time, exit_time, position_type,
                   entry_price, exit_price, profit_pct, duration, commission_fee, entry_signal_time, quantity,
                   gross_profit, net_profit, slippage_cost, exit_reason, ambiguous)
               SELECT v.id, t::date, v.symbol, v."interval", t, t + interval '1 hour', 'long', 20000, 20100, 0.3, 1,
                      0.04, t - interval '1 minute', 0.001, 0.1, 0.06, 0, 'stop_loss', false
                 FROM strategies AS v, generate_series(%s::timestamptz, %s::timestamptz, %s) AS t
                WHERE t < %s::timestamptz""",
            (
                f"{first} 00:00+00",
                f"{first + timedelta(days=days)} 00:00+00",
                timedelta(days=1) / per_day,
                f"{first + timedelta(days=days - 1)} 00:00+00",
            ),
        )
    with store.connection() as connection:
        connection.execute("VACUUM (ANALYZE) trade_history")


@dataclass
class Plans:
    """The plans of the statements that were run within ``explained``, as EXPLAIN (FORMAT JSON) gives them."""

    statements: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Every node of every plan that is not cut off at run time."""
        for _, plan in self.statements:
            yield from _nodes(plan)

    def scans(self, *tables: str) -> dict[str, set[str]]:
        """Relations of these tables (leaves too) that are looked at, each with the kinds of nodes that do it."""
        found: dict[str, set[str]] = {}
        for node in self.nodes():
            relation = node.get("Relation Name", "")
            if relation.startswith(tables):
                found.setdefault(relation, set()).add(node["Node Type"])
        return found


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if plan.get("Actual Loops") == 0:  # left out by pruning at run time, or never reached
        return
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)


@contextmanager
def explained() -> Iterator[Plans]:
    """Within the block each reading statement of the client is explained (and run) before it is run."""
    plans = Plans()
    execute, copy_out = psycopg.Connection.execute, queries.copy_out
    query = ledger_queries.query

    def explain(connection: psycopg.Connection, statement: Any, parameters: Any) -> None:
        text = psycopg.ClientCursor(connection).mogrify(statement, parameters or None)
        if text.lstrip().upper().startswith(("SELECT", "WITH")):
            analysed = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}"
            row = execute(connection, analysed).fetchone()
            plans.statements.append((text, row[0][0]["Plan"]))

    def watched_execute(self: psycopg.Connection, statement: Any, parameters: Any = None, **options: Any) -> Any:
        if self.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
            explain(self, statement, parameters)
        return execute(self, statement, parameters, **options)

    def watched_copy(connection: psycopg.Connection, statement: sql.Composable, parameters: Any, schema: Any) -> Any:
        explain(connection, statement, parameters)
        return copy_out(connection, statement, parameters, schema)

    def watched_query(store: Store, statement: Any, parameters: Any = (), schema: Any = None) -> Any:
        with store.transaction() as connection:
            explain(connection, statement, parameters)
        return query(store, statement, parameters, schema)

    with (
        mock.patch.object(psycopg.Connection, "execute", watched_execute),
        mock.patch.object(queries, "copy_out", watched_copy),
        mock.patch.object(ledger_queries, "query", watched_query),
    ):
        yield plans

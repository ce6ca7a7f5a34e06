"""Read what a page shows: one strategy version with its results, trades, candles and records."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from algobot_assets.audit.assumptions import StoredAssumptions
from algobot_assets.audit.gaps import MissingDay, missing_days
from algobot_assets.audit.staleness import stale
from algobot_assets.client import ledger_queries, queries
from algobot_assets.client.cache import FrameCache
from algobot_assets.client.query_parts import UNFILLED_SUMS
from algobot_assets.compute.ledger.assumptions import Assumption
from algobot_assets.compute.ledger.kernel import LAYOUT_VERSION
from algobot_assets.compute.ledger.state import AccountState, read_state
from algobot_assets.compute.metrics.curves import buy_and_hold, equity_curve
from algobot_assets.declared.versions import effective, lifetimes, settings
from algobot_assets.reports.candles import levels
from algobot_assets.schema.intervals import midnight, opens_window, phase_of
from algobot_assets.store import catalogue
from algobot_assets.store.catalogue import StoredVersion
from algobot_assets.store.connection import Store

DAY = timedelta(days=1)
Rows = list[dict[str, Any]]
#: Combinations of a sweep that a page lists.
RANKED = 15
_CANDLE = ("timestamp", "open", "high", "low", "close", "ema", "rsi", "atr", "vwap")


@dataclass(frozen=True)
class Market:
    """A market's candles over the days of a strategy version.

    `levels`: see candles.levels; `opens`: timestamp, open, close of every candle; `gaps`: confirmed to be absent;
    `missing`: days that lack candles, not confirmed; `sources`: where the candles come from.
    """

    levels: list[dict[str, Any]]
    opens: pl.DataFrame
    phase: int | None
    gaps: list[dict[str, Any]]
    missing: list[MissingDay]
    sources: list[dict[str, Any]]
    notes: list[dict[str, Any]]


@dataclass(frozen=True)
class Facts:
    """One strategy version. `last`: its newest row of backtest_results, None if nothing is computed. `curve`:
    equity_curve with `hold`. `risk`: its risk parameters by effective date. `records`: days, code and digest of each
    table. `rules_from`: day of the first order rules of its symbol. `unfilled`: signals without an order by reason,
    None if they were not counted. `sweeps`: those of its type and market, each with its `best` rows."""

    item: StoredVersion
    row: dict[str, Any]
    versions: list[dict[str, Any]]
    as_of: datetime
    exchange: str
    results: pl.DataFrame
    last: dict[str, Any] | None
    curve: pl.DataFrame
    trades: pl.DataFrame
    account: AccountState | None
    market: Market
    risk: list[dict[str, Any]]
    configuration: list[dict[str, Any]]
    records: list[dict[str, Any]]
    stale: int
    rules_from: date | None
    unfilled: dict[str, int] | None
    assumptions: tuple[Assumption, ...]
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    walks: list[dict[str, Any]] = field(default_factory=list)


class Reader:
    """Reads the facts of several versions; reads stale partitions once, and a market's candles once per period."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.as_of, self.versions, self.exchange = store.retrying(
            lambda c: (catalogue.now(c), catalogue.versions(c), _exchange(c)), "Reading the strategies"
        )
        self._markets: dict[tuple[str, str, date, date], Market] = {}
        self._stale = stale(store)
        self._assumptions = StoredAssumptions(store)
        self._declared = {
            table: ledger_queries.read_declared(store, table).frame
            for table in ("configurations", "strategies", "risk_parameters")
        }

    def choose(self, name: str, version: int | None = None) -> StoredVersion:
        """Return the version of that number, or the one in force. Raise WindowError if it is unknown."""
        return catalogue.choose_version(self.versions, name, version, self.as_of.date())

    def facts(self, item: StoredVersion) -> Facts:
        """Read everything about one version."""
        results = ledger_queries.read_ledger(self.store, "backtest_results", item.name, item.version, None, None).frame
        trades = ledger_queries.read_ledger(self.store, "trade_history", item.name, item.version, None, None).frame
        row = next(r for r in self._declared["strategies"].iter_rows(named=True) if r["id"] == item.id)
        first = item.effective_from
        last = results["day"][-1] if results.height else (item.until or self.as_of.date() + DAY) - DAY
        market = self._market(item.symbol, item.interval, first, max(first, last))
        curve = equity_curve(results)
        initial = float(row["initial_balance"])
        hold = buy_and_hold(market.opens, curve["day"], initial, item.interval, market.phase)
        risk = lifetimes(self._declared["risk_parameters"]).filter(pl.col("strategy_id") == item.id)
        read = self.store.retrying(lambda c: _records(c, item, max(first, last)), f"Reading the records of {item}")
        return Facts(
            item=item,
            row=row,
            versions=self._family(item),
            as_of=self.as_of,
            exchange=self.exchange,
            results=results,
            last=results.row(-1, named=True) if results.height else None,
            curve=curve.with_columns(hold),
            trades=trades,
            market=market,
            risk=list(risk.iter_rows(named=True)),
            configuration=self._configuration(last),
            assumptions=self._assumptions.on(item, last),
            stale=self._stale.filter(
                (pl.col("strategy_id") == item.id)
                | ((pl.col("strategy_id") == 0) & (pl.col("symbol") == item.symbol))
                & (pl.col("interval") == item.interval)
            ).height,
            **read,
        )

    def _family(self, item: StoredVersion) -> list[dict[str, Any]]:
        """Read every version of the same name with its newest figures."""
        with self.store.transaction() as connection:
            rows = (
                connection.cursor(row_factory=dict_row)
                .execute(
                    """SELECT DISTINCT ON (s.effective_from)
                          s.version, s.effective_from, s.parameters::text
                          AS parameters, b.day, b.total_return, b.max_drawdown, b.sharpe_ratio, b.total_trades
                     FROM strategies AS s LEFT JOIN backtest_results AS b ON b.strategy_id = s.id
                    WHERE s.strategy_name = %s ORDER BY s.effective_from, b.day DESC""",
                    (item.name,),
                )
                .fetchall()
            )
        until = {other.version: other.until for other in self.versions if other.name == item.name}
        return [row | {"until": until[row["version"]]} for row in rows]

    def _configuration(self, day: date) -> list[dict[str, Any]]:
        """Return every setting with its value on a day and its stored version (None for a default)."""
        stored = self._declared["configurations"]
        versions = {row["config_name"]: row for row in effective(stored, day).iter_rows(named=True)}
        values = settings(stored, day)
        return [{"name": name, "value": value, "stored": versions.get(name)} for name, value in values.items()]

    def _market(self, symbol: str, interval: str, first: date, last: date) -> Market:
        key = (symbol, interval, first, last)
        if key not in self._markets:
            self._markets = {key: self._read_market(*key)}  # one market at a time: minutes are large
        return self._markets[key]

    def _read_market(self, symbol: str, interval: str, first: date, last: date) -> Market:
        days = (symbol, interval, first, last)

        def work(connection: psycopg.Connection) -> tuple[int | None, Rows, Rows, Rows]:
            cursor = connection.cursor(row_factory=dict_row)
            listed = cursor.execute(
                """SELECT first_open FROM listings WHERE symbol = %s AND "interval" = %s""", days[:2]
            ).fetchone()
            gaps = cursor.execute(
                """SELECT first_open, end_open, reason, evidence FROM gaps WHERE symbol = %s AND "interval" = %s
                      AND reason NOT IN ('listing', 'delivery') AND end_open > %s AND first_open < %s
                    ORDER BY first_open""",
                (*days[:2], midnight(first), midnight(last + DAY)),
            ).fetchall()
            sources = cursor.execute(
                """SELECT kind, count(DISTINCT day) AS days, count(DISTINCT name) AS names, min(day) AS first,
                          max(day) AS last, count(sha256) AS hashed
                     FROM sources WHERE symbol = %s AND "interval" = %s AND day BETWEEN %s AND %s
                    GROUP BY kind ORDER BY min(day)""",
                days,
            ).fetchall()
            notes = cursor.execute(
                """SELECT day, note FROM sources WHERE symbol = %s AND "interval" = %s AND day BETWEEN %s AND %s
                      AND note IS NOT NULL ORDER BY day""",
                days,
            ).fetchall()
            phase = (phase_of(listed["first_open"]) if listed else 0) if interval == "3d" else None
            return phase, gaps, sources, notes

        phase, gaps, sources, notes = self.store.retrying(work, f"Reading the records of {symbol} {interval}")
        bounds = opens_window(interval, first, last + DAY, phase)
        both = ("market_data", "indicators")
        frame = queries.read_by_candle(self.store, FrameCache(0), both, symbol, interval, *bounds, _CANDLE).frame
        found = [missing for missing in missing_days(self.store, [(symbol, interval)]) if first <= missing.day <= last]
        opens = frame.select("timestamp", "open", "close")
        return Market(levels(frame, interval), opens, phase, gaps, found, sources, notes)


def _exchange(connection: psycopg.Connection) -> str:
    row = connection.execute("SELECT name FROM exchange").fetchone()
    return row[0] if row else "binance"


def _records(connection: psycopg.Connection, item: StoredVersion, last: date) -> dict[str, Any]:
    """Read the account, records, rules, sweeps and walk-forwards of a version."""
    cursor = connection.cursor(row_factory=dict_row)
    state = cursor.execute(
        """SELECT state_out FROM lineage WHERE table_name = 'trade_history' AND symbol = '' AND "interval" = ''
              AND strategy_id = %s ORDER BY day DESC LIMIT 1""",
        (item.id,),
    ).fetchone()
    account = None
    if state and state["state_out"] and state["state_out"][0] == LAYOUT_VERSION:
        account = read_state(pl.Series(state["state_out"], dtype=pl.Float64).to_numpy())
    records = cursor.execute(
        """SELECT table_name, count(*) AS days, min(day) AS first, max(day) AS last, sum(rows)::bigint AS rows,
                  array_agg(DISTINCT code_version) AS code, max(written_at) AS written_at,
                  encode(sha256(string_agg(output_digest, ''::bytea ORDER BY day)), 'hex') AS digest
             FROM lineage
            WHERE (symbol = %(symbol)s AND "interval" = %(interval)s AND strategy_id IN (0, %(id)s)
                   OR symbol = '' AND strategy_id = %(id)s)
              AND day BETWEEN %(first)s AND %(last)s
            GROUP BY table_name
            ORDER BY array_position(ARRAY['market_data', 'indicators', 'signals', 'trade_history',
                                          'performance_metrics', 'backtest_results'], table_name::text)""",
        dict(symbol=item.symbol, interval=item.interval, id=item.id, first=item.effective_from, last=last),
    ).fetchall()
    (rules,) = cursor.execute(
        "SELECT min(effective_from) AS first FROM symbol_rules WHERE symbol = %s", (item.symbol,)
    ).fetchall()
    of_type = (item.id, item.symbol, item.interval)
    tried = """w.strategy_type = (SELECT strategy_type FROM strategies WHERE id = %s)
               AND w.symbol = %s AND w."interval" = %s"""
    sweeps = cursor.execute(
        f"""SELECT w.id, w.first_day, w.last_day, w.grid, w.combinations, w.finished_at,
                   (SELECT count(*) FROM sweep_results AS r WHERE r.sweep_id = w.id) AS computed
              FROM sweeps AS w WHERE {tried} ORDER BY w.id DESC LIMIT 5""",
        of_type,
    ).fetchall()
    for sweep in sweeps:
        sweep["best"] = cursor.execute(
            """SELECT combination, parameters, risk, total_return, max_drawdown, sharpe_ratio, win_rate, profit_factor,
                      total_trades
                 FROM sweep_results WHERE sweep_id = %s ORDER BY sharpe_ratio DESC NULLS LAST, combination LIMIT %s""",
            (sweep["id"], RANKED),
        ).fetchall()
    walks = cursor.execute(
        f"""SELECT w.id, w.first_day, w.last_day, w.combinations, w.metric, w.train_days, w.test_days, w.anchored,
                   w.deflated_sharpe, r.total_return, r.max_drawdown, r.sharpe_ratio, r.total_trades
              FROM walk_forwards AS w JOIN walk_forward_windows AS r ON r.walk_forward_id = w.id AND r.number = 0
             WHERE {tried} ORDER BY w.id DESC LIMIT 5""",
        of_type,
    ).fetchall()
    (unfilled,) = cursor.execute(
        sql.SQL("SELECT count(*) AS days, {} FROM unfilled_signals WHERE strategy_id = %s").format(UNFILLED_SUMS),
        (item.id,),
    ).fetchall()
    return {
        "account": account,
        "records": records,
        "rules_from": rules["first"],
        "unfilled": unfilled if unfilled.pop("days") else None,
        "sweeps": sweeps,
        "walks": walks,
    }

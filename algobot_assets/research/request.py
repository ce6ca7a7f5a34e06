"""Turn a request (strategy, market, days, terms) into a trial: its candles as arrays, and a digest of all inputs.

Sweeps, walk-forwards and `algobot try` start here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from algobot_assets.compute.carry import Days
from algobot_assets.compute.code_version import ledger_code_version, strategy_code_version
from algobot_assets.compute.ledger.assumptions import Assumption, favourable_assumptions
from algobot_assets.compute.ledger.run import minute_array
from algobot_assets.compute.ledger.terms import RuleTerms
from algobot_assets.compute.strategies import get_strategy, load_strategy_file, strategy_types
from algobot_assets.compute.strategy import Strategy
from algobot_assets.compute.sweep.grid import Grid
from algobot_assets.compute.sweep.run import AccountTerms, Market, Part
from algobot_assets.declared.parameters import canonical, from_json
from algobot_assets.errors import SettingsError, WindowError
from algobot_assets.pipeline.ledger.inputs import costs_on, minute_days, rules_on
from algobot_assets.pipeline.table import Table
from algobot_assets.schema.intervals import INTERVALS, day_of, days_between, end_of, midnight
from algobot_assets.store import catalogue
from algobot_assets.store.connection import Store
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import digest
from algobot_assets.store.reader import read_table

DAY = timedelta(days=1)
PRICES = ("timestamp", "open", "high", "low", "close", "volume")
RISK: dict[str, Any] = {
    "risk_per_trade": Decimal("0.02"),
    "max_risk_per_trade": Decimal("0.02"),
    "max_open_trades": 1,
    "stop_loss_percentage": Decimal(2),
    "take_profit_percentage": Decimal(0),
}
"""Risk parameters of a strategy that is not stored, unless the request gives others."""
BALANCE = Decimal(10_000)


@dataclass(frozen=True)
class Request:
    """What to try. `strategy`: a stored strategy, whose settings are the defaults; a registered type; or the path of a
    Python file. `parameters` and `risk`: texts such as fast=5:50:5. None: see `prepare`.
    """

    strategy: str
    parameters: Sequence[str] = ()
    risk: Sequence[str] = ()
    market: str | None = None
    first: date | None = None
    last: date | None = None
    balance: Decimal | None = None
    shorting: bool | None = None


@dataclass(frozen=True)
class Trial:
    """A request with all its inputs read. `key`: digest of everything that decides the results."""

    strategy: Strategy
    symbol: str
    interval: str
    phase: int | None
    first: date
    last: date
    account: AccountTerms
    grid: Grid
    market: Market
    key: bytes
    code: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Strategy, market and days."""
        return f"{self.strategy.name} on {self.symbol} {self.interval}, {self.first} to {self.last}"

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """Favourable assumptions in force on any of the days."""
        shorting = self.account.shorting
        found = [
            assumption
            for part in self.account.parts
            for assumption in favourable_assumptions(self.symbol, part.costs, part.rules, shorting=shorting)
        ]
        return tuple(dict.fromkeys(found))


def prepare(store: Store, request: Request) -> Trial:
    """Read everything the request needs.

    Defaults: the market of the stored strategy, or the only market stored; the effective date of the stored strategy,
    or the market's first day; the newest stored day. Raises SettingsError or WindowError for an unknown strategy,
    parameter, market or day.
    """
    base = _base(store, request)
    strategy = base["strategy"]
    grid = Grid.of(strategy, request.parameters, request.risk, base["parameters"], base["risk"])
    symbol, interval = base["market"]
    table = Table(store, "market_data", date(2017, 7, 1), date(2017, 7, 2))
    window = table.window(symbol=symbol, interval=interval)
    with store.transaction() as connection:
        catalogue.require_market(connection, symbol, interval)
        begin = lineage.first_day(connection, window)
        ((end,),) = connection.execute(
            """SELECT max(day) + 1 FROM lineage WHERE table_name = 'market_data' AND symbol = %s AND "interval" = %s""",
            (symbol, interval),
        ).fetchall()
    if begin is None:
        raise WindowError(f"{symbol} {interval} has no complete day yet. Run `algobot backfill` first.")
    first, last = request.first or max(base["first"] or begin, begin), request.last or end - DAY
    if not begin <= first <= last < end:
        raise WindowError(
            f"{first} to {last} is not stored for {symbol} {interval}, only {begin} to {end - DAY}. "
            "Choose days in that range, or backfill the others."
        )
    candles = window.of(begin, last + DAY)
    recorded = table.lineage(candles)
    _require_days(recorded, candles.first, last, f"candles of {symbol} {interval}", "market_data")
    digests = [recorded[day].output for day in sorted(recorded)]
    rows = table.read(candles, PRICES)
    indicators = None
    if strategy.indicators:
        values = Table(store, "indicators", begin, last + DAY).window(symbol=symbol, interval=interval)
        known = table.lineage(values)
        _require_days(known, begin, last, f"indicators of {symbol} {interval}", "indicators")
        digests += [known[day].output for day in sorted(known)]
        indicators = table.read(values, ["timestamp", *strategy.indicators])
    account = AccountTerms(base["balance"], base["shorting"], base["stop_path"], _parts(store, symbol, first, last))
    minutes = None
    if account.stop_path:
        inside = table.window(minute_days(interval, first)[0], last + DAY, symbol, "1m")
        known = table.lineage(inside)
        digests += [known[day].output for day in sorted(known)]
        terms = account.terms(grid.risk_sets[0], first, first)
        minutes = minute_array(table.read(inside, PRICES), terms, f"{symbol} 1m")
    owned = rows.select(day_of(interval, window.phase).alias("day"))["day"]
    through = recorded[last].complete_through
    market = Market(
        rows,
        rows.select(end_of(interval, window.phase).alias("end"))["end"],
        Days(days_between(begin, last + DAY), owned),
        indicators,
        minutes=minutes,
        as_of_ms=None if through >= midnight(last + DAY) else round(through.timestamp() * 1000),
        label=f"{strategy.name} on {symbol} {interval}",
    )
    settings = _settings(account)
    code = f"{ledger_code_version()}-{strategy_code_version(strategy.name)}"
    key = digest(
        code.encode(),
        canonical({"strategy": strategy.name, "market": [symbol, interval], "days": [str(first), str(last)]}).encode(),
        canonical({"parameters": grid.parameters, "risk": grid.risk}).encode(),
        canonical(settings).encode(),
        str(through).encode(),
        *digests,
    )
    return Trial(strategy, symbol, interval, window.phase, first, last, account, grid, market, key, code, settings)


def _base(store: Store, request: Request) -> dict[str, Any]:
    """Return strategy, market and the defaults of everything the request does not give."""
    name = request.strategy
    found: dict[str, Any] = {
        "parameters": {},
        "risk": RISK,
        "balance": request.balance or BALANCE,
        "shorting": bool(request.shorting),
        "stop_path": None,
        "first": None,
    }
    with store.transaction() as connection:
        stored = catalogue.versions(connection)
        today = catalogue.now(connection).date()
        markets = [(item.symbol, item.interval) for item in catalogue.markets(connection)]
    if name.endswith(".py"):
        types = load_strategy_file(name)
        if len(types) > 1:
            raise SettingsError(f"{name} defines several strategies ({', '.join(types)}). Keep one in the file.")
        found["strategy"] = get_strategy(types[0])
    elif name in {item.name for item in stored}:
        version = catalogue.choose_version(stored, name, None, today)
        row = read_table(store, "strategies", "id").row(by_predicate=pl.col("id") == version.id, named=True)
        held = from_json(row["parameters"])
        risks = read_table(store, "risk_parameters", "effective_from").filter(pl.col("strategy_id") == version.id)
        own = risks.filter(pl.col("effective_from") <= (request.first or today))
        chosen = (own.row(-1, named=True) if own.height else risks.row(0, named=True)) if risks.height else RISK
        found |= {
            "strategy": get_strategy(row["strategy_type"]),
            "parameters": held.parameters,
            "risk": {key: row[key] if key in row else chosen[key] for key in RISK},
            "balance": request.balance or row["initial_balance"],
            "shorting": held.shorting if request.shorting is None else request.shorting,
            "stop_path": held.stop_path,
            "first": row["effective_from"],
            "market": (version.symbol, version.interval),
        }
    elif name in strategy_types():
        found["strategy"] = get_strategy(name)
    else:
        known = [item.name for item in stored]
        near = catalogue.nearest(name, [*known, *strategy_types()])
        raise SettingsError(
            f"No strategy is called {name!r}" + (f"; the nearest is {near}" if near else "") + ". Pass the name of a "
            f"stored strategy ({', '.join(sorted(set(known))) or 'none'}), a type ({', '.join(strategy_types())}) or a "
            "Python file."
        )
    if request.market is not None:
        found["market"] = _market(request.market)
    elif "market" not in found:
        if len(markets) != 1:
            stand = ", ".join(" ".join(item) for item in markets[:10])
            raise SettingsError(f"The request names no market. Pass --market, one of: {stand or 'none is stored'}.")
        found["market"] = markets[0]
    return found


def _market(text: str) -> tuple[str, str]:
    parts = text.split()
    if len(parts) != 2 or parts[1] not in INTERVALS:
        raise SettingsError(f"{text!r} is not a market. Write symbol and interval, for example 'BTCUSDT 1h'.")
    return parts[0], parts[1]


def _require_days(recorded: dict[date, Any], first: date, last: date, what: str, table: str) -> None:
    for day in days_between(first, last + DAY):
        if day not in recorded:
            raise WindowError(f"The {what} are missing on {day}. Run `algobot backfill {day} {last}` ({table}) first.")


def _parts(store: Store, symbol: str, first: date, last: date) -> tuple[Part, ...]:
    """Return rules and costs as the ledger takes them: one part per day on which either changes."""
    rules = read_table(store, "symbol_rules", "effective_from")
    configurations = read_table(store, "configurations", "effective_from", "id")
    changes = set(rules.filter(pl.col("symbol") == symbol)["effective_from"])
    changes |= set(configurations.filter(pl.col("config_name").str.starts_with("ledger."))["effective_from"])
    days = [first, *sorted(day for day in changes if first < day <= last)]
    parts: list[Part] = []
    for day in days:
        part = Part(day, rules_on(rules, symbol, day), costs_on(configurations, day))
        if not parts or (part.rules, part.costs) != (parts[-1].rules, parts[-1].costs):
            parts.append(part)
    return tuple(parts)


def _settings(account: AccountTerms) -> dict[str, Any]:
    def of_rules(rules: RuleTerms) -> list[Any]:
        return [rules.tick, rules.step, rules.min_notional]

    return {
        "initial_balance": account.initial_balance,
        "shorting": account.shorting,
        "stop_path": account.stop_path,
        "parts": [
            {
                "first": str(part.first),
                "commission_rate": part.costs.commission_rate,
                "slippage_bps": part.costs.slippage_bps,
                "rules": of_rules(part.rules),
            }
            for part in account.parts
        ],
    }


def returns_of(equity: np.ndarray, initial: float) -> np.ndarray:
    """Return the daily returns of an equity curve; the first is on the initial capital."""
    before = np.concatenate([[initial], equity[:-1]])
    returns: np.ndarray = equity / before - 1.0
    return returns

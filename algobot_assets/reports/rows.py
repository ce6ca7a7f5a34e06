"""Build the rows of a page's tables: figures with their definitions, trades, sweeps, data quality, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from algobot_assets.compute.ledger.unfilled import describe_unfilled
from algobot_assets.compute.metrics.performance import FIGURES
from algobot_assets.reports.facts import Facts
from algobot_assets.reports.figures import money, pairs, percent, plain, price, ratio
from algobot_assets.schema.tables import metadata

#: Newest trades that a page lists.
LISTED = 100
COUNTS = ("total_trades", "winning_trades", "losing_trades", "open_trades", "open_profit", "ambiguous_stops")
#: Fractions that read as percent.
_FRACTIONS = ("total_return", "annual_return", "max_drawdown", "win_rate")
_NULL = " NULL where undefined, not finite or beyond the type (the original's NOT NULL cannot hold)."


def metrics(last: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return every figure of the newest row of backtest_results with its definition, the comment of its column."""
    found = []
    for name in ("start_date", "end_date", *FIGURES, *COUNTS):
        value = last[name]
        if value is None:
            text = "-"
        elif name in _FRACTIONS:
            text = percent(value)
        elif name.endswith("_pct"):
            text = f"{value:,.2f} %"
        elif name in ("initial_capital", "final_capital", "open_profit"):
            text = money(value)
        elif isinstance(value, datetime):
            text = f"{value:%Y-%m-%d %H:%M}"
        else:
            text = ratio(value) if isinstance(value, Decimal) else f"{value:,}"
        comment = (metadata.tables["backtest_results"].columns[name].comment or "").removesuffix(_NULL)
        found.append({"name": name, "value": plain(value), "text": text, "definition": comment})
    return found


def chained(versions: Sequence[Mapping[str, Any]]) -> Decimal | None:
    """Return the return of versions one after the other; None if one has no result."""
    whole = Decimal(1)
    for version in versions:
        if version["total_return"] is None:
            return None
        whole *= 1 + version["total_return"]
    return whole - 1


def list_trades(facts: Facts, explained: Mapping[int, str]) -> dict[str, Any]:
    """Return the newest trades, newest first, with the number of all trades and of those with an explanation."""
    newest = facts.trades.tail(LISTED).reverse()
    rows = []
    for row in newest.iter_rows(named=True):
        times = {f"{side}_ms": round(row[f"{side}_time"].timestamp() * 1000) for side in ("entry", "exit")}
        texts = {side: f"{row[f'{side}_time']:%Y-%m-%d %H:%M}" for side in ("entry", "exit")}
        rows.append(row | times | texts | {"why": explained.get(row["id"])})
    return {"rows": rows, "total": facts.trades.height, "explained": sum(row["why"] is not None for row in rows)}


def list_sweeps(facts: Facts) -> list[dict[str, Any]]:
    """Return the sweeps with their best rows, shared values, and which row is the strategy's own."""
    own = {k: v for k, v in json.loads(facts.row["parameters"]).items() if k not in ("shorting", "stop_path")}
    risk = facts.risk[-1] if facts.risk else {}
    found = []
    for sweep in facts.sweeps:
        axes = {**sweep["grid"]["parameters"], **sweep["grid"]["risk"]}
        swept = [name for name, values in axes.items() if len(values) > 1]
        rows = []
        for best in sweep["best"]:
            values = best["parameters"] | best["risk"]
            same_risk = all(float(risk.get(k) or 0) == float(v) for k, v in best["risk"].items() if k in risk)
            declared = bool(own) and best["parameters"] == own and same_risk
            rows.append(best | {"swept": {name: values[name] for name in swept}, "declared": declared})
        shared = {name: values[0] for name, values in axes.items() if name not in swept}
        found.append(sweep | {"best": rows, "shared": shared})
    return found


def describe_quality(facts: Facts) -> list[tuple[str, str]]:
    """Return facts about the quality of the data: name and value."""
    market, last = facts.market, facts.last
    absent = sum((gap["end_open"] - gap["first_open"]).total_seconds() for gap in market.gaps) / 3600
    plural = "s" * (len(market.gaps) != 1)
    found = [
        ("Candles", f"{market.opens.height:,} stored of {facts.item.symbol} {facts.item.interval} in these days"),
        (
            "Confirmed absent",
            f"{len(market.gaps)} gap{plural}, {absent:,.1f} hours" if market.gaps else "none",
        ),
        ("Missing, not confirmed", f"{len(market.missing):,} days" if market.missing else "none"),
        ("Stale partitions", f"{facts.stale:,}" if facts.stale else "none"),
    ]
    for source in market.sources:
        hashed = ", each with its SHA-256" if source["hashed"] else ""
        kind = "REST" if source["kind"] == "rest" else source["kind"]
        found.append((f"From {kind}", f"{source['days']:,} days, {source['first']} to {source['last']}, "
                      f"{source['names']:,} source{'s' * (source['names'] != 1)}{hashed}"))  # fmt: skip
    if last:
        share = f" ({last['ambiguous_stops'] / last['total_trades']:.1%} of trades)" if last["total_trades"] else ""
        text = f"{last['ambiguous_stops']:,}{share}: one candle reached stop and target; the stop, the worse, is taken"
        found.append(("Ambiguous stops", text))
    if facts.unfilled is not None:
        found.append(("Signals without an order", describe_unfilled(facts.unfilled) or "none"))
    elif facts.account:  # computed before the reasons were counted
        text = f"{facts.account.skipped_entries:,}: the quantity was zero or worth less than the smallest order"
        found.append(("Skipped entries", text))
    return found


def describe_version(facts: Facts) -> list[tuple[str, str]]:
    """Return what reproduces the version: name and value."""
    row, item = facts.row, facts.item
    return [
        ("Strategy version", f"{item.name} v{item.version}, strategies.id {item.id}"),
        ("In force", f"from {item.effective_from} until {item.until or 'further notice'}"),
        ("Type", row["strategy_type"]),
        ("Parameters", pairs(row["parameters"])),
        ("Market", f"{item.symbol} {item.interval}"),
        ("Starting capital", price(row["initial_balance"])),
        ("Risk per trade", percent(row["risk_per_trade"])),
        ("Source of candles", facts.exchange),
    ]

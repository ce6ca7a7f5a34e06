"""Pages as text: facts put into templates, and the data of their charts.

Here: what stands where, and how numbers read. Values are escaped by the templates: names and notes come from people and
from sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from algobot_assets import __version__
from algobot_assets.comparison import Comparison
from algobot_assets.compute.curves import ROLLING_DAYS, equity_curve, monthly_returns, rolling_sharpe
from algobot_assets.compute.metrics import FIGURES
from algobot_assets.reports import library
from algobot_assets.reports.facts import Facts
from algobot_assets.reports.warnings import warnings_of
from algobot_assets.schema.intervals import LENGTH_MS
from algobot_assets.schema.tables import metadata

#: So many of the newest trades are listed on a page.
LISTED = 100
_COUNTS = ("total_trades", "winning_trades", "losing_trades", "open_trades", "open_profit", "ambiguous_stops")
#: What reads in percent though it is stored as a fraction.
_FRACTIONS = ("total_return", "annual_return", "max_drawdown", "win_rate")
_NULL = " NULL where undefined, not finite or beyond the type (the original's NOT NULL cannot hold)."


def strategy_page(facts: Facts, explained: Mapping[int, str], pages: Mapping[int, str]) -> str:
    """The page of one version. `explained`: text by trade id; `pages`: file names of the versions by number."""
    last = facts.last
    exact = facts.market.levels[-1] if facts.market.levels else None
    resolution = "No candles are stored for these days."
    if exact is not None and exact["whole"]:
        resolution = f"Drag over the chart to zoom. All {len(exact['t']):,} stored candles are in this page."
    elif exact is not None:
        coarser = next((level["interval"] for level in reversed(facts.market.levels) if level["whole"]), "nothing")
        first = datetime.fromtimestamp(exact["t"][0] / 1000, tz=facts.as_of.tzinfo)
        resolution = (
            f"Drag over the chart to zoom. Of {facts.market.opens.height:,} stored candles the newest "
            f"{len(exact['t']):,} (from {first:%Y-%m-%d %H:%M}) are in this page as they are; the others are "
            f"downsampled, to {coarser} at the finest, so that the page stays small and smooth."
        )
    return _template("strategy.html").render(
        **_common(facts.as_of, _strategy_data(facts) if last else None),
        item=facts.item,
        row=facts.row,
        last=last,
        days=f"{_days(last):.0f}" if last else "0",
        sections=_sections(facts),
        warnings=warnings_of(facts),
        cards=_cards(facts) if last else [],
        resolution=resolution,
        rolling_days=ROLLING_DAYS,
        trades=_listed(facts, explained),
        lots=facts.account.lots if facts.account else (),
        metrics=_metrics(last) if last else [],
        sweeps=_sweeps(facts),
        walks=facts.walks,
        quality=_quality(facts),
        gaps=facts.market.gaps,
        holes=facts.market.holes,
        notes=facts.market.notes,
        declared=_declared(facts),
        versions=[v | {"page": pages.get(v["version"])} for v in facts.versions],
        chained=_chained(facts.versions),
        risks=facts.risk,
        configuration=facts.configuration,
        records=facts.records,
    )


def comparison_page(every: Sequence[Facts], pages: Sequence[str], as_of: datetime, exchange: str) -> str:
    """The page of all strategies, each in one version."""
    columns = [("Strategy", False), ("Market", False), ("Since", True), ("Return %", True), ("Hold %", True)]
    columns += [("Yearly %", True), ("Drawdown %", True), ("Sharpe", True), ("Win rate %", True)]
    columns += [("Profit factor", True), ("Trades", True), ("Warnings", True)]
    return _template("index.html").render(
        **_common(as_of, {"kind": "strategies", "lines": _lines(every)} if every else None),
        exchange=exchange,
        columns=columns,
        rows=[_row(facts, page) for facts, page in zip(every, pages, strict=True)],
    )


def diff_page(found: Comparison, as_of: datetime) -> str:
    """The page of two versions and where they part."""
    lines = []
    for name, curve in zip((str(found.a), str(found.b)), found.curves, strict=True):
        if curve.height:
            values = (equity_curve(curve)["equity"] * (100 / float(curve["initial_capital"][0]))).round(3).to_list()
            lines.append({"name": name, "day": [str(day) for day in curve["day"]], "value": values})
    return _template("diff.html").render(
        **_common(as_of, {"kind": "strategies", "lines": lines}),
        a=found.a,
        b=found.b,
        same_market=(found.a.symbol, found.a.interval) == (found.b.symbol, found.b.interval),
        causes=found.causes,
        partings=[(what, getattr(found, what)) for what in ("candle", "signal", "trade")],
        figures=found.figures,
    )


def _common(as_of: datetime, data: Any) -> dict[str, Any]:
    return {
        "style": _source("style.css"),
        "script": _source("report.js"),
        "library": library.charting() if data else "",
        "data": library.packed(data) if data else "",
        "as_of": as_of,
        "algobot_version": __version__,
        "charting_version": library.charting_version(),
    }


# --- how numbers read -----------------------------------------------------------------------------------------


def price(value: Decimal | int | None) -> str:
    """Every stored digit, without trailing zeros."""
    return "-" if value is None else f"{Decimal(value).normalize():,f}"


def money(value: Decimal | float | None) -> str:
    """Two decimals; more where the amount is small."""
    if value is None:
        return "-"
    return f"{value:,.2f}" if abs(value) >= 1 or not value else f"{value:,.4f}"


def percent(value: Decimal | None) -> str:
    """A fraction in percent."""
    return "-" if value is None else f"{100 * value:,.2f} %"


def ratio(value: Decimal | None) -> str:
    """Two decimals."""
    return "-" if value is None else f"{value:,.2f}"


def pairs(value: str | Mapping[str, Any]) -> str:
    """name=value, one after the other, of a JSON object."""
    found = json.loads(value) if isinstance(value, str) else value
    return ", ".join(f"{name}={json.dumps(each)}" for name, each in found.items()) or "-"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("algobot_assets.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters |= {"price": price, "money": money, "percent": percent, "ratio": ratio, "pairs": pairs}
    return made


def _template(name: str):
    return _environment().get_template(name)


@cache
def _source(name: str):
    """A style sheet or script of ours, as it is."""
    return Markup(_environment().loader.get_source(_environment(), name)[0])


# --- parts of a page ------------------------------------------------------------------------------------------


def _days(last: Mapping[str, Any]) -> float:
    return (last["end_date"] - last["start_date"]).total_seconds() / 86_400


def _sections(facts: Facts) -> list[tuple[str, str]]:
    found = [("quality", "Data quality"), ("reproduce", "Reproduce")]
    if facts.sweeps or facts.walks:
        found.insert(0, ("sweeps", "Sweeps"))
    if facts.last is None:
        return found
    shown = [("equity", "Equity"), ("candles", "Candles"), ("months", "Months"), ("trades", "Trades")]
    return [*shown, ("metrics", "Figures"), *found]


def _card(label: str, figure: str | None, value: Any, text: str, note: str = "", signed: bool = False) -> dict:
    tone = "" if not signed or value is None or not value else "up" if value > 0 else "down"
    return {"label": label, "figure": figure, "value": _plain(value), "text": text, "note": note, "tone": tone}


def _plain(value: Any) -> str:
    """Exactly what is stored, for whoever compares; empty for NULL."""
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _cards(facts: Facts) -> list[dict]:
    last = facts.last
    hold = _hold(facts)
    wins = f"{last['winning_trades']:,} of {last['total_trades']:,}"
    opened = f"{last['open_trades']} open, {money(last['open_profit'])}" if last["open_trades"] else ""
    return [
        _card("Return", "total_return", last["total_return"], percent(last["total_return"]), signed=True),
        _card("Buy and hold", None, hold, "-" if hold is None else percent(hold), "without costs", signed=True),
        _card("Final capital", "final_capital", last["final_capital"], money(last["final_capital"]),
              f"from {price(last['initial_capital'])}"),
        _card("Yearly", "annual_return", last["annual_return"], percent(last["annual_return"]), signed=True),
        _card("Drawdown", "max_drawdown", last["max_drawdown"], percent(last["max_drawdown"])),
        _card("Sharpe", "sharpe_ratio", last["sharpe_ratio"], ratio(last["sharpe_ratio"])),
        _card("Win rate", "win_rate", last["win_rate"], percent(last["win_rate"]), wins),
        _card("Profit factor", "profit_factor", last["profit_factor"], ratio(last["profit_factor"])),
        _card("Trades", "total_trades", last["total_trades"], f"{last['total_trades']:,}", opened),
    ]  # fmt: skip


def _hold(facts: Facts) -> float | None:
    known = facts.curve["hold"].drop_nulls()
    return known[-1] / float(facts.row["initial_balance"]) - 1 if len(known) else None


def _metrics(last: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    for name in ("start_date", "end_date", *FIGURES, *_COUNTS):
        value = last[name]
        if value is None:
            text = "-"
        elif name in _FRACTIONS:
            text = percent(value)
        elif name in ("initial_capital", "final_capital", "open_profit"):
            text = money(value)
        elif isinstance(value, datetime):
            text = f"{value:%Y-%m-%d %H:%M}"
        else:
            text = ratio(value) if isinstance(value, Decimal) else f"{value:,}"
        comment = metadata.tables["backtest_results"].columns[name].comment.removesuffix(_NULL)
        found.append({"name": name, "value": _plain(value), "text": text, "definition": comment})
    return found


def _chained(versions: Sequence[Mapping[str, Any]]) -> Decimal | None:
    """The return of versions one after the other; None where one has no result."""
    whole = Decimal(1)
    for version in versions:
        if version["total_return"] is None:
            return None
        whole *= 1 + version["total_return"]
    return whole - 1


def _listed(facts: Facts, explained: Mapping[int, str]) -> dict[str, Any]:
    newest = facts.trades.tail(LISTED).reverse()
    rows = []
    for row in newest.iter_rows(named=True):
        times = {f"{side}_ms": round(row[f"{side}_time"].timestamp() * 1000) for side in ("entry", "exit")}
        texts = {side: f"{row[f'{side}_time']:%Y-%m-%d %H:%M}" for side in ("entry", "exit")}
        rows.append(row | times | texts | {"why": explained.get(row["id"])})
    return {"rows": rows, "total": facts.trades.height, "explained": sum(row["why"] is not None for row in rows)}


def _sweeps(facts: Facts) -> list[dict[str, Any]]:
    """The sweeps, with what equals the strategy's own parameters marked."""
    own = {k: v for k, v in json.loads(facts.row["parameters"]).items() if k not in ("shorting", "stop_path")}
    risk = facts.risk[-1] if facts.risk else {}
    for sweep in facts.sweeps:
        for best in sweep["best"]:
            same_risk = all(float(risk.get(k) or 0) == float(v) for k, v in best["risk"].items() if k in risk)
            best["declared"] = bool(own) and best["parameters"] == own and same_risk
    return facts.sweeps


def _quality(facts: Facts) -> list[tuple[str, str]]:
    market, last = facts.market, facts.last
    absent = sum((gap["end_open"] - gap["first_open"]).total_seconds() for gap in market.gaps) / 3600
    found = [
        ("Candles", f"{market.opens.height:,} stored of {facts.item.symbol} {facts.item.interval} in these days"),
        ("Confirmed absent", f"{len(market.gaps)} stretches, {absent:,.1f} hours" if market.gaps else "none"),
        ("Missing, not confirmed", f"{len(market.holes):,} days" if market.holes else "none"),
        ("Stale partitions", f"{facts.stale:,}" if facts.stale else "none"),
    ]
    for source in market.sources:
        hashed = ", each with its SHA-256" if source["hashed"] else ""
        found.append((f"From {source['kind']}", f"{source['days']:,} days, {source['first']} to {source['last']}, "
                      f"{source['names']:,} source{'s' * (source['names'] != 1)}{hashed}"))  # fmt: skip
    if last:
        share = f" ({last['ambiguous_stops'] / last['total_trades']:.1%} of trades)" if last["total_trades"] else ""
        text = f"{last['ambiguous_stops']:,}{share}: stop and target in one candle, the stop assumed"
        found.append(("Ambiguous stops", text))
    if facts.account:
        text = f"{facts.account.skipped_entries:,}: the quantity was zero or worth less than the smallest order"
        found.append(("Entries not made", text))
    return found


def _declared(facts: Facts) -> list[tuple[str, str]]:
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


# --- data of the charts ---------------------------------------------------------------------------------------


def _strategy_data(facts: Facts) -> dict[str, Any]:
    curve, trades = facts.curve, facts.trades
    rounded = {"equity": 2, "hold": 2, "drawdown": 6}
    equity = {name: curve[name].round(digits).fill_nan(None).to_list() for name, digits in rounded.items()}
    months = monthly_returns(curve)
    cells = {(year, month): value for year, month, value in months.iter_rows()}
    years = sorted({year for year, _ in cells})
    grid = []
    for year in years:
        row = [cells.get((year, month)) for month in range(1, 13)]
        whole = pl.Series([1 + value for value in row if value is not None]).product() - 1
        grid.append([None if value is None else round(value, 6) for value in [*row, whole]])
    millis = {name: trades[f"{name}_time"].dt.epoch("ms").to_list() for name in ("entry", "exit")}
    floats = {"entry_price": "entry_price", "exit_price": "exit_price", "pct": "profit_pct", "hours": "duration"}
    return {
        "kind": "strategy",
        "name": facts.item.name,
        "quote": "equity",
        "interval": facts.item.interval,
        "candle_ms": LENGTH_MS[facts.item.interval] or 30 * 86_400_000,
        "levels": facts.market.levels,
        "equity": {
            "day": [str(day) for day in curve["day"]],
            **equity,
            "sharpe": rolling_sharpe(curve["daily_return"]).round(4).fill_nan(None).to_list(),
        },
        "months": {"years": [str(year) for year in years], "grid": grid},
        "trades": {
            "id": trades["id"].to_list(),
            "side": trades["position_type"].to_list(),
            "reason": trades["exit_reason"].to_list(),
            **millis,
            **{name: trades[column].cast(pl.Float64).to_list() for name, column in floats.items()},
        },
    }


def _lines(every: Sequence[Facts]) -> list[dict[str, Any]]:
    lines, held = [], {}
    for facts in every:
        curve = facts.curve
        if curve.is_empty():
            continue
        scale = 100 / float(facts.last["initial_capital"])
        days = [str(day) for day in curve["day"]]
        lines.append({"name": facts.item.name, "day": days, "value": (curve["equity"] * scale).round(3).to_list()})
        market = f"hold {facts.item.symbol}"
        if market not in held or days[0] < held[market]["day"][0]:
            scale = 100 / float(facts.row["initial_balance"])
            worth = (curve["hold"] * scale).round(3).to_list()
            held[market] = {"name": market, "day": days, "value": worth, "hold": True, "beside": len(lines) - 1}
    return [*lines, *held.values()]


def _row(facts: Facts, page: str) -> dict[str, Any]:
    item, last = facts.item, facts.last or dict.fromkeys((*FIGURES, *_COUNTS))
    hold, trades = _hold(facts) if facts.last else None, last["total_trades"]

    def cell(value: Any, text: str, figure: str | None = None, signed: bool = False) -> dict[str, str]:
        tone = "" if not signed or not value else "up" if value > 0 else "down"
        return {"value": _plain(value), "text": text, "figure": figure, "tone": tone}

    def hundred(name: str, signed: bool = False) -> dict[str, str]:
        return cell(last[name], percent(last[name]).removesuffix(" %"), name, signed)

    cells = [
        cell(item.effective_from.toordinal(), str(item.effective_from)),
        hundred("total_return", True),
        cell(hold, "-" if hold is None else f"{100 * hold:,.2f}", None, True),
        hundred("annual_return", True),
        hundred("max_drawdown"),
        cell(last["sharpe_ratio"], ratio(last["sharpe_ratio"]), "sharpe_ratio"),
        hundred("win_rate"),
        cell(last["profit_factor"], ratio(last["profit_factor"]), "profit_factor"),
        cell(trades, "-" if trades is None else f"{trades:,}", "total_trades"),
    ]
    titles = [warning.title for warning in warnings_of(facts)]
    return {"name": item.name, "version": item.version, "page": page, "market": f"{item.symbol} {item.interval}",
            "cells": cells, "warnings": titles}  # fmt: skip

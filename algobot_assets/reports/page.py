"""Render pages from templates.

Templates escape all values, because names and notes come from people and from sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from algobot_assets import __version__
from algobot_assets.audit.diff import Comparison
from algobot_assets.compute.ledger.assumptions import describe_by_strategy
from algobot_assets.compute.metrics.curves import ROLLING_DAYS, equity_curve
from algobot_assets.compute.metrics.performance import FIGURES
from algobot_assets.reports import library, rows
from algobot_assets.reports.charts import equity_lines, strategy_data
from algobot_assets.reports.facts import Facts
from algobot_assets.reports.figures import figure, money, pairs, percent, plain, price, ratio, readable
from algobot_assets.reports.warnings import warnings_of

_LOADER = PackageLoader("algobot_assets.reports")


def strategy_page(facts: Facts, explained: Mapping[int, str], pages: Mapping[int, str]) -> str:
    """Render the page of one version. `explained`: text by trade id; `pages`: file names of the versions by number."""
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
            f"{len(exact['t']):,} (from {first:%Y-%m-%d %H:%M}) are in this page as stored; older ones are "
            f"downsampled to {coarser} so that the page stays small and smooth."
        )
    return _template("strategy.html").render(
        **_common(facts.as_of, strategy_data(facts) if last else None),
        item=facts.item,
        row=facts.row,
        last=last,
        days=f"{_days(last):.0f}" if last else "0",
        sections=_sections(facts),
        warnings=warnings_of(facts),
        cards=_cards(facts, last) if last else [],
        resolution=resolution,
        rolling_days=ROLLING_DAYS,
        trades=rows.list_trades(facts, explained),
        lots=facts.account.lots if facts.account else (),
        metrics=rows.metrics(last) if last else [],
        sweeps=rows.list_sweeps(facts),
        walks=facts.walks,
        quality=rows.describe_quality(facts),
        gaps=facts.market.gaps,
        missing=facts.market.missing,
        notes=facts.market.notes,
        declared=rows.describe_version(facts),
        versions=[v | {"page": pages.get(v["version"])} for v in facts.versions],
        chained=rows.chained(facts.versions),
        risks=facts.risk,
        configuration=facts.configuration,
        records=facts.records,
    )


def comparison_page(every: Sequence[Facts], pages: Sequence[str], as_of: datetime, exchange: str) -> str:
    """Render the page that compares all strategies, each in one version."""
    columns = [("Strategy", False), ("Market", False), ("Since", True), ("Return %", True), ("Hold %", True)]
    columns += [("Annual %", True), ("Max drawdown %", True), ("Sharpe", True), ("Win rate %", True)]
    columns += [("Profit factor", True), ("Trades", True), ("Warnings", True)]
    return _template("index.html").render(
        **_common(as_of, {"kind": "strategies", "lines": equity_lines(every)} if every else None),
        exchange=exchange,
        columns=columns,
        rows=[_row(facts, page) for facts, page in zip(every, pages, strict=True)],
        assumptions=describe_by_strategy({facts.item.name: facts.assumptions for facts in every}),
    )


def diff_page(found: Comparison, as_of: datetime) -> str:
    """Render the page that compares two versions in detail."""
    curves = []
    for name, curve in zip((str(found.a), str(found.b)), found.curves, strict=True):
        if curve.height:
            values = (equity_curve(curve)["equity"] * (100 / float(curve["initial_capital"][0]))).round(3).to_list()
            curves.append({"name": name, "day": [str(day) for day in curve["day"]], "value": values})
    return _template("diff.html").render(
        **_common(as_of, {"kind": "strategies", "lines": curves}),
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


@cache
def _environment() -> Environment:
    made = Environment(loader=_LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters |= {
        "price": price,
        "money": money,
        "readable": readable,
        "code": _code,
        "figure": figure,
        "percent": percent,
        "ratio": ratio,
        "pairs": pairs,
    }
    return made


def _code(text: str) -> Markup:
    """Escape a text and show its parts between backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _template(name: str) -> Template:
    return _environment().get_template(name)


@cache
def _source(name: str) -> Markup:
    """Return a style sheet or script of this package, unescaped."""
    return Markup(_LOADER.get_source(_environment(), name)[0])


# --- parts of a page ------------------------------------------------------------------------------------------


def _days(last: Mapping[str, Any]) -> float:
    return float((last["end_date"] - last["start_date"]).total_seconds() / 86_400)


def _sections(facts: Facts) -> list[tuple[str, str]]:
    found = [("quality", "Data quality"), ("reproduce", "Reproduce")]
    if facts.sweeps or facts.walks:
        found.insert(0, ("sweeps", "Sweeps"))
    if facts.last is None:
        return found
    shown = [("equity", "Equity"), ("candles", "Candles"), ("months", "Months"), ("trades", "Trades")]
    return [*shown, ("metrics", "Figures"), *found]


def _card(
    label: str, figure: str | None, value: Any, text: str, note: str = "", signed: bool = False
) -> dict[str, Any]:
    tone = "" if not signed or value is None or not value else "up" if value > 0 else "down"
    return {"label": label, "figure": figure, "value": plain(value), "text": text, "note": note, "tone": tone}


def _cards(facts: Facts, last: Mapping[str, Any]) -> list[dict[str, Any]]:
    hold = _hold(facts)
    wins = f"{last['winning_trades']:,} of {last['total_trades']:,}"
    opened = f"{last['open_trades']} open, {money(last['open_profit'])}" if last["open_trades"] else ""
    return [
        _card("Return", "total_return", last["total_return"], percent(last["total_return"]), signed=True),
        _card("Buy and hold", None, hold, "-" if hold is None else percent(hold), "without costs", signed=True),
        _card("Final capital", "final_capital", last["final_capital"], money(last["final_capital"]),
              f"from {price(last['initial_capital'])}"),
        _card("Annual return", "annual_return", last["annual_return"], percent(last["annual_return"]), signed=True),
        _card("Max drawdown", "max_drawdown", last["max_drawdown"], percent(last["max_drawdown"])),
        _card("Sharpe ratio", "sharpe_ratio", last["sharpe_ratio"], ratio(last["sharpe_ratio"])),
        _card("Win rate", "win_rate", last["win_rate"], percent(last["win_rate"]), wins),
        _card("Profit factor", "profit_factor", last["profit_factor"], ratio(last["profit_factor"])),
        _card("Trades", "total_trades", last["total_trades"], f"{last['total_trades']:,}", opened),
    ]  # fmt: skip


def _hold(facts: Facts) -> float | None:
    known = facts.curve["hold"].drop_nulls()
    return known[-1] / float(facts.row["initial_balance"]) - 1 if len(known) else None


def _row(facts: Facts, page: str) -> dict[str, Any]:
    item, last = facts.item, facts.last or dict.fromkeys((*FIGURES, *rows.COUNTS))
    hold, trades = _hold(facts) if facts.last else None, last["total_trades"]

    def cell(value: Any, text: str, figure: str | None = None, signed: bool = False) -> dict[str, str]:
        tone = "" if not signed or not value else "up" if value > 0 else "down"
        return {"value": plain(value), "text": text, "figure": figure or "", "tone": tone}

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

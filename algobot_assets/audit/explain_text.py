"""Write the explanation of a trade as text of at most 80 columns, for the terminal and the reports."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from algobot_assets.audit.explain import Candle, Decision, Explanation

WIDTH = 80
_WORDS = {1: "1 (buy)", -1: "-1 (sell)", 0: "0 (hold)", None: "none"}


def as_text(found: Explanation) -> str:
    """Return the explanation as text of at most 80 columns."""
    lines: list[str] = []
    for line in (*_trade(found), *(line for item in found.decisions for line in _decision(item)), *_candles(found)):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines += textwrap.wrap(line, WIDTH, subsequent_indent=indent, drop_whitespace=True) or [""]
    return "\n".join(lines)


def _trade(found: Explanation) -> Iterator[str]:
    row = found.trade
    yield (
        f"Trade {row['id']}: {row['position_type']} {_number(row['quantity'])} {row['symbol']} {row['interval']}, "
        f"{row['strategy_name']} v{row['version']} ({row['strategy_type']})"
    )
    yield f"  entry    {_time(row['entry_time'])}  at {_number(row['entry_price'])}"
    yield f"  exit     {_time(row['exit_time'])}  at {_number(row['exit_price'])}  ({_number(row['duration'])} hours)"
    yield f"  closed   {row['exit_reason']}: {found.closed_because}"
    yield (
        f"  profit   gross {_number(row['gross_profit'])} - commission {_number(row['commission_fee'])} - slippage "
        f"{_number(row['slippage_cost'])}"
    )
    yield f"           = net {_number(row['net_profit'])}  ({_number(row['profit_pct'])} % of the entry)"
    yield f"  settings {row['parameters']}"


def _decision(item: Decision) -> Iterator[str]:
    yield ""
    yield f"{item.step.capitalize()}: {_WORDS[item.signal]}, decided at {_time(item.decided)}"
    yield f"  candle   {_time(item.opened)}, before it {_time(item.previous) if item.previous else 'none'}"
    if item.rule is not None:
        yield f"  rule     {item.rule}"
    stored = ", ".join(f"{name} {_float(value)}" for name, value in item.indicators.items())
    yield f"  stored   {stored}"
    if item.inputs:
        names = [x.label if x.name in (None, x.label) else f"{x.name} = {x.label}" for x in item.inputs]
        width = min(44, max(len("the strategy saw"), *map(len, names)))
        yield f"  {'the strategy saw':<{width}}  {'candle':>15}  {'before':>15}"
        for name, x in zip(names, item.inputs, strict=True):
            yield f"  {_short(name, width):<{width}}  {_float(x.value):>15}  {_float(x.previous):>15}"
    if item.problem:
        yield f"  PROBLEM  {item.problem}"
    elif item.recomputed is not None:
        yield "  computed again from the recorded state: the same signal"


def _candles(found: Explanation) -> Iterator[str]:
    for candle in found.candles:
        yield ""
        yield f"Candle {_time(candle.opened)} ({', '.join(candle.steps)})"
        yield from _candle(candle)


def _candle(candle: Candle) -> Iterator[str]:
    if candle.open is None:
        yield "  not stored any more"
        return
    yield (
        f"  open {_number(candle.open)}  high {_number(candle.high)}  low {_number(candle.low)}  "
        f"close {_number(candle.close)}"
    )
    yield f"  volume {_number(candle.volume)}"
    if candle.archive_file is not None:
        yield f"  archived {candle.archive_file}"
        yield f"  key      id {candle.id}, timestamp {candle.opened:%Y-%m-%d %H:%M:%S} UTC"
    if candle.edited:
        yield "  changed by hand: its day differs from what the source said"
    if candle.source_kind is None:
        yield "  source   not recorded"
        return
    yield f"  source   {candle.source_kind} {candle.source_name}"
    if candle.source_sha256:
        yield f"  sha256   {candle.source_sha256}"
    elif candle.requested_at:
        yield f"  asked    {candle.requested_at:%Y-%m-%d %H:%M:%S} UTC"


def _time(moment: datetime) -> str:
    """Format to the minute, or to the millisecond for an exit inside a candle, which is at its last millisecond."""
    text = f"{moment:%Y-%m-%d %H:%M}"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}" if moment.microsecond else text


def _number(value: Decimal | None) -> str:
    return "-" if value is None else f"{value.normalize():,f}"


def _float(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."

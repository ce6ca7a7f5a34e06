"""`algobot diff`: show where two results diverge, and why."""

from __future__ import annotations

import textwrap
import webbrowser
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.console import WIDTH
from algobot_assets.cli.output import emit, json_option, say
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.audit.diff import Comparison, FirstDifference


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@click.option("--page", "as_page", is_flag=True, help="Also write a page, beside those of `algobot report`.")
@click.option("--open", "show", is_flag=True, help="Write the page and open it in a browser.")
@json_option
def diff(a: str, b: str | None, as_page: bool, show: bool, as_json: bool) -> None:
    """Show where two strategies, or two versions of one, diverge, and why.

    A and B are NAME (the version in force) or NAME@2 (version 2). A alone is compared with the version before it. Shows
    the first candle, signal and trade that differ, and the cause: data, parameters or code.
    """
    from algobot_assets.audit.diff import choose, compare
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        found = compare(store, *choose(store, a, b))
    if as_json:
        emit(_json(found))
    else:
        click.echo("\n".join(_wrapped(_lines(found))))
    if as_page or show:
        from algobot_assets.reports.writing import folder_of, write_comparison

        path = write_comparison(found, folder_of(settings))
        say(f"\nPage: {path.as_uri()}")
        if show:
            webbrowser.open(path.as_uri())


def _wrapped(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        yield from textwrap.wrap(line, WIDTH, subsequent_indent=indent, drop_whitespace=True) or [""]


def _lines(found: Comparison) -> Iterator[str]:
    yield f"A: {found.a}, {found.a.symbol} {found.a.interval}, from {found.a.effective_from}"
    yield f"B: {found.b}, {found.b.symbol} {found.b.interval}, from {found.b.effective_from}"
    yield ""
    yield "Why they differ"
    for cause in found.causes:
        yield f"  {cause.kind:<10} {cause.name}: {cause.a} -> {cause.b}"
    if not found.causes:
        yield "  no difference: same data, parameters and code"
    yield ""
    if found.candle is None and (found.a.symbol, found.a.interval) == (found.b.symbol, found.b.interval):
        yield "First candle: none, both use the same stored candles"
    else:
        yield from _parting("candle", found.candle)
    yield from _parting("signal", found.signal)
    yield from _parting("trade", found.trade)
    yield ""
    yield f"{'':<16}{'A':>18}{'B':>18}"
    for name, (one, other) in found.figures.items():
        yield f"{name:<16}{_number(one):>18}{_number(other):>18}"


def _parting(what: str, found: FirstDifference | None) -> Iterator[str]:
    if found is None:
        yield f"First {what}: the two share no time to compare"
    elif found.at is None:
        yield f"First {what}: none; all {found.compared:,} are equal"
    else:
        yield f"First {what}: {found.at:%Y-%m-%d %H:%M}; {found.differing:,} of {found.compared:,} differ"
        for side, row in (("A", found.a), ("B", found.b)):
            values = (f"{name} {_value(value)}" for name, value in (row or {}).items() if value != found.at)
            yield f"  {side}  " + (", ".join(values) if row else f"has no such {what}")


def _value(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, date) else str(value)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,.4f}" if isinstance(value, Decimal) else f"{value:,}"


def _json(found: Comparison) -> dict[str, Any]:
    named = {side: {"strategy": v.name, "version": v.version} for side, v in (("a", found.a), ("b", found.b))}
    parted = {what: getattr(found, what) for what in ("candle", "signal", "trade")}
    partings = {what: None if parting is None else vars(parting) for what, parting in parted.items()}
    figures = {name: {"a": one, "b": other} for name, (one, other) in found.figures.items()}
    causes = [vars(cause) for cause in found.causes]
    return {**named, "causes": causes, "days": found.days, **partings, "figures": figures}

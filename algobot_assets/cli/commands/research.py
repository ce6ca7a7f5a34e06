"""Commands that try parameters and strategies: sweep, walk-forward, try."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.console import console
from algobot_assets.cli.days import Day
from algobot_assets.cli.output import DIFFERS, emit, json_option
from algobot_assets.cli.research_output import (
    show_sweep,
    show_tried,
    show_walk,
    sweep_document,
    try_document,
    walk_document,
)
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.research.request import Request


def _of_all(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every trial has."""
    options = (
        click.option("--param", "-p", "parameters", multiple=True, metavar="NAME=VALUES", help="Strategy parameter."),
        click.option("--risk", "-r", "risk", multiple=True, metavar="NAME=VALUES", help="Risk parameter, likewise."),
        click.option("--market", metavar="'SYMBOL INTERVAL'", help="Default: the strategy's, or the only one stored."),
        click.option("--from", "first", type=Day(), help="First day of trading; default: the first stored."),
        click.option("--to", "last", type=Day(), help="Last day; default: the newest stored."),
        click.option("--balance", metavar="MONEY", help="Capital at the start; default: the strategy's, or 10000."),
        click.option("--shorting/--no-shorting", default=None, help="Whether sell signals open shorts."),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _request(strategy: str, given: dict[str, Any]) -> Request:
    from algobot_assets.research.request import Request

    text = given.pop("balance")
    try:
        balance = None if text is None else Decimal(text)
    except InvalidOperation:
        raise SettingsError(f"--balance is {text!r}: give a number.") from None
    return Request(strategy, balance=balance, **given)


def _lines(strategy: str) -> Any:
    from algobot_assets.research.try_file import error_lines_of

    return error_lines_of(Path(strategy).resolve()) if strategy.endswith(".py") else nullcontext()


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error for the time of the block."""
    out = console(stderr=True)
    columns = (
        TextColumn("{task.completed:>9,} of {task.total:,} combinations"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, disable=not (shown and out.is_terminal), transient=True) as bar:
        task = bar.add_task("", total=1)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@click.command()
@click.argument("strategy")
@_of_all
@click.option("--metric", default="sharpe_ratio", show_default=True, help="Figure to rank by, the greatest first.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 10_000), help="How many to show.")
@click.option("--min-trades", "least_trades", default=0, help="Rank only combinations with as many closed trades.")
def sweep(strategy: str, metric: str, top: int, least_trades: int, as_json: bool, **given: Any) -> None:
    """Backtest STRATEGY with every combination of parameters, and rank them.

    STRATEGY is a stored strategy, whose settings hold for what is not given, a type such as ema_cross, or a Python
    file. VALUES are 5,8,13 or FROM:TO:STEP:

    \b
      algobot sweep btc_ema_cross -p fast=5:50:5 -p slow=20:200:20 \\
        -r stop_loss_percentage=1,2,3 --from 2024-01-01

    Results are stored (tables sweeps, sweep_results). Stopped, the same command goes on where it was.
    """
    from algobot_assets.research.sweep import sweep as run
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    request = _request(strategy, given)
    with Store.open(settings) as store, _lines(strategy), _bar(not as_json) as progress:
        ranked = run(store, request, metric=metric, top=top, least_trades=least_trades, progress=progress)
    emit(sweep_document(ranked, metric)) if as_json else show_sweep(ranked, metric)


@click.command("walk-forward")
@click.argument("strategy")
@_of_all
@click.option("--train", "train_days", default=180, show_default=True, help="Days of a train window.")
@click.option("--test", "test_days", default=30, show_default=True, help="Days of the test window after it.")
@click.option("--anchored", is_flag=True, help="Every train window begins on the first day and grows.")
@click.option("--metric", default="sharpe_ratio", show_default=True, help="Figure by which parameters are chosen.")
@click.option("--min-trades", "least_trades", default=0, help="Choose only among combinations with as many trades.")
def walk_forward(
    strategy: str,
    train_days: int,
    test_days: int,
    anchored: bool,
    metric: str,
    least_trades: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Choose parameters on past windows and try them on the days after each.

    Takes the grid of `algobot sweep`. The test windows are joined into one account and one equity curve, whose Sharpe
    ratio is deflated by the number of combinations. Stored in walk_forwards, walk_forward_windows and
    walk_forward_equity.
    """
    from algobot_assets.research.walk_forward import walk_forward as run
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    request = _request(strategy, given)
    with Store.open(settings) as store, _lines(strategy), _bar(not as_json) as progress:
        found = run(
            store,
            request,
            train_days,
            test_days,
            anchored=anchored,
            metric=metric,
            least_trades=least_trades,
            progress=progress,
        )
    emit(walk_document(found, metric)) if as_json else show_walk(found, metric)
    if found.ahead is not None:
        raise click.exceptions.Exit(DIFFERS)


@click.command("try")
@click.argument("file", type=click.Path(dir_okay=False))
@_of_all
def try_(file: str, as_json: bool, **given: Any) -> None:
    """Backtest the strategy of a Python FILE on stored candles; nothing is written.

    Shows its figures and whether it looks ahead; exits with 5 where it does. docs/sweeps.md has a file to begin with.
    """
    from algobot_assets.research.try_file import try_strategy
    from algobot_assets.store.connection import Store

    if not file.endswith(".py"):
        raise SettingsError(f"{file} is no Python file: give one whose name ends in .py.")
    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        tried = try_strategy(store, _request(file, given))
    emit(try_document(tried)) if as_json else show_tried(tried)
    if tried.ahead is not None:
        raise click.exceptions.Exit(DIFFERS)

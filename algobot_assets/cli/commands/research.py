"""Commands that test parameters and strategies: sweep, walk-forward, try."""

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
from algobot_assets.cli.market_option import MarketName
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


def _trial_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all trials share."""
    options = (
        click.option("--param", "-p", "parameters", multiple=True, metavar="NAME=VALUES", help="Strategy parameter."),
        click.option("--risk", "-r", "risk", multiple=True, metavar="NAME=VALUES", help="Risk parameter."),
        click.option("--market", type=MarketName(), help="Default: the strategy's, or the only one stored."),
        click.option("--from", "first", type=Day(), help="First day of trading; default: the first stored."),
        click.option("--to", "last", type=Day(), help="Last day; default: the newest stored."),
        click.option("--balance", metavar="MONEY", help="Initial balance; default: the strategy's, or 10000."),
        click.option("--shorting/--no-shorting", default=None, help="Whether sell signals open shorts."),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _request(strategy: str, given: dict[str, Any]) -> Request:
    from algobot_assets.pipeline.days import require_days
    from algobot_assets.research.request import Request

    if given["first"] and given["last"]:
        require_days(given["first"], given["last"])
    text = given.pop("balance")
    try:
        balance = None if text is None else Decimal(text)
    except InvalidOperation:
        raise SettingsError(f"--balance is {text!r}, which is not a number. Use for example 10000.") from None
    return Request(strategy, balance=balance, **given)


def _error_lines(strategy: str) -> Any:
    from algobot_assets.research.try_file import error_lines_of

    return error_lines_of(Path(strategy).resolve()) if strategy.endswith(".py") else nullcontext()


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error during the block."""
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
@_trial_options
@click.option("--metric", default="sharpe_ratio", show_default=True, help="Figure to rank by, highest first.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 10_000), help="How many to show.")
@click.option("--min-trades", "least_trades", default=0, help="Least number of closed trades to be ranked.")
def sweep(strategy: str, metric: str, top: int, least_trades: int, as_json: bool, **given: Any) -> None:
    """Backtest STRATEGY with every combination of parameters, and rank them.

    STRATEGY is a stored strategy, whose settings are the defaults, a type such as ema_cross, or a Python file. VALUES
    are 5,8,13 or FROM:TO:STEP:

    \b
      algobot sweep btc_ema_cross -p fast=5:50:5 -p slow=20:200:20 \\
        -r stop_loss_percentage=1,2,3 --from 2024-01-01

    Results are stored in sweeps and sweep_results. To resume a stopped sweep, run the same command again.
    """
    from algobot_assets.research.sweep import sweep as run
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    request = _request(strategy, given)
    with Store.open(settings) as store, _error_lines(strategy), _bar(not as_json) as progress:
        ranked = run(store, request, metric=metric, top=top, least_trades=least_trades, progress=progress)
    emit(sweep_document(ranked, metric)) if as_json else show_sweep(ranked, metric)


@click.command("walk-forward")
@click.argument("strategy")
@_trial_options
@click.option("--train", "train_days", default=180, show_default=True, help="Days of a train window.")
@click.option("--test", "test_days", default=30, show_default=True, help="Days of the test window after it.")
@click.option("--anchored", is_flag=True, help="Start every train window on the first day, so that windows grow.")
@click.option("--metric", default="sharpe_ratio", show_default=True, help="Figure that parameters are chosen by.")
@click.option("--min-trades", "least_trades", default=0, help="Least number of closed trades to be chosen.")
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
    """Choose parameters on past windows and test them on the days after each.

    The grid is written as for `algobot sweep`. The test windows are joined into one account and one equity curve,
    whose Sharpe ratio is deflated by the number of combinations. Results are stored in walk_forwards,
    walk_forward_windows and walk_forward_equity.
    """
    from algobot_assets.research.walk_forward import walk_forward as run
    from algobot_assets.store.connection import Store

    settings = Settings()
    prepare(settings)
    request = _request(strategy, given)
    with Store.open(settings) as store, _error_lines(strategy), _bar(not as_json) as progress:
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
@_trial_options
def try_(file: str, as_json: bool, **given: Any) -> None:
    """Backtest the strategy of a Python FILE on stored candles without storing anything.

    Shows its figures and whether it looks ahead. Exit code 5: it does. docs/sweeps.md has a file to start with.
    """
    from algobot_assets.research.try_file import try_strategy
    from algobot_assets.store.connection import Store

    if not file.endswith(".py"):
        raise SettingsError(f"{file} is not a Python file. Pass a file whose name ends in .py.")
    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        tried = try_strategy(store, _request(file, given))
    emit(try_document(tried)) if as_json else show_tried(tried)
    if tried.ahead is not None:
        raise click.exceptions.Exit(DIFFERS)

"""Commands that try parameters and strategies: sweep, walk-forward, try."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import polars as pl
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from algobot_assets.cli.database import prepare
from algobot_assets.cli.running import Day
from algobot_assets.cli.show import WIDTH, console, grid
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings

if TYPE_CHECKING:
    from algobot_assets.sweeping import Ranked
    from algobot_assets.trials import Request
    from algobot_assets.trying import Tried
    from algobot_assets.walk_forward import WalkForward

#: Figures of a table: column, heading, factor, format.
_SHORT = (
    ("final_capital", "equity", 1, ",.0f"),
    ("total_return", "ret %", 100, ",.1f"),
    ("sharpe_ratio", "sharpe", 1, ".2f"),
    ("max_drawdown", "fall %", 100, ".1f"),
    ("win_rate", "win %", 100, ".0f"),
    ("profit_factor", "pf", 1, ".2f"),
    ("total_trades", "trades", 1, ",d"),
)
_MEANING = {
    "initial_capital": ("initial capital", 1, ",.2f"),
    "final_capital": ("final capital", 1, ",.2f"),
    "total_return": ("total return, %", 100, ",.2f"),
    "annual_return": ("annual return, %", 100, ",.2f"),
    "max_drawdown": ("largest fall, %", 100, ".2f"),
    "sharpe_ratio": ("Sharpe ratio", 1, ".2f"),
    "win_rate": ("winning trades, %", 100, ".1f"),
    "avg_profit_pct": ("mean profit of a trade, %", 1, ".3f"),
    "risk_reward_ratio": ("mean win / mean loss", 1, ".2f"),
    "profit_factor": ("profit factor", 1, ".2f"),
    "total_trades": ("closed trades", 1, ",d"),
    "open_trades": ("open lots", 1, ",d"),
    "open_profit": ("profit of open lots", 1, ",.2f"),
    "ambiguous_stops": ("stops that may have been targets", 1, ",d"),
}


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
        click.option("--json", "as_json", is_flag=True, help="As JSON: money and ratios as text."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _request(strategy: str, given: dict[str, Any]) -> Request:
    from algobot_assets.trials import Request

    text = given.pop("balance")
    try:
        balance = None if text is None else Decimal(text)
    except InvalidOperation:
        raise SettingsError(f"--balance is {text!r}: give a number.") from None
    return Request(strategy, balance=balance, **given)


def _lines(strategy: str) -> Any:
    from algobot_assets.trying import lines_of

    return lines_of(Path(strategy).resolve()) if strategy.endswith(".py") else nullcontext()


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error for the time of the block."""
    from rich.console import Console

    columns = (
        TextColumn("{task.completed:>9,} of {task.total:,} combinations"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bar:
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
    from algobot_assets.store.connection import Store
    from algobot_assets.sweeping import sweep as run

    settings = Settings()
    prepare(settings)
    request = _request(strategy, given)
    with Store.open(settings) as store, _lines(strategy), _bar(not as_json) as progress:
        ranked = run(store, request, metric=metric, top=top, least_trades=least_trades, progress=progress)
    click.echo(json.dumps(_sweep_json(ranked, metric), indent=2)) if as_json else _show_sweep(ranked, metric)


def _show_sweep(ranked: Ranked, metric: str) -> None:
    trial, frame = ranked.trial, ranked.frame
    total = len(trial.grid)
    names = trial.grid.swept()
    # parameters that do not fit beside the figures are abbreviated; --json has all of them
    columns = [pl.col(name).cast(pl.String).alias(_abbreviated(name)) for name in names]
    columns += [_scaled(name, heading, factor) for name, heading, factor, _ in _SHORT if name != metric][-6:]
    shown = frame.select(*columns, _scaled(metric, metric.replace("_", " "), 1))
    formats = {heading: form for _, heading, _, form in _SHORT} | {metric.replace("_", " "): ",.4g"}
    _narrow(shown, f"Sweep {ranked.sweep_id}: {trial.label}", formats, len(names))
    click.echo(
        f"{total:,} combinations, {ranked.computed:,} of them computed now. All of them:\n"
        f"SELECT * FROM sweep_results WHERE sweep_id = {ranked.sweep_id}"
    )
    click.echo(_luck(ranked.deflated, "the first", total), nl=ranked.deflated is not None)


def _narrow(frame: pl.DataFrame, title: str, formats: dict[str, str], keep: int) -> None:
    """A table of 80 columns: figures in the middle are left out where there are too many parameters."""

    def width(some: pl.DataFrame) -> int:
        cells = [
            max([len(name), *(len(format(v, formats.get(name, ""))) for v in some[name] if v is not None)])
            for name in some.columns
        ]
        return sum(cells) + 2 * len(cells)

    while width(frame) > 78 and frame.width > keep + 1:
        frame = frame.drop(frame.columns[-2])
    console().print(title, style="italic", highlight=False)
    grid(frame, "", formats)


def _abbreviated(name: str) -> str:
    return {
        "stop_loss_percentage": "stop",
        "take_profit_percentage": "take",
        "max_open_trades": "lots",
        "risk_per_trade": "risk",
        "max_risk_per_trade": "max risk",
    }.get(name, name)


def _scaled(name: str, heading: str, factor: int) -> pl.Expr:
    column = pl.col(name)
    return (column if name == "total_trades" else column.cast(pl.Float64) * factor).alias(heading)


def _luck(value: float | None, what: str, trials: int) -> str:
    if value is None:
        return ""
    verdict = "it stands out" if value >= 0.95 else "luck among so many explains it"
    return f"Deflated Sharpe ratio of {what} among {trials:,}: {value:.3f}\n({verdict})"


def _sweep_json(ranked: Ranked, metric: str) -> dict[str, Any]:
    rows = []
    for row in ranked.frame.iter_rows(named=True):
        combination = ranked.trial.grid[row["combination"]]
        figures = {name: value for name, value in row.items() if name not in ranked.trial.grid.swept()}
        rows.append(_plain({"parameters": combination.parameters, "risk": combination.risk, **figures}))
    return {
        "sweep_id": ranked.sweep_id,
        **_about(ranked.trial),
        "combinations": len(ranked.trial.grid),
        "computed": ranked.computed,
        "metric": metric,
        "deflated_sharpe": ranked.deflated,
        "results": rows,
    }


def _about(trial: Any) -> dict[str, str]:
    return {
        "strategy": trial.strategy.name,
        "market": f"{trial.symbol} {trial.interval}",
        "from": trial.first.isoformat(),
        "to": trial.last.isoformat(),
    }


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return f"{value:f}"
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case date():
            return value.isoformat()
    return value


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
    from algobot_assets.store.connection import Store
    from algobot_assets.walk_forward import walk_forward as run

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
    click.echo(json.dumps(_walk_json(found, metric), indent=2)) if as_json else _show_walk(found, metric)
    if found.ahead is not None:
        raise click.exceptions.Exit(5)


def _show_walk(found: WalkForward, metric: str) -> None:
    trial, names = found.trial, found.trial.grid.swept()
    rows = []
    for window in found.windows:
        combination = trial.grid[window.combination]
        chosen = combination.parameters | combination.risk
        rows.append(
            {
                "test from": window.fold.test_first.isoformat(),
                "days": (window.fold.test_end - window.fold.test_first).days,
                **{_abbreviated(name): str(chosen[name]) for name in names},
                "in train": window.train_metric,
                "ret %": 100 * float(window.result["total_return"]),
                "fall %": 100 * float(window.result["max_drawdown"]),
                "trades": window.result["total_trades"],
                "in test": None if window.result[metric] is None else float(window.result[metric]),
            }
        )
    formats = {"in train": ".3g", "in test": ".3g", "ret %": ".2f", "fall %": ".1f", "trades": ","}
    frame = pl.DataFrame(rows, infer_schema_length=None)
    _narrow(frame, f"Walk-forward {found.id}: {trial.label} (by {metric})", formats, 2 + len(names))
    _show_figures(found.joined, "All test windows joined, one account")
    click.echo(_luck(found.deflated, "the joined result", len(trial.grid)))
    click.echo(textwrap.fill(_verdict(found.ahead), WIDTH))


def _walk_json(found: WalkForward, metric: str) -> dict[str, Any]:
    windows = []
    for window in found.windows:
        combination, fold = found.trial.grid[window.combination], window.fold
        windows.append(
            {
                "train_first": fold.train_first.isoformat(),
                "train_end": fold.train_end.isoformat(),
                "test_first": fold.test_first.isoformat(),
                "test_end": fold.test_end.isoformat(),
                "parameters": _plain(combination.parameters),
                "risk": _plain(combination.risk),
                "train_metric": window.train_metric,
                "train_deflated_sharpe": None if window.deflated != window.deflated else window.deflated,
                "result": _plain(window.result),
            }
        )
    return {
        "walk_forward_id": found.id,
        **_about(found.trial),
        "combinations": len(found.trial.grid),
        "metric": metric,
        "deflated_sharpe": found.deflated,
        "look_ahead": None if found.ahead is None else _verdict(found.ahead),
        "joined": _plain(found.joined),
        "windows": windows,
    }


@click.command("try")
@click.argument("file", type=click.Path(dir_okay=False))
@_of_all
def try_(file: str, as_json: bool, **given: Any) -> None:
    """Backtest the strategy of a Python FILE on stored candles; nothing is written.

    Shows its figures and whether it looks ahead; exits with 5 where it does. docs/sweeps.md has a file to begin with.
    """
    from algobot_assets.store.connection import Store
    from algobot_assets.trying import try_strategy

    if not file.endswith(".py"):
        raise SettingsError(f"{file} is no Python file: give one whose name ends in .py.")
    settings = Settings()
    prepare(settings)
    with Store.open(settings) as store:
        tried = try_strategy(store, _request(file, given))
    click.echo(json.dumps(_try_json(tried), indent=2)) if as_json else _show_tried(tried)
    if tried.ahead is not None:
        raise click.exceptions.Exit(5)


def _show_tried(tried: Tried) -> None:
    _show_figures(tried.result, tried.trial.label)
    held = ", ".join(f"{name} {value}" for name, value in tried.parameters.items()) or "none"
    risk = ", ".join(f"{_abbreviated(name)} {value}" for name, value in tried.risk.items())
    signals = f"Signals: {tried.buys:,} buy, {tried.sells:,} sell."
    console().print(f"Parameters: {held}. Risk: {risk}.\n{signals}", highlight=False)
    console().print(_verdict(tried.ahead, tried.buys + tried.sells), highlight=False)


def _show_figures(result: dict[str, Any], title: str) -> None:
    rows = []
    for name, (meaning, factor, form) in _MEANING.items():
        value = result[name]
        rows.append((meaning, "-" if value is None else format(value * factor, form)))
    console().print(title, style="italic", highlight=False)
    grid(pl.DataFrame(rows, schema=["figure", "value"], orient="row"), "")


def _verdict(ahead: Any, decided: int = 1) -> str:
    from algobot_assets.trying import verdict

    return verdict(ahead, decided)


def _try_json(tried: Tried) -> dict[str, Any]:
    return {
        **_about(tried.trial),
        "parameters": _plain(tried.parameters),
        "risk": _plain(tried.risk),
        "result": _plain(tried.result),
        "signals": {"buy": tried.buys, "sell": tried.sells},
        "look_ahead": None if tried.ahead is None else _verdict(tried.ahead),
    }

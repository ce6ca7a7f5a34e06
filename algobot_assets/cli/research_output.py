"""Show sweeps, walk-forwards and tried files: tables of 80 columns for people, documents for scripts."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click
import polars as pl

from algobot_assets.cli.console import WIDTH, console, print_table

if TYPE_CHECKING:
    from algobot_assets.audit.rules.look_ahead import Change
    from algobot_assets.research.request import Trial
    from algobot_assets.research.sweep import Ranked
    from algobot_assets.research.try_file import TryResult
    from algobot_assets.research.walk_forward import WalkForward

#: Figures in tables: column, heading, factor, format.
_SHORT = (
    ("final_capital", "equity", 1, ",.0f"),
    ("total_return", "ret %", 100, ",.1f"),
    ("sharpe_ratio", "sharpe", 1, ".2f"),
    ("max_drawdown", "max DD %", 100, ".1f"),
    ("win_rate", "win %", 100, ".0f"),
    ("profit_factor", "pf", 1, ".2f"),
    ("total_trades", "trades", 1, ",d"),
)
_MEANING = {
    "initial_capital": ("initial capital", 1, ",.2f"),
    "final_capital": ("final capital", 1, ",.2f"),
    "total_return": ("total return, %", 100, ",.2f"),
    "annual_return": ("annual return, %", 100, ",.2f"),
    "max_drawdown": ("max drawdown, %", 100, ".2f"),
    "sharpe_ratio": ("Sharpe ratio", 1, ".2f"),
    "win_rate": ("win rate, %", 100, ".1f"),
    "avg_profit_pct": ("mean profit of a trade, %", 1, ".3f"),
    "risk_reward_ratio": ("risk/reward ratio", 1, ".2f"),
    "profit_factor": ("profit factor", 1, ".2f"),
    "total_trades": ("closed trades", 1, ",d"),
    "open_trades": ("open lots", 1, ",d"),
    "open_profit": ("profit of open lots", 1, ",.2f"),
    "ambiguous_stops": ("ambiguous stops", 1, ",d"),
}


def show_sweep(ranked: Ranked, metric: str) -> None:
    """Print the best combinations of a sweep."""
    trial, frame = ranked.trial, ranked.frame
    total = len(trial.grid)
    names = trial.grid.swept()
    # parameter names are abbreviated to fit; --json has the full ones
    columns = [pl.col(name).cast(pl.String).alias(_abbreviated(name)) for name in names]
    columns += [_scaled(name, heading, factor) for name, heading, factor, _ in _SHORT if name != metric][-6:]
    shown = frame.select(*columns, _scaled(metric, metric.replace("_", " "), 1))
    formats = {heading: form for _, heading, _, form in _SHORT} | {metric.replace("_", " "): ",.4g"}
    _narrow(shown, f"Sweep {ranked.sweep_id}: {trial.label}", formats, len(names))
    click.echo(
        f"{total:,} combinations, {ranked.computed:,} of them computed now. To see all:\n"
        f"SELECT * FROM sweep_results WHERE sweep_id = {ranked.sweep_id}"
    )
    click.echo(_luck(ranked.deflated, "the first", total), nl=ranked.deflated is not None)
    _show_assumptions(trial)


def _narrow(frame: pl.DataFrame, title: str, formats: dict[str, str], keep: int) -> None:
    """Show a table of at most 80 columns; skip figures in the middle if there are too many parameters."""

    def width(some: pl.DataFrame) -> int:
        cells = [
            max([len(name), *(len(format(v, formats.get(name, ""))) for v in some[name] if v is not None)])
            for name in some.columns
        ]
        return sum(cells) + 2 * len(cells)

    while width(frame) > 78 and frame.width > keep + 1:
        frame = frame.drop(frame.columns[-2])
    console().print(title, style="italic", highlight=False)
    print_table(frame, "", formats)


def _abbreviated(name: str) -> str:
    return {
        "stop_loss_percentage": "stop",
        "take_profit_percentage": "target",
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
    verdict = "it stands out" if value >= 0.95 else "luck among so many trials explains it"
    return f"Deflated Sharpe ratio of {what} among {trials:,}: {value:.3f}\n({verdict})"


def sweep_document(ranked: Ranked, metric: str) -> dict[str, Any]:
    """Return the best combinations of a sweep for JSON."""
    rows = []
    for row in ranked.frame.iter_rows(named=True):
        combination = ranked.trial.grid[row["combination"]]
        figures = {name: value for name, value in row.items() if name not in ranked.trial.grid.swept()}
        rows.append({"parameters": combination.parameters, "risk": combination.risk, **figures})
    return {
        "sweep_id": ranked.sweep_id,
        **_about(ranked.trial),
        "combinations": len(ranked.trial.grid),
        "computed": ranked.computed,
        "metric": metric,
        "deflated_sharpe": ranked.deflated,
        "results": rows,
    }


def _show_assumptions(trial: Trial) -> None:
    from algobot_assets.compute.ledger.assumptions import describe_assumptions

    if text := describe_assumptions(trial.assumptions):
        click.echo(textwrap.fill(text, WIDTH))


def _about(trial: Trial) -> dict[str, Any]:
    return {
        "strategy": trial.strategy.name,
        "market": f"{trial.symbol} {trial.interval}",
        "from": trial.first.isoformat(),
        "to": trial.last.isoformat(),
        "assumptions": [vars(assumption) for assumption in trial.assumptions],
    }


def show_walk(found: WalkForward, metric: str) -> None:
    """Print the windows of a walk-forward and their joined result."""
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
                "max DD %": 100 * float(window.result["max_drawdown"]),
                "trades": window.result["total_trades"],
                "in test": None if window.result[metric] is None else float(window.result[metric]),
            }
        )
    formats = {"in train": ".3g", "in test": ".3g", "ret %": ".2f", "max DD %": ".1f", "trades": ","}
    frame = pl.DataFrame(rows, infer_schema_length=None)
    _narrow(frame, f"Walk-forward {found.id}: {trial.label} (by {metric})", formats, 2 + len(names))
    _show_figures(found.joined, "All test windows joined into one account")
    click.echo(_luck(found.deflated, "the joined result", len(trial.grid)))
    click.echo(textwrap.fill(_verdict(found.ahead), WIDTH))
    _show_assumptions(trial)


def walk_document(found: WalkForward, metric: str) -> dict[str, Any]:
    """Return a walk-forward for JSON."""
    windows = []
    for window in found.windows:
        combination, fold = found.trial.grid[window.combination], window.fold
        windows.append(
            {
                "train_first": fold.train_first.isoformat(),
                "train_end": fold.train_end.isoformat(),
                "test_first": fold.test_first.isoformat(),
                "test_end": fold.test_end.isoformat(),
                "parameters": combination.parameters,
                "risk": combination.risk,
                "train_metric": window.train_metric,
                "train_deflated_sharpe": None if window.deflated != window.deflated else window.deflated,
                "result": window.result,
            }
        )
    return {
        "walk_forward_id": found.id,
        **_about(found.trial),
        "combinations": len(found.trial.grid),
        "metric": metric,
        "deflated_sharpe": found.deflated,
        "look_ahead": None if found.ahead is None else _verdict(found.ahead),
        "joined": found.joined,
        "windows": windows,
    }


def show_tried(tried: TryResult) -> None:
    """Print the result of `algobot try`: figures, parameters, signals, and whether it looks ahead."""
    from algobot_assets.compute.ledger.unfilled import describe_unfilled

    _show_figures(tried.result, tried.trial.label)
    held = ", ".join(f"{name} {value}" for name, value in tried.parameters.items()) or "none"
    risk = ", ".join(f"{_abbreviated(name)} {value}" for name, value in tried.risk.items())
    signals = f"Signals: {tried.buys:,} buy, {tried.sells:,} sell."
    click.echo(textwrap.fill(f"Parameters: {held}.", WIDTH))
    click.echo(textwrap.fill(f"Risk: {risk}.", WIDTH))
    click.echo(signals)
    if unfilled := describe_unfilled(tried.unfilled):
        click.echo(textwrap.fill(unfilled, WIDTH))
    click.echo(textwrap.fill(_verdict(tried.ahead, tried.buys + tried.sells), WIDTH))
    _show_assumptions(tried.trial)


def _show_figures(result: dict[str, Any], title: str) -> None:
    rows = []
    for name, (meaning, factor, form) in _MEANING.items():
        value = result[name]
        rows.append((meaning, "-" if value is None else format(value * factor, form)))
    console().print(title, style="italic", highlight=False)
    print_table(pl.DataFrame(rows, schema=["figure", "value"], orient="row"), "", right=("value",))


def _verdict(ahead: Change | None, decided: int = 1) -> str:
    from algobot_assets.research.try_file import verdict

    return verdict(ahead, decided)


def try_document(tried: TryResult) -> dict[str, Any]:
    """Return the result of `algobot try` for JSON."""
    return {
        **_about(tried.trial),
        "parameters": tried.parameters,
        "risk": tried.risk,
        "result": tried.result,
        "signals": {"buy": tried.buys, "sell": tried.sells},
        "unfilled_signals": tried.unfilled,
        "look_ahead": None if tried.ahead is None else _verdict(tried.ahead),
    }

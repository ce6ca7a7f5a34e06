"""Commands that run the platform: demo, up, backfill, apply."""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import click

from algobot_assets.cli.database import prepare
from algobot_assets.cli.show import progress, show_summary, show_tables
from algobot_assets.errors import AlgobotError, SettingsError, SourceError
from algobot_assets.settings import Settings, project_root


class Day(click.ParamType):
    """A UTC day written 2024-01-31."""

    name = "YYYY-MM-DD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """The day, or a sentence about what was written."""
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day; write it as 2024-01-31", param, ctx)


def choose_source(source: str | None) -> Settings:
    """The settings with a source that answers: the one asked for, else Binance, else the simulated exchange.

    What is chosen without being asked is remembered in the settings' home, so that the UI's runs use it too.
    """
    if source is not None:
        os.environ["ALGOBOT_SOURCE"] = source
    settings = Settings()
    if settings.source:
        return settings
    from algobot_assets.feed.exchange import Exchange
    from algobot_assets.feed.retry import Retry

    try:
        exchange = Exchange(settings.exchange_url, timeout=(3.0, 5.0), retry=Retry(attempts=1))
        exchange.server_time()
        exchange.close()
        chosen = "binance"
        click.echo(f"Candles come from Binance ({settings.exchange_url}).")
    except SourceError as error:
        chosen = "simulated"
        click.echo(
            "Binance cannot be reached, so a SIMULATED exchange on this machine takes its place: seeded prices, not "
            "real ones.\nThey are kept in a database of their own and never mix with real candles."
        )
        click.echo(f"({error})", err=True)
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "source").write_text(chosen + "\n")
    os.environ["ALGOBOT_SOURCE"] = chosen
    return Settings()


def days_of(first: date | None, last: date | None) -> tuple[date, date]:
    """The days asked for: by default from the first declared market's start to today by the source's clock."""
    from algobot_assets.feed.open import open_source
    from algobot_assets.resources import StateResource

    state = StateResource().load()
    if last is None:
        with open_source(Settings()) as source:
            last = source.server_time().date()
    first = first or state.first_day
    if first > last:
        raise SettingsError(f"The range ends ({last}) before it begins ({first}).")
    check_first(first)
    return first, last


def check_first(first: date) -> None:
    """SettingsError for a day before the first partition."""
    from algobot_assets.assets.partitions import FIRST_DAY

    if first < date.fromisoformat(FIRST_DAY):
        raise SettingsError(f"{first} lies before the first partition, {FIRST_DAY}: Binance has no candles before it.")


def run_range(settings: Settings, first: date, last: date, tables: tuple[str, ...] = (), **options: Any) -> None:
    """One Dagster range run with progress on the terminal; AlgobotError where it fails."""
    from algobot_assets import runs

    with progress(f"{first} to {last}"), runs.instance(settings) as instance:
        result = runs.materialise(instance, first, last, tables or None, options=options)
    for sentence in result.left_out:
        click.echo(f"Left out: {sentence}", err=True)
    if not result.success:
        raise AlgobotError(result.error or f"Run {result.run_id} failed; see it in the UI.")


@click.command()
@click.option("--source", help="binance, simulated, or a folder of klines; default: Binance where it can be reached.")
@click.option("--from", "first", type=Day(), help="First day; default: where the declared markets start.")
@click.option("--to", "last", type=Day(), help="Last day; default: today.")
def demo(source: str | None, first: date | None, last: date | None) -> None:
    """From nothing to backtests: database, candles, all nine tables, and a summary."""
    settings = choose_source(source)
    click.echo(f"PostgreSQL: {_where(settings)}")
    prepare(settings)
    first, last = days_of(first, last)
    run_range(settings, first, last)
    show_summary(settings)
    python = Path(sys.executable).parent
    root = project_root() or Path.cwd()
    click.echo(f"\nOpen the UI:  cd {root} && {python / 'algobot'} up   then http://127.0.0.1:3000")
    click.echo(f"Ask SQL:      {python / 'algobot'} db status   says where the database is")


def _where(settings: Settings) -> str:
    return "the server of ALGOBOT_DATABASE_URL" if settings.database_url else f"embedded, in {settings.home}"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the UI listens on.")
@click.option("--port", default=3000, show_default=True, help="Port of the UI.")
def up(host: str, port: int) -> None:
    """Start the UI and the daemon; stop them with Ctrl-C."""
    settings = Settings()
    prepare(settings)
    root = project_root()
    if root is None:
        raise SettingsError("workspace.yaml is not where it should be: run from a checkout of the project.")
    if host not in ("127.0.0.1", "localhost", "::1"):
        click.echo(
            f"Warning: the UI listens on {host}. Whoever reaches it can start runs and read all data; it asks for no "
            "password. Put it behind something that does.",
            err=True,
        )
    artefacts = settings.home / "dagster"
    artefacts.mkdir(parents=True, exist_ok=True)
    (artefacts / "dagster.yaml").write_text((root / "dagster.yaml").read_text())
    os.environ["DAGSTER_HOME"] = str(artefacts)
    # not from the checkout: Dagster warns where the working directory holds another dagster.yaml than DAGSTER_HOME
    os.chdir(artefacts)
    program = Path(sys.executable).parent / "dg"
    workspace = str(root / "workspace.yaml")
    os.execv(program, [str(program), "dev", "--workspace", workspace, "--host", host, "--port", str(port)])


@click.command()
@click.argument("first", type=Day())
@click.argument("last", type=Day(), required=False)
@click.option("--table", "tables", multiple=True, help="Only this table; may be repeated. Default: all nine.")
@click.option("--source", help="binance, simulated, or a folder of klines.")
@click.option("--from-source", is_flag=True, help="Ask the source again for candles that are stored.")
@click.option("--recompute", is_flag=True, help="Compute again even what is fresh.")
def backfill(
    first: date, last: date | None, tables: tuple[str, ...], source: str | None, from_source: bool, recompute: bool
) -> None:
    """Materialise the days FIRST to LAST in one run."""
    from algobot_assets.schema.tables import NINE

    for table in tables:
        if table not in NINE:
            raise SettingsError(f"There is no table {table}; there are {', '.join(NINE)}.")
    settings = choose_source(source)
    prepare(settings)
    check_first(first)
    options: dict[str, Any] = {}
    if from_source:
        options["market_data"] = {"from_source": True}
    if recompute:
        options |= {name: {"recompute": True} for name in NINE[4:] if not tables or name in tables}
    run_range(settings, first, last or first, tables, **options)
    show_tables(settings)


@click.command()
@click.option("--rewrite", is_flag=True, help="Correct versions that are stored with other values.")
def apply(rewrite: bool) -> None:
    """Store the declared state: every version on the day from which it holds."""
    from algobot_assets.resources import StateResource

    settings = Settings()
    prepare(settings)
    state = StateResource().load()
    dates = [s.effective_from for s in state.strategies] + [c.effective_from for c in state.configurations]
    dates += [risk.effective_from for s in state.strategies for risk in s.risk]
    tables = ("configurations", "strategies", "risk_parameters")
    options = {table: {"rewrite": True} for table in tables} if rewrite else {}
    run_range(settings, min(dates, default=state.first_day), max(dates, default=state.first_day), tables, **options)
    click.echo(f"Stored: {len(state.strategies)} strategy versions, {len(state.configurations)} configurations.")

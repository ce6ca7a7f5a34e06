"""Commands that run the platform: demo, up, backfill, apply."""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from algobot_assets.cli.database import prepare
from algobot_assets.cli.output import emit, json_option, say
from algobot_assets.cli.show import progress
from algobot_assets.errors import AlgobotError, SettingsError, SourceError
from algobot_assets.settings import Settings, project_root

if TYPE_CHECKING:
    from algobot_assets.runs import RunResult


#: Tables of the declared state; the others go market by market.
DECLARED = ("configurations", "strategies", "risk_parameters")
#: A run as scripts are told of it: run_id, first, last, tables, left_out.
Ran = dict[str, Any]


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


def choose_source(source: str | None, anew: bool = False) -> Settings:
    """The settings with a source: the one asked for, else the one chosen before, else Binance where it answers, else
    the simulated exchange.

    What is chosen without being asked is remembered in the settings' home, so that the UI's runs use it too. ``anew``:
    do not take what was chosen before.
    """
    if source is not None:
        os.environ["ALGOBOT_SOURCE"] = source
    settings = Settings()
    if settings.source:
        return settings
    if not anew and (settings.home / "source").is_file():
        if settings.exchange == "simulated":
            say("Candles come from the SIMULATED exchange, as before; --source binance asks Binance.")
        return settings
    from algobot_assets.feed.exchange import Exchange
    from algobot_assets.feed.retry import Retry

    try:
        exchange = Exchange(settings.exchange_url, timeout=(3.0, 5.0), retry=Retry(attempts=1))
        exchange.server_time()
        exchange.close()
        chosen = "binance"
        say(f"Candles come from Binance ({settings.exchange_url}).")
    except SourceError as error:
        chosen = "simulated"
        say(
            "Binance cannot be reached, so a SIMULATED exchange on this machine takes its place:\n"
            "seeded prices, not real ones. They are kept in a database of their own and never\n"
            f"mix with real candles. ({error})"
        )
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


def run_range(settings: Settings, first: date, last: date, tables: tuple[str, ...] = (), **options: Any) -> Ran:
    """One Dagster range run with progress on the terminal; AlgobotError where it fails."""
    from algobot_assets import runs
    from algobot_assets.schema.tables import NINE

    with progress(f"{first} to {last}"), runs.instance(settings) as instance:
        result = runs.materialise(instance, first, last, tables or None, options=options)
    for sentence in result.left_out:
        say(f"Left out: {sentence}")
    if not result.success:
        raise AlgobotError(result.error or f"Run {result.run_id} failed; see it in the UI.")
    return _document(result, first, last, tables or NINE)


def _document(result: RunResult, first: date, last: date, tables: tuple[str, ...]) -> Ran:
    """A run that has succeeded, as scripts are told of it."""
    days = {"first": first, "last": last}
    return {"run_id": result.run_id, **days, "tables": list(tables), "left_out": list(result.left_out)}


@click.command()
@click.option("--source", help="binance, simulated, or a folder of klines; default: Binance where it can be reached.")
@click.option("--from", "first", type=Day(), help="First day; default: where the declared markets start.")
@click.option("--to", "last", type=Day(), help="Last day; default: today.")
@json_option
def demo(source: str | None, first: date | None, last: date | None, as_json: bool) -> None:
    """From nothing to backtests: database, candles, all nine tables, and a summary.

    Takes the markets and strategies of algobot.yaml. Run again, it computes only what is new.
    """
    from algobot_assets.cli.summary import Summary
    from algobot_assets.store.connection import Store

    settings = choose_source(source, anew=True)
    say(f"PostgreSQL: {_where(settings)}")
    prepare(settings)
    first, last = days_of(first, last)
    ran = run_range(settings, first, last)
    with Store.open(settings) as store:
        summary = Summary.read(store)
    if as_json:
        emit({"runs": [ran], **summary.document()})
        return
    summary.show()
    program = _program()
    click.echo("Next:")
    click.echo(f"  {program} up               the UI, at http://127.0.0.1:3000")
    click.echo(f"  {program} report --open    a page per strategy")
    click.echo(f"  {program} --help           everything else")


def _program() -> str:
    """How the command is called from here."""
    program = Path(sys.executable).parent / "algobot"
    here = Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)


def _where(settings: Settings) -> str:
    return "the server of ALGOBOT_DATABASE_URL" if settings.database_url else f"embedded, in {settings.home}"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the UI listens on.")
@click.option("--port", default=3000, show_default=True, help="Port of the UI.")
def up(host: str, port: int) -> None:
    """Start the UI and the daemon; stop them with Ctrl-C.

    The daemon runs schedules and sensors: new candles are fetched and what is stale is computed again by itself.
    Reports are served on the next port. The database goes on running; `algobot db stop` stops it.
    """
    settings = Settings()
    prepare(settings)
    root = project_root()
    if root is None:
        raise SettingsError("workspace.yaml is not where it should be: run from a checkout of the project.")
    if host not in ("127.0.0.1", "localhost", "::1"):
        say(
            f"Warning: the UI listens on {host}. Whoever reaches it can start runs and read all data; it asks for no "
            "password. Put it behind something that does."
        )
    artefacts = settings.home / "dagster"
    artefacts.mkdir(parents=True, exist_ok=True)
    (artefacts / "dagster.yaml").write_text((root / "dagster.yaml").read_text())
    os.environ["DAGSTER_HOME"] = str(artefacts)
    # not from the checkout: Dagster warns where the working directory holds another dagster.yaml than DAGSTER_HOME
    os.chdir(artefacts)
    program = Path(sys.executable).parent / "dg"
    workspace = str(root / "workspace.yaml")
    _serve_reports(settings, host, port + 1)
    say(f"The UI will be at http://{host}:{port} in a moment; Ctrl-C stops it.")
    os.execv(program, [str(program), "dev", "--workspace", workspace, "--host", host, "--port", str(port)])


def _serve_reports(settings: Settings, host: str, port: int) -> None:
    """Serve the pages for the UI's links, unless they are served elsewhere."""
    from algobot_assets.reports import serving
    from algobot_assets.reports.writing import folder_of

    if settings.reports_url:
        return
    try:
        os.environ["ALGOBOT_REPORTS_URL"] = serving.start(folder_of(settings), host, port)
    except OSError as error:
        say(f"Port {port} cannot be had ({error.strerror}): the UI shows the reports' paths instead of links.")


@click.command()
@click.argument("first", type=Day())
@click.argument("last", type=Day(), required=False)
@click.option("--table", "tables", multiple=True, help="Only this table; may be repeated. Default: all nine.")
@click.option("--market", "markets", multiple=True, help='Only this market, as "BTCUSDT 1m"; may be repeated.')
@click.option("--source", help="binance, simulated, or a folder of klines.")
@click.option("--from-source", is_flag=True, help="Ask the source again for candles that are stored.")
@click.option("--recompute", is_flag=True, help="Compute again even what is fresh.")
@click.option("--workers", default=1, type=click.IntRange(1), help="Runs at once: months of candles, then markets.")
@json_option
def backfill(
    first: date,
    last: date | None,
    tables: tuple[str, ...],
    markets: tuple[str, ...],
    source: str | None,
    from_source: bool,
    recompute: bool,
    workers: int,
    as_json: bool,
) -> None:
    """Materialise the days FIRST to LAST in one run.

    Without LAST only the day FIRST. What is stored and still holds is neither fetched nor computed again.
    """
    from algobot_assets.cli.summary import Tables
    from algobot_assets.schema.tables import NINE
    from algobot_assets.store.connection import Store

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
    if markets:
        for table in set(tables or NINE) - set(DECLARED):
            options.setdefault(table, {})["markets"] = list(markets)
    if workers > 1:
        _side_by_side(settings, first, last or first, tables or NINE, markets, workers, options)
    ran = run_range(settings, first, last or first, tables, **options)
    with Store.open(settings) as store:
        stored = Tables.read(store)
    emit({"runs": [ran], **stored.document()}) if as_json else stored.show()


def _side_by_side(
    settings: Settings,
    first: date,
    last: date,
    tables: tuple[str, ...],
    markets: tuple[str, ...],
    workers: int,
    options: dict[str, Any],
) -> None:
    """Several runs at once: candles by months, then what follows from them by markets.

    The run over everything then finds it stored, asks and computes nothing anew, and looks at the whole.
    """
    from algobot_assets import runs
    from algobot_assets.resources import StateResource
    from algobot_assets.store.connection import Store
    from algobot_assets.workers import CANDLES, COMPUTED, compute_side_by_side, fetch_side_by_side

    def asked(of: tuple[str, ...]) -> dict[str, Any]:
        """Their options, of which the run over everything keeps the markets."""
        found = {table: options.pop(table) for table in of if table in options}
        options.update({table: {"markets": list(markets)} for table in of if markets and table in tables})
        return found

    computed = tuple(table for table in COMPUTED if table in tables)
    small = tuple(table for table in tables if table in DECLARED)
    with runs.instance(settings) as instance, Store.open(settings) as store:
        if set(CANDLES) & set(tables):
            fetch_side_by_side(instance, store, first, last, workers, say, options=asked(CANDLES))
        if computed:
            if small:
                run_range(settings, first, last, small)
            state = StateResource().load()
            compute_side_by_side(
                instance, store, state, first, last, workers, computed, say, options=asked(computed), only=markets
            )


@click.command()
@click.option("--rewrite", is_flag=True, help="Correct versions that are stored with other values.")
@json_option
def apply(rewrite: bool, as_json: bool) -> None:
    """Store what algobot.yaml declares: every version on the day from which it holds.

    Other values under a stored date are refused, with the difference and the days they touch, unless --rewrite is
    given. Nothing is computed: `algobot refresh` does that.
    """
    from algobot_assets.resources import StateResource

    settings = Settings()
    prepare(settings)
    state = StateResource().load()
    dates = [s.effective_from for s in state.strategies] + [c.effective_from for c in state.configurations]
    dates += [risk.effective_from for s in state.strategies for risk in s.risk]
    options = {table: {"rewrite": True} for table in DECLARED} if rewrite else {}
    first, last = min(dates, default=state.first_day), max(dates, default=state.first_day)
    ran = run_range(settings, first, last, DECLARED, **options)
    stored = {"strategy_versions": len(state.strategies), "configurations": len(state.configurations)}
    if as_json:
        emit({"runs": [ran], **stored})
    else:
        click.echo(f"Stored: {len(state.strategies)} strategy versions, {len(state.configurations)} configurations.")

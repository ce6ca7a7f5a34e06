"""`algobot report`: write HTML pages about strategies."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.console import spinner
from algobot_assets.cli.output import emit, json_option
from algobot_assets.settings import Settings


@click.command()
@click.argument("strategy", required=False)
@click.option("--version", type=int, help="Version; default: the one in force.")
@click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False), help="Folder. Default: reports in ALGOBOT_HOME."
)
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@json_option
def report(strategy: str | None, version: int | None, folder: Path | None, show: bool, as_json: bool) -> None:
    """Write a page per strategy, and one that compares them.

    With STRATEGY, only its page and the comparison. Each page is one file that needs no network: candles with entries
    and exits, equity against buy and hold, drawdown, monthly returns, trades with their explanation, every figure with
    its definition, data quality, and how to reproduce it.
    """
    from algobot_assets.errors import SettingsError
    from algobot_assets.reports.writing import INDEX, folder_of, write_reports
    from algobot_assets.store.connection import Store

    if version is not None and strategy is None:
        again = f"algobot report STRATEGY --version {version}"
        raise SettingsError(f"--version {version} needs the name of its strategy. Run `{again}`.")
    settings = Settings()
    prepare(settings)
    folder = folder or folder_of(settings)
    with Store.open(settings) as store, spinner("writing pages"):
        written = write_reports(store, folder, strategy, version)
    page = written[0].path if strategy else folder / INDEX
    if as_json:
        files = [{"strategy": w.item.name, "version": w.item.version, "path": str(w.path)} for w in written]
        emit({"index": folder / INDEX, "pages": files})
    else:
        click.echo(f"Wrote {len(written)} page{'s' * (len(written) != 1)} and the comparison. Open {page.as_uri()}")
    if show:
        webbrowser.open(page.as_uri())

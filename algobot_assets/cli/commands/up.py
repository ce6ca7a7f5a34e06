"""`algobot up`: the UI, the daemon and the reports."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.output import say
from algobot_assets.errors import SettingsError
from algobot_assets.settings import Settings, project_root


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

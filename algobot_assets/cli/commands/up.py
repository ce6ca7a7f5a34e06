"""`algobot up`: run the UI, the daemon and the reports server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.output import say
from algobot_assets.settings import PROJECT, Settings, require_project


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the UI.")
@click.option("--port", default=3000, show_default=True, help="Port of the UI.")
def up(host: str, port: int) -> None:
    """Start the UI and the daemon; stop them with Ctrl-C.

    The daemon runs schedules and sensors, which fetch new candles and recompute what is stale. Reports are served on
    the next port. The database keeps running; stop it with `algobot db stop`.
    """
    root = require_project()
    settings = Settings()
    prepare(settings)
    if host not in ("127.0.0.1", "localhost", "::1"):
        say(
            f"Warning: the UI at {host} has no password. Anyone who can reach it can start runs and read all data. Put "
            "it behind a proxy that asks for one."
        )
    artefacts = settings.home / "dagster"
    artefacts.mkdir(parents=True, exist_ok=True)
    (artefacts / "dagster.yaml").write_text((root / "dagster.yaml").read_text())
    os.environ["DAGSTER_HOME"] = str(artefacts)
    os.environ[PROJECT] = str(root)
    # workspace.yaml counts on the project's folder as working directory to find the project's module
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    # leave the project: Dagster warns if the working directory has a dagster.yaml other than that of DAGSTER_HOME
    os.chdir(artefacts)
    program = Path(sys.executable).parent / "dg"
    workspace = str(root / "workspace.yaml")
    _serve_reports(settings, host, port + 1)
    say(f"Starting the UI at http://{host}:{port}. Press Ctrl-C to stop.")
    os.execv(program, [str(program), "dev", "--workspace", workspace, "--host", host, "--port", str(port)])


def _serve_reports(settings: Settings, host: str, port: int) -> None:
    """Serve the reports that the UI links to, unless ALGOBOT_REPORTS_URL names another server."""
    from algobot_assets.reports import serving
    from algobot_assets.reports.writing import folder_of

    if settings.reports_url:
        return
    try:
        os.environ["ALGOBOT_REPORTS_URL"] = serving.start(folder_of(settings), host, port)
    except OSError as error:
        say(f"Port {port} is not available ({error.strerror}). The UI will show report paths instead of links.")

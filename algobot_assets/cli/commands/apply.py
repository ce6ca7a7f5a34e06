"""`algobot apply`: store what algobot.yaml declares."""

from __future__ import annotations

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.days import DECLARED
from algobot_assets.cli.output import emit, json_option, say
from algobot_assets.cli.range_run import run_range
from algobot_assets.settings import Settings


@click.command()
@click.option("--rewrite", is_flag=True, help="Overwrite stored versions that differ.")
@json_option
def apply(rewrite: bool, as_json: bool) -> None:
    """Store what algobot.yaml declares, each version on its effective date.

    If a stored version differs, the command shows the difference and the affected days and stops, unless you pass
    --rewrite. Nothing is computed; run `algobot refresh` for that.
    """
    from algobot_assets.declared.state_file import StateFile
    from algobot_assets.pipeline.days import today

    settings = Settings()
    prepare(settings)
    state = StateFile().load()
    dates = [s.effective_from for s in state.strategies] + [c.effective_from for c in state.configurations]
    dates += [risk.effective_from for s in state.strategies for risk in s.risk]
    options = {table: {"rewrite": True} for table in DECLARED} if rewrite else {}
    now, later = today(), [day for day in dates if day > today()]
    dates = [day for day in dates if day <= now] or [now]
    ran = run_range(settings, min(dates), max(dates), DECLARED, **options)
    if later:
        say(f"{len(later)} declared entries take effect after today, the first on {min(later)}; they are stored then.")
    stored = {"strategy_versions": len(state.strategies), "configurations": len(state.configurations)}
    if as_json:
        emit({"runs": [ran], **stored})
    else:
        click.echo(f"Stored: {len(state.strategies)} strategy versions, {len(state.configurations)} configurations.")

"""`algobot apply`: store what algobot.yaml declares."""

from __future__ import annotations

import click

from algobot_assets.cli.commands.database import prepare
from algobot_assets.cli.output import emit, json_option
from algobot_assets.cli.range_run import DECLARED, run_range
from algobot_assets.settings import Settings


@click.command()
@click.option("--rewrite", is_flag=True, help="Correct versions that are stored with other values.")
@json_option
def apply(rewrite: bool, as_json: bool) -> None:
    """Store what algobot.yaml declares: every version on the day from which it holds.

    Other values under a stored date are refused, with the difference and the days they touch, unless --rewrite is
    given. Nothing is computed: `algobot refresh` does that.
    """
    from algobot_assets.declared.state_file import StateFile

    settings = Settings()
    prepare(settings)
    state = StateFile().load()
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

"""The command line `algobot`: one module per group of commands.

Commands read their arguments, call the rooms below, and print results as tables or as JSON.
"""

from __future__ import annotations


def main(arguments: list[str] | None = None) -> None:
    """Run the console script, by default with its own arguments. Ctrl-C is handled before the heavy imports begin."""
    from algobot_assets.cli import interrupts

    interrupts.install()
    from algobot_assets.cli.app import main as run

    run(arguments)

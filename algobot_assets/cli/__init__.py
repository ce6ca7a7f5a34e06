"""The command line: `algobot`, one module per group of commands.

What belongs here: reading arguments, calling the rooms below, showing results to a person (or as JSON to a
script). No computation, no SQL beyond what the summaries show.
"""

from __future__ import annotations

from algobot_assets.cli.main import main

__all__ = ["main"]

"""Everything that Dagster loads: the platform's definitions and those in defs/."""

from pathlib import Path

from algobot_assets.definitions import build_defs

defs = build_defs(project=Path(__file__).parent)

"""The declared state on disk, validated against the registered strategy types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from algobot_assets.compute.strategies import get_strategy, strategy_types
from algobot_assets.declared.model import DeclaredState
from algobot_assets.declared.reading import load
from algobot_assets.settings import Settings


@dataclass(frozen=True)
class StateFile:
    """The YAML file of the declared state. ``path`` overrides ALGOBOT_STATE_FILE."""

    path: str = ""

    def load(self) -> DeclaredState:
        """Read and validate the file. SettingsError names the line of each problem."""
        path = Path(self.path) if self.path else Settings().state_file
        return load(path, {name: get_strategy(name).resolve for name in strategy_types()})

"""Data platform of a trading bot for Binance: candles to backtests as date-partitioned Dagster assets."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

__version__ = "0.1.0"

#: Paths that users have written down in dagster.yaml and deploy files, and where the modules are now. They work for
#: one version and say so.
_MOVED = {
    "algobot_assets.automation.queue": "algobot_assets.defs.instance.queue",
    "algobot_assets.store.dagster_storage": "algobot_assets.defs.instance.storage",
}
_MOVED_PACKAGES = ("algobot_assets.automation",)


class _MovedPaths(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a moved module under its old path, with a DeprecationWarning."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in _MOVED or fullname in _MOVED_PACKAGES:
            return importlib.util.spec_from_loader(fullname, self, is_package=fullname in _MOVED_PACKAGES)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        new = _MOVED.get(spec.name)
        if new is None:
            return None
        warnings.warn(
            f"{spec.name} is now {new}; the old path goes with the next version.", DeprecationWarning, stacklevel=2
        )
        moved = ModuleType(spec.name)
        moved.__dict__.update(vars(importlib.import_module(new)))
        return moved

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: the module was executed under its new path."""


sys.meta_path.append(_MovedPaths())

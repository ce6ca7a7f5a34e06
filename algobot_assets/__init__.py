"""Data platform of a trading bot for Binance: from candles to backtests, as date-partitioned Dagster assets."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__version__ = "0.1.0"

#: Old module paths that users may have in their dagster.yaml and deploy files, with the new ones. They keep working,
#: with a DeprecationWarning, for one version.
_MOVED = {
    "algobot_assets.automation.queue": "algobot_assets.defs.instance.queue",
    "algobot_assets.store.dagster_storage": "algobot_assets.defs.instance.storage",
}
_MOVED_PACKAGES = ("algobot_assets.automation",)


class _MovedPaths:
    """Finder and loader that imports a moved module under its old path, with a DeprecationWarning."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _MOVED or fullname in _MOVED_PACKAGES:
            # deriving from importlib.abc.Loader would double the time to import this package
            return ModuleSpec(fullname, self, is_package=fullname in _MOVED_PACKAGES)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        new = _MOVED.get(spec.name)
        if new is None:
            return None
        import importlib  # imports stay light here: Ctrl-C is handled only once the command line is loaded
        import warnings

        warnings.warn(
            f"{spec.name} is now {new}; the next version drops the old path.", DeprecationWarning, stacklevel=2
        )
        moved = ModuleType(spec.name)
        moved.__dict__.update(vars(importlib.import_module(new)))
        return moved

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module was executed under its new path."""


sys.meta_path.append(_MovedPaths())

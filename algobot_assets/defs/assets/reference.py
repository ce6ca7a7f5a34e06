"""configurations, strategies and risk_parameters: the declared state, by effective date."""

from __future__ import annotations

from algobot_assets.defs.table_asset import DeclaredConfig, table_asset
from algobot_assets.pipeline import reference

configurations = table_asset(
    group="reference",
    kinds=("yaml",),
    description="Settings of the computations, from the declared state. Partition D holds the versions that take "
    "effect on D.",
    code_version=reference.CODE_VERSION,
    config_class=DeclaredConfig,
)(reference.configurations)

strategies = table_asset(
    group="reference",
    kinds=("yaml",),
    description="Strategy versions, from the declared state. A new version is a new row that replaces the old one "
    "from its effective date.",
    code_version=reference.CODE_VERSION,
    config_class=DeclaredConfig,
)(reference.strategies)

risk_parameters = table_asset(
    group="reference",
    kinds=("yaml",),
    description="Risk limits of each strategy version, from the declared state.",
    code_version=reference.CODE_VERSION,
    config_class=DeclaredConfig,
)(reference.risk_parameters)

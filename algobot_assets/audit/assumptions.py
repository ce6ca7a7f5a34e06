"""Find the favourable assumptions behind the stored results of each strategy version."""

from __future__ import annotations

from datetime import date

from algobot_assets.compute.ledger.assumptions import Assumption, favourable_assumptions
from algobot_assets.declared.parameters import from_json
from algobot_assets.pipeline.ledger.inputs import costs_on, rules_on
from algobot_assets.store import catalogue
from algobot_assets.store.catalogue import StoredVersion
from algobot_assets.store.connection import Store
from algobot_assets.store.reader import read_table


class StoredAssumptions:
    """Favourable assumptions by strategy version and day. The settings are read once."""

    def __init__(self, store: Store) -> None:
        self._costs = read_table(store, "configurations", "effective_from", "id")
        self._rules = read_table(store, "symbol_rules", "effective_from")
        rows = read_table(store, "strategies", "id")
        self._parameters = dict(zip(rows["id"], rows["parameters"], strict=True))

    def on(self, version: StoredVersion, day: date) -> tuple[Assumption, ...]:
        """Return the assumptions behind a version's results on `day`."""
        shorting = from_json(self._parameters[version.id]).shorting
        costs, rules = costs_on(self._costs, day), rules_on(self._rules, version.symbol, day)
        return favourable_assumptions(version.symbol, costs, rules, shorting=shorting)


def read_assumptions(store: Store) -> dict[StoredVersion, tuple[Assumption, ...]]:
    """Return today's assumptions of each strategy's version in force."""
    stored = StoredAssumptions(store)
    versions, now = store.retrying(
        lambda connection: (catalogue.versions(connection), catalogue.now(connection)), "Reading the strategies"
    )
    names = dict.fromkeys(version.name for version in versions)
    in_force = [catalogue.choose_version(versions, name, None, now.date()) for name in names]
    return {version: stored.on(version, now.date()) for version in in_force}

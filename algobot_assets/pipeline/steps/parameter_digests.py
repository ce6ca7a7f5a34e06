"""Read the digests of the settings in force on each day, as the view parameter_periods defines them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date

from algobot_assets.store.connection import Store
from algobot_assets.store.lineage.digests import NOTHING


@dataclass(frozen=True)
class ParameterDigests:
    """The days on which each digest takes effect, ascending, per strategy (0: all markets)."""

    periods: dict[int, tuple[list[date], list[bytes]]]

    @classmethod
    def read(cls, store: Store, kind: str) -> ParameterDigests:
        """Read the periods of ``kind``: indicators, signals or ledger."""
        with store.transaction() as connection:
            rows = connection.execute(
                """SELECT strategy_id, CASE WHEN isfinite(valid_from) THEN valid_from ELSE DATE '0001-01-01' END, digest
                     FROM parameter_periods WHERE table_name = %s ORDER BY strategy_id, valid_from""",
                (kind,),
            ).fetchall()
        periods: dict[int, tuple[list[date], list[bytes]]] = {}
        for strategy, start, value in rows:
            starts, values = periods.setdefault(strategy, ([], []))
            starts.append(start)
            values.append(bytes(value))
        return cls(periods)

    def on(self, strategy_id: int, day: date) -> bytes:
        """Return the digest in force on ``day``; empty if no setting is stored for it."""
        starts, values = self.periods.get(strategy_id, ([], []))
        index = bisect_right(starts, day) - 1
        return values[index] if index >= 0 else NOTHING

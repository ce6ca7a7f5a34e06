"""Record which code version computes each table now, so that the database can find stale partitions."""

from __future__ import annotations

from algobot_assets.compute.code_version import indicators_code_version, ledger_code_version, strategy_code_version
from algobot_assets.compute.strategies import get_strategy, strategy_types
from algobot_assets.store.connection import Store

LEDGER_TABLES = ("trade_history", "performance_metrics", "backtest_results")


def register_code(store: Store) -> None:
    """Record the code versions of this process; unchanged rows are not touched."""
    ledger = ledger_code_version()
    rows = [("indicators", "", indicators_code_version(), False)]
    rows += [(table, "", ledger, False) for table in LEDGER_TABLES]
    rows += [
        ("signals", kind, strategy_code_version(kind), bool(get_strategy(kind).indicators)) for kind in strategy_types()
    ]
    store.retrying(
        lambda connection: connection.cursor().executemany(
            """INSERT INTO code_versions (table_name, strategy_type, code_version, reads_indicators)
               VALUES (%s, %s, %s, %s) ON CONFLICT (table_name, strategy_type) DO UPDATE
                  SET code_version = excluded.code_version, reads_indicators = excluded.reads_indicators
                WHERE (code_versions.code_version, code_versions.reads_indicators)
                      IS DISTINCT FROM (excluded.code_version, excluded.reads_indicators)""",
            rows,
        ),
        "Recording the code in force",
    )

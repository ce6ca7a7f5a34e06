"""The nine tables, the platform's own records, and the function that makes the partitions of a month."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

#: In the order in which they can be dropped.
TABLES = [
    "performance_metrics",
    "trade_history",
    "backtest_results",
    "risk_parameters",
    "signals",
    "indicators",
    "market_data",
    "strategies",
    "configurations",
    "lineage",
    "sources",
    "gaps",
    "listings",
    "symbol_rules",
    "dirty_days",
    "code_versions",
    "exchange",
]


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    op.execute("DROP VIEW parameter_periods")
    op.execute("DROP FUNCTION ensure_month(date)")
    for table in TABLES:
        op.drop_table(table)

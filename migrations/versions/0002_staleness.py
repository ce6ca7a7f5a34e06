"""Marks of rows changed by hand, the view of stale partitions, and the trace from a trade to its source."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    for view in ("trade_trace", "stale_partitions"):
        op.execute(f"DROP VIEW {view}")
    op.drop_column("code_versions", "reads_indicators")
    # with its function every trigger goes, on parents and leaves alike
    op.execute("DROP FUNCTION mark_dirty() CASCADE")
    op.execute(
        """DO $$ BEGIN
            EXECUTE replace(pg_get_functiondef('ensure_month(date)'::regprocedure),
                            'PERFORM watch(leaf::regclass, parent);', '');
        END $$"""
    )
    op.execute("DROP FUNCTION watch(regclass, text)")
    op.execute("DROP FUNCTION candle_day(text, text, timestamptz)")

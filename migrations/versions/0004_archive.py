"""Where archived months are, the function that drops a month, and the trace from trades to archived candles."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_HERE = Path(__file__)


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(_HERE.with_suffix(".sql").read_text())


def downgrade() -> None:
    # without this table nobody would know where the rows are
    op.execute(
        """DO $$ BEGIN
            IF EXISTS (SELECT FROM archived_files) THEN
                RAISE EXCEPTION 'months are archived: bring them back with algobot restore first';
            END IF;
        END $$"""
    )
    op.execute("DROP VIEW trade_trace")
    before = _HERE.with_name("0002_staleness.sql").read_text()
    before = before[before.index("CREATE VIEW trade_trace") :]
    # a star would tie the view to columns that revisions in between have added
    before = before.replace("SELECT * FROM sources AS x", "SELECT kind, name, sha256, requested_at FROM sources AS x")
    op.get_bind().connection.driver_connection.execute(before)
    op.execute("DROP FUNCTION candle_open(text, text, timestamptz)")
    op.execute("DROP FUNCTION drop_month(date)")
    op.drop_table("archived_files")

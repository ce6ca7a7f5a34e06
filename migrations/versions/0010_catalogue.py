"""The catalogue of candles is answered from one index, whatever else lineage holds."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE INDEX lineage_candles_idx ON lineage (symbol, "interval", day) INCLUDE (rows, complete_through)
         WHERE table_name = 'market_data'
        """
    )


def downgrade() -> None:
    op.execute("DROP INDEX lineage_candles_idx")

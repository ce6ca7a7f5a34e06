"""Fill indicators and signals by a join with their candles, in functions of the owner, and keep those candles.

The rows are staged by natural key, so each one's reference is true because it was joined, and not because a trigger
looked at it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    op.execute("DROP TRIGGER keep_candles_delete ON market_data")
    op.execute("DROP TRIGGER keep_candles_update ON market_data")
    op.execute("DROP FUNCTION keep_candles()")
    op.execute("DROP FUNCTION insert_staged(text, timestamptz, timestamptz)")
    op.execute("DROP FUNCTION open_stage(text)")

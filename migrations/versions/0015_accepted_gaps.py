"""Stretches of candles that nobody can supply, accepted as gaps by a person."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accepted_gaps",
        sa.Column("symbol", sa.String(20, collation="C"), nullable=False),
        sa.Column("interval", sa.String(10, collation="C"), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("accepted_by", sa.Text(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("symbol", "interval", "first_day"),
    )


def downgrade() -> None:
    op.drop_table("accepted_gaps")

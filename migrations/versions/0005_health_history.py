"""The database's figures over time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "health_history",
        sa.Column("measure", sa.String(40, collation="C"), nullable=False),
        sa.Column("subject", sa.String(100, collation="C"), nullable=False),
        sa.Column("measured_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("measure", "subject", "measured_at"),
    )


def downgrade() -> None:
    op.drop_table("health_history")

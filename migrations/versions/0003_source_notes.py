"""What a source had to say about a stretch of candles, kept with the stretch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sources", sa.Column("note", sa.Text, nullable=True))


def downgrade() -> None:
    op.drop_column("sources", "note")

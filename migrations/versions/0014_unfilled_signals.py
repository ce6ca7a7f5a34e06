"""Signals that led to no order, counted by reason and day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0011"
branch_labels = None
depends_on = None

_REASONS = (
    "below_min_notional",
    "rounded_to_zero",
    "no_capital",
    "at_max_open_trades",
    "outside_dates",
    "shorting_off",
)


def upgrade() -> None:
    op.create_table(
        "unfilled_signals",
        sa.Column("strategy_id", sa.BigInteger(), sa.ForeignKey("strategies.id", ondelete="CASCADE"), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(reason, sa.Integer(), nullable=False) for reason in _REASONS),
        sa.PrimaryKeyConstraint("strategy_id", "day"),
    )


def downgrade() -> None:
    op.drop_table("unfilled_signals")

"""Tables of parameter sweeps and walk-forwards."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    for table in ("walk_forward_equity", "walk_forward_windows", "walk_forwards", "sweep_results", "sweeps"):
        op.drop_table(table)

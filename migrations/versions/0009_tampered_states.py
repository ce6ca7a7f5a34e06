"""A carried state that is changed by hand is marked, so that the view of stale partitions shows its day."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the writer changes the state and its digest together or neither, but where it mends a state
    op.execute(
        """
        CREATE FUNCTION mark_tampered() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        BEGIN
            IF current_setting('algobot.writing', true) = NEW.table_name THEN
                RETURN NULL;
            END IF;
            INSERT INTO dirty_days (table_name, symbol, "interval", strategy_id, day)
            VALUES (NEW.table_name, NEW.symbol, NEW."interval", NEW.strategy_id, NEW.day) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER mark_tampered AFTER UPDATE ON lineage FOR EACH ROW
        WHEN ((array_send(OLD.state_out) IS DISTINCT FROM array_send(NEW.state_out))
              <> (OLD.state_digest IS DISTINCT FROM NEW.state_digest))
        EXECUTE FUNCTION mark_tampered()
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION mark_tampered() CASCADE")  # with its trigger

"""Least privilege: what a role that may only write needs functions for. The roles are made by store/roles.py."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_HERE = Path(__file__)

#: The owner's things go back to who migrates, and the roles with their rights; a role that another database uses, or
#: that an administrator made, stays.
_GIVE_BACK = """
DO $$
DECLARE
    role text;
BEGIN
    IF to_regprocedure('role_for(text)') IS NULL THEN
        RETURN;
    END IF;
    CREATE TEMP TABLE given_back ON COMMIT DROP AS
        SELECT role_for(name)::text AS name FROM unnest(ARRAY['owner', 'writer', 'reader']) AS name;
    IF role_for('owner') IS NOT NULL THEN
        EXECUTE format('REASSIGN OWNED BY %I TO CURRENT_USER', role_for('owner'));
    END IF;
    DROP FUNCTION role_for(text);
    FOR role IN SELECT name FROM given_back WHERE name IS NOT NULL LOOP
        EXECUTE format('DROP OWNED BY %I', role);
        BEGIN
            EXECUTE format('DROP ROLE %I', role);
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            NULL;
        END;
    END LOOP;
    DROP TABLE given_back;
END
$$
"""


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(_HERE.with_suffix(".sql").read_text())


def downgrade() -> None:
    op.execute(_GIVE_BACK)
    op.execute("DROP FUNCTION hold_month(date)")
    before = _HERE.with_name("0004_archive.sql").read_text()
    before = before[before.index("CREATE FUNCTION drop_month") : before.index("REVOKE ALL ON FUNCTION drop_month")]
    before = before.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    op.get_bind().connection.driver_connection.execute(before)
    op.execute("GRANT EXECUTE ON FUNCTION ensure_month(date) TO PUBLIC")

"""Columns of symbols hold Binance's longest name, 20 characters, with the suffix of a future."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

#: Views, and a trigger that names columns, keep a column from changing its type, so they are made anew, views in the
#: order in which they were made. A longer VARCHAR rewrites no row.
_RESIZE = """
DO $$
DECLARE
    item record;
    granted record;
BEGIN
    CREATE TEMP TABLE views_before ON COMMIT DROP AS
        SELECT c.oid, c.relname, pg_get_viewdef(c.oid) AS text, obj_description(c.oid, 'pg_class') AS remark,
               c.relowner, c.relacl
          FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v'
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e');
    FOR item IN SELECT * FROM views_before ORDER BY oid DESC LOOP
        EXECUTE format('DROP VIEW public.%I', item.relname);
    END LOOP;
    DROP TRIGGER keep_candles_update ON market_data;
    FOR item IN
        SELECT c.relname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
           AND a.attname = 'symbol' AND NOT a.attisdropped AND format_type(a.atttypid, NULL) = 'character varying'
    LOOP
        EXECUTE format('ALTER TABLE public.%I ALTER COLUMN symbol TYPE varchar(WIDTH) COLLATE "C"', item.relname);
    END LOOP;
    CREATE TRIGGER keep_candles_update BEFORE UPDATE OF id, symbol, "interval", "timestamp" ON market_data
        FOR EACH ROW EXECUTE FUNCTION keep_candles();
    FOR item IN SELECT * FROM views_before ORDER BY oid LOOP
        EXECUTE format('CREATE VIEW public.%I AS %s', item.relname, item.text);
        EXECUTE format('COMMENT ON VIEW public.%I IS %L', item.relname, item.remark);
        EXECUTE format('ALTER VIEW public.%I OWNER TO %s', item.relname, item.relowner::regrole);
        FOR granted IN SELECT * FROM aclexplode(item.relacl) WHERE grantee NOT IN (0, item.relowner) LOOP
            EXECUTE format('GRANT %s ON public.%I TO %s', granted.privilege_type, item.relname,
                           granted.grantee::regrole);
        END LOOP;
    END LOOP;
    DROP TABLE views_before;
END
$$
"""


def upgrade() -> None:
    op.execute(_RESIZE.replace("WIDTH", "24"))


def downgrade() -> None:
    op.execute(_RESIZE.replace("WIDTH", "20"))

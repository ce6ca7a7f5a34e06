"""TRUNCATE by hand is marked like any other deletion."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

#: Parents and leaves of the watched tables, each with the table whose days it marks.
_WATCHED = """
    SELECT c.oid::regclass AS relation, coalesce(p.relname, c.relname) AS marked
      FROM pg_class AS c
      LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
      LEFT JOIN pg_class AS p ON p.oid = i.inhparent
     WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
       AND coalesce(p.relname, c.relname) IN ('market_data', 'indicators', 'signals', 'trade_history',
                                              'performance_metrics', 'backtest_results')"""
_TRIGGER = """
    EXECUTE format('CREATE TRIGGER mark_dirty_truncate AFTER TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION mark_truncated(%L)', relation, marked);
"""


def upgrade() -> None:
    # there are no old rows to look at: every recorded day that had rows is marked, of a leaf those of its month and
    # the six days after it, to which a candle of 3d or 1w that opened in the month can belong
    op.execute(
        """
        CREATE FUNCTION mark_truncated() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        DECLARE
            month date := CASE WHEN TG_TABLE_NAME <> TG_ARGV[0] THEN to_date(right(TG_TABLE_NAME, 7), 'YYYY_MM') END;
        BEGIN
            IF current_setting('algobot.writing', true) = TG_ARGV[0] THEN
                RETURN NULL;
            END IF;
            INSERT INTO dirty_days (table_name, symbol, "interval", strategy_id, day)
            SELECT table_name, symbol, "interval", strategy_id, day FROM lineage
             WHERE table_name = TG_ARGV[0] AND rows > 0
               AND (month IS NULL OR day >= month AND day < month + interval '1 month 6 days')
               AND NOT EXISTS (SELECT FROM archived_files AS a WHERE a.month = date_trunc('month', day)::date)
                ON CONFLICT DO NOTHING;
            RETURN NULL;
        END
        $$
        """
    )
    op.execute(
        """DO $$ BEGIN
            EXECUTE replace(pg_get_functiondef('watch(regclass,text)'::regprocedure), E'\\nEND\\n', $body$"""
        + _TRIGGER
        + "END\n$body$); END $$"
    )
    op.execute(
        f"DO $$ DECLARE relation regclass; marked text; BEGIN FOR relation, marked IN {_WATCHED} LOOP {_TRIGGER} "
        "END LOOP; END $$"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION mark_truncated() CASCADE")  # with its triggers
    op.execute(
        """DO $$ BEGIN
            EXECUTE replace(pg_get_functiondef('watch(regclass,text)'::regprocedure), $body$"""
        + _TRIGGER
        + "END\n$body$, E'\\nEND\\n'); END $$"
    )

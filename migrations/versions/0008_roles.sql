-- Functions of the owner for what a role that may only write rows cannot do itself.

-- Keeps writers away from the leaves of a month until the transaction ends; readers go on.
CREATE FUNCTION hold_month(month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    suffix text := to_char(month, 'YYYY_MM');
BEGIN
    EXECUTE format('LOCK TABLE %I, %I, %I IN SHARE MODE',
                   'market_data_' || suffix, 'indicators_' || suffix, 'signals_' || suffix);
END
$$;
COMMENT ON FUNCTION hold_month(date) IS
    'Locks the partitions of a month of market_data, indicators and signals against writers until the transaction ends.';

-- As before, and a month that holds candles goes only if its files are recorded.
CREATE OR REPLACE FUNCTION drop_month(month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    suffix text := to_char(month, 'YYYY_MM');
    first_day date := date_trunc('month', month)::date;
    occupied boolean;
    parent text;
BEGIN
    IF to_regclass('market_data_' || suffix) IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', 'market_data_' || suffix) INTO occupied;
    IF occupied AND NOT EXISTS (SELECT FROM archived_files AS a WHERE a.month = first_day) THEN
        RAISE EXCEPTION 'the month % holds candles that are not archived', to_char(month, 'YYYY-MM');
    END IF;
    FOREACH parent IN ARRAY ARRAY['signals', 'indicators', 'market_data'] LOOP
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, parent || '_' || suffix);
        EXECUTE format('DROP TABLE %I', parent || '_' || suffix);
    END LOOP;
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION ensure_month(date), hold_month(date) FROM PUBLIC;

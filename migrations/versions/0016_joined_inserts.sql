-- A candle that leaves its place waits for the batches that have joined it: they hold the lock of its month, shared.
-- The first number is CANDLES_CLASS of store/advisory_locks.py.
CREATE FUNCTION keep_candles() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1633837924, to_char(OLD."timestamp" AT TIME ZONE 'UTC', 'YYYYMM')::int);
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
CREATE TRIGGER keep_candles_delete BEFORE DELETE ON market_data
    FOR EACH ROW EXECUTE FUNCTION keep_candles();
CREATE TRIGGER keep_candles_update BEFORE UPDATE OF id, symbol, "interval", "timestamp" ON market_data
    FOR EACH ROW EXECUTE FUNCTION keep_candles();

-- The stage belongs to the owner, so that the session that fills it cannot attach functions to it.
CREATE FUNCTION open_stage(target text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    stage text := 'staged_' || target;
BEGIN
    IF target NOT IN ('indicators', 'signals') THEN
        RAISE EXCEPTION '% is not filled by a join', target;
    END IF;
    -- the right belongs to the server, and may have gone with a database that shared this one's owner
    IF EXISTS (SELECT FROM pg_proc WHERE proname = 'insert_staged' AND pronamespace = 'public'::regnamespace
                                     AND proconfig::text LIKE '%session_replication_role%')
       AND NOT has_parameter_privilege('session_replication_role', 'SET') THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS pg_temp.%I', stage);
    EXECUTE format('CREATE TEMP TABLE %I ON COMMIT DROP AS SELECT %s FROM %I WITH NO DATA', stage,
                   CASE target WHEN 'indicators' THEN 'symbol, "interval", "timestamp", ema, rsi, atr, vwap'
                               ELSE 'strategy_id, symbol, "interval", "timestamp", signal' END, target);
    EXECUTE format('GRANT INSERT, SELECT ON pg_temp.%I TO %I', stage, session_user);
    IF to_regprocedure('role_for(text)') IS NOT NULL AND role_for('writer') IS NOT NULL THEN
        EXECUTE format('GRANT INSERT, SELECT ON pg_temp.%I TO %I', stage, role_for('writer'));
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION open_stage(text) IS
    'Makes an empty stage of indicators or signals for this transaction; false if insert_staged may not be called.';

-- Inserts the staged rows with the candle that opens at each one's time, and only those. Row-level checks of the
-- references may be off here, and nowhere else: store/roles.py sets that where the owner has the right.
CREATE FUNCTION insert_staged(target text, first_open timestamptz, end_open timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    inserted bigint;
BEGIN
    IF (SELECT relowner FROM pg_class WHERE oid = to_regclass('pg_temp.staged_' || target))
            IS DISTINCT FROM (SELECT oid FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'the stage of % was not made by open_stage', target;
    END IF;
    IF target = 'indicators' THEN
        EXECUTE format(
            'INSERT INTO indicators (market_data_id, symbol, "interval", "timestamp", ema, rsi, atr, vwap) '
            'SELECT m.id, s.symbol, s."interval", s."timestamp", s.ema, s.rsi, s.atr, s.vwap '
            'FROM pg_temp.staged_indicators AS s JOIN market_data AS m USING (symbol, "interval", "timestamp") '
            'WHERE m."timestamp" >= %L AND m."timestamp" < %L', first_open, end_open);
    ELSE
        EXECUTE format(
            'INSERT INTO signals (market_data_id, strategy_id, symbol, "interval", "timestamp", signal) '
            'SELECT m.id, s.strategy_id, s.symbol, s."interval", s."timestamp", s.signal '
            'FROM pg_temp.staged_signals AS s JOIN market_data AS m USING (symbol, "interval", "timestamp") '
            'JOIN strategies AS v ON v.id = s.strategy_id '
            'WHERE m."timestamp" >= %L AND m."timestamp" < %L', first_open, end_open);
    END IF;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    RETURN inserted;
END
$$;
COMMENT ON FUNCTION insert_staged(text, timestamptz, timestamptz) IS
    'Inserts the staged rows of indicators or signals, each with its candle; returns how many found one.';
REVOKE ALL ON FUNCTION open_stage(text), insert_staged(text, timestamptz, timestamptz), keep_candles() FROM PUBLIC;

-- Marks of rows changed behind the writer's back, the view of stale partitions, and the view from a trade to the file
-- its candles came from.

-- The UTC day to which a candle belongs: the day of its nominal last millisecond (schema/intervals.py says the same).
CREATE FUNCTION candle_day(symbol text, "interval" text, opened timestamptz) RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = public, pg_temp AS $$
    SELECT CASE $2
        WHEN '1w' THEN (date_trunc('week', $3 AT TIME ZONE 'UTC'))::date + 6
        WHEN '1M' THEN (date_trunc('month', $3 AT TIME ZONE 'UTC') + interval '1 month')::date - 1
        WHEN '3d' THEN (
            SELECT d - mod(mod(d - p, 3) + 3, 3) + 2
              FROM (SELECT ($3 AT TIME ZONE 'UTC')::date - DATE '1970-01-01' AS d,
                           coalesce((SELECT (l.first_open AT TIME ZONE 'UTC')::date - DATE '1970-01-01'
                                       FROM listings AS l WHERE l.symbol = $1 AND l."interval" = $2), 0) % 3 AS p) AS n
            ) + DATE '1970-01-01'
        ELSE ($3 AT TIME ZONE 'UTC')::date
    END
$$;
COMMENT ON FUNCTION candle_day(text, text, timestamptz) IS 'The UTC day (partition) to which a candle belongs.';

-- One trigger function for all data tables. TG_ARGV[0] is the table's name (a leaf's parent), so that a cascade from
-- market_data into a leaf of indicators marks indicators. The writer names the table it writes in algobot.writing and
-- is not marked for it; what its deletes cascade into is.
CREATE FUNCTION mark_dirty() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    marked text := TG_ARGV[0];
    source text;
BEGIN
    IF current_setting('algobot.writing', true) = marked THEN
        RETURN NULL;
    END IF;
    FOREACH source IN ARRAY CASE TG_OP WHEN 'UPDATE' THEN ARRAY['old_rows', 'new_rows'] ELSE ARRAY['old_rows'] END LOOP
        EXECUTE format(
            'INSERT INTO dirty_days (table_name, symbol, "interval", strategy_id, day) '
            || CASE marked
                WHEN 'market_data' THEN
                    'SELECT DISTINCT %L, symbol, "interval", 0, candle_day(symbol, "interval", "timestamp") FROM %I'
                WHEN 'indicators' THEN
                    'SELECT DISTINCT %L, symbol, "interval", 0, candle_day(symbol, "interval", "timestamp") FROM %I'
                WHEN 'signals' THEN
                    'SELECT DISTINCT %L, symbol, "interval", strategy_id, '
                    'candle_day(symbol, "interval", "timestamp") FROM %I'
                WHEN 'performance_metrics' THEN
                    'SELECT DISTINCT %L, '''', '''', h.strategy_id, r.day FROM %I AS r '
                    'JOIN trade_history AS h ON h.id = r.trade_id'
                WHEN 'trade_history' THEN 'SELECT DISTINCT %L, '''', '''', strategy_id, day FROM %I'
                WHEN 'backtest_results' THEN 'SELECT DISTINCT %L, '''', '''', strategy_id, day FROM %I'
               END
            || ' ON CONFLICT DO NOTHING', marked, source);
    END LOOP;
    -- a trade takes its metrics with it, and then nothing leads from them to their strategy any more
    IF marked = 'trade_history' AND TG_OP = 'DELETE' THEN
        INSERT INTO dirty_days (table_name, symbol, "interval", strategy_id, day)
        SELECT DISTINCT 'performance_metrics', '', '', strategy_id, day FROM old_rows ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION watch(relation regclass, marked text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER mark_dirty_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows '
                   'NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mark_dirty(%L)', relation, marked);
    EXECUTE format('CREATE TRIGGER mark_dirty_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
                   'FOR EACH STATEMENT EXECUTE FUNCTION mark_dirty(%L)', relation, marked);
END
$$;
REVOKE ALL ON FUNCTION watch(regclass, text) FROM PUBLIC;

SELECT watch(t::regclass, t) FROM unnest(ARRAY['market_data', 'indicators', 'signals', 'trade_history',
                                               'performance_metrics', 'backtest_results']) AS t;

-- Cascades and the owner reach leaves directly, where the parent's triggers do not fire.
CREATE OR REPLACE FUNCTION ensure_month(month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    suffix text := to_char(month, 'YYYY_MM');
    first_day timestamp := date_trunc('month', month);
    parent text;
    leaf text;
BEGIN
    IF to_regclass('signals_' || suffix) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('algobot.ensure_month'), to_char(month, 'YYYYMM')::int);
    IF to_regclass('signals_' || suffix) IS NOT NULL THEN
        RETURN false;
    END IF;
    FOREACH parent IN ARRAY ARRAY['market_data', 'indicators', 'signals'] LOOP
        leaf := parent || '_' || suffix;
        EXECUTE format(
            'CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', leaf, parent);
        IF parent <> 'market_data' THEN
            EXECUTE format(
                'ALTER TABLE %I ADD CONSTRAINT %I FOREIGN KEY (market_data_id, "timestamp") '
                'REFERENCES %I (id, "timestamp") ON DELETE CASCADE',
                leaf, leaf || '_market_data_fkey', 'market_data_' || suffix);
        END IF;
        EXECUTE format(
            'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            parent, leaf, first_day AT TIME ZONE 'UTC', (first_day + interval '1 month') AT TIME ZONE 'UTC');
        PERFORM watch(leaf::regclass, parent);
    END LOOP;
    RETURN true;
END
$$;

DO $$
DECLARE
    leaf record;
BEGIN
    FOR leaf IN SELECT i.inhrelid::regclass AS name, p.relname AS parent
                  FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhparent
                 WHERE p.relname IN ('market_data', 'indicators', 'signals') AND p.relkind = 'p' LOOP
        PERFORM watch(leaf.name, leaf.parent);
    END LOOP;
END
$$;

-- Every partition whose inputs, parameters, code or carried state no longer match what it was computed from, or
-- that is missing where what it follows from is there, with the reason. A row disappears when it is recomputed.
ALTER TABLE code_versions ADD COLUMN reads_indicators boolean NOT NULL DEFAULT false;
ALTER TABLE code_versions ALTER COLUMN reads_indicators DROP DEFAULT;

CREATE VIEW stale_partitions AS
WITH versions AS (
    SELECT s.*, least(s.effective_to, lead(s.effective_from) OVER (PARTITION BY strategy_name ORDER BY effective_from))
                AS end_day,
           s.parameters ->> 'stop_path' IS NOT NULL AS uses_minutes
      FROM strategies AS s
),
candles AS (SELECT * FROM lineage WHERE table_name = 'market_data'),
-- what each partition would be computed from now
expected AS (
    SELECT 'market_data'::text AS table_name, l.symbol, l."interval", 0::bigint AS strategy_id, l.day,
           NULL::bytea AS inputs, NULL::timestamptz AS complete_through, NULL::text AS parameters_of, ''::text AS code_of
      FROM candles AS l
    UNION ALL
    SELECT 'indicators', m.symbol, m."interval", 0, m.day, m.output_digest, m.complete_through, 'indicators', ''
      FROM candles AS m
    UNION ALL
    SELECT 'signals', m.symbol, m."interval", v.id, m.day,
           CASE WHEN c.reads_indicators THEN m.output_digest || i.output_digest ELSE m.output_digest END,
           CASE WHEN c.reads_indicators THEN least(m.complete_through, i.complete_through) ELSE m.complete_through END,
           'signals', v.strategy_type
      FROM versions AS v
      JOIN candles AS m ON m.symbol = v.symbol AND m."interval" = v."interval" AND (v.end_day IS NULL OR m.day < v.end_day)
      JOIN code_versions AS c ON c.table_name = 'signals' AND c.strategy_type = v.strategy_type
      LEFT JOIN lineage AS i ON i.table_name = 'indicators' AND i.symbol = m.symbol AND i."interval" = m."interval"
                            AND i.strategy_id = 0 AND i.day = m.day
     WHERE i.day IS NOT NULL OR NOT c.reads_indicators
    UNION ALL
    -- a version that ended closes its lots at the first candle that opens on or after that day, without signals
    SELECT 'trade_history', '', '', v.id, m.day,
           m.output_digest || coalesce(s.output_digest, ''::bytea) || CASE WHEN v.uses_minutes THEN coalesce(
               (SELECT string_agg(n.output_digest, ''::bytea ORDER BY n.day) FROM candles AS n
                 WHERE n.symbol = v.symbol AND n."interval" = '1m' AND n.day <= m.day AND n.day >= CASE v."interval"
                       WHEN '3d' THEN m.day - 2 WHEN '1w' THEN m.day - 6
                       WHEN '1M' THEN date_trunc('month', m.day)::date ELSE m.day END), ''::bytea)
               ELSE ''::bytea END,
           least(m.complete_through, s.complete_through), 'ledger', ''
      FROM versions AS v
      CROSS JOIN LATERAL (
           SELECT min(c.day) AS closing_day FROM candles AS c
            WHERE c.symbol = v.symbol AND c."interval" = v."interval" AND c.rows > 0 AND v.end_day <= CASE v."interval"
                  WHEN '3d' THEN c.day - 2 WHEN '1w' THEN c.day - 6
                  WHEN '1M' THEN date_trunc('month', c.day)::date ELSE c.day END) AS closing
      JOIN candles AS m ON m.symbol = v.symbol AND m."interval" = v."interval" AND m.day >= v.effective_from
                       AND (closing_day IS NULL OR m.day <= closing_day)
      LEFT JOIN lineage AS s ON s.table_name = 'signals' AND s.symbol = m.symbol AND s."interval" = m."interval"
                            AND s.strategy_id = v.id AND s.day = m.day
     WHERE s.day IS NOT NULL OR m.day >= v.end_day
    UNION ALL
    SELECT t.table_name, '', '', h.strategy_id, h.day,
           h.input_digest || coalesce(h.state_in, ''::bytea) || h.output_digest, h.complete_through, NULL, ''
      FROM lineage AS h, (VALUES ('performance_metrics'), ('backtest_results')) AS t (table_name)
     WHERE h.table_name = 'trade_history'
),
compared AS (
    SELECT e.*, l.day IS NULL AS is_missing, d.day IS NOT NULL AS is_dirty,
           -- the day from which other windows hold starts from all candles before it, not from the day before
           e.inputs IS NOT NULL AND l.input_digest IS DISTINCT FROM e.inputs || CASE
               WHEN e.table_name = 'indicators' AND length(l.input_digest) > length(e.inputs) THEN substr(sha256(
                   (SELECT string_agg(c.output_digest, ''::bytea ORDER BY c.day) FROM candles AS c
                     WHERE c.symbol = e.symbol AND c."interval" = e."interval" AND c.day < e.day)), 1, 16)
               ELSE ''::bytea END AS inputs_differ,
           e.complete_through IS DISTINCT FROM l.complete_through AND e.complete_through IS NOT NULL AS has_grown,
           e.parameters_of IS NOT NULL AND coalesce(p.digest, ''::bytea) IS DISTINCT FROM l.parameters_digest
               AS parameters_differ,
           coalesce(c.code_version, l.code_version) IS DISTINCT FROM l.code_version AS code_differs,
           -- carried state: that of the day before, unless the windows changed in between
           e.table_name IN ('indicators', 'signals', 'trade_history')
               AND l.state_in IS DISTINCT FROM b.state_digest
               AND (b.day IS NULL OR b.parameters_digest = l.parameters_digest OR e.table_name <> 'indicators')
               AS state_differs
      FROM expected AS e
      LEFT JOIN lineage AS l ON (l.table_name, l.symbol, l."interval", l.strategy_id, l.day)
                              = (e.table_name, e.symbol, e."interval", e.strategy_id, e.day)
      LEFT JOIN lineage AS b ON (b.table_name, b.symbol, b."interval", b.strategy_id, b.day)
                              = (e.table_name, e.symbol, e."interval", e.strategy_id, e.day - 1)
      LEFT JOIN dirty_days AS d ON (d.table_name, d.symbol, d."interval", d.strategy_id, d.day)
                                 = (e.table_name, e.symbol, e."interval", e.strategy_id, e.day)
      LEFT JOIN parameter_periods AS p ON p.table_name = e.parameters_of AND p.strategy_id = e.strategy_id
                                      AND e.day >= p.valid_from AND e.day < p.valid_to
      LEFT JOIN code_versions AS c ON c.table_name = e.table_name AND c.strategy_type = e.code_of
)
SELECT table_name, symbol, "interval", strategy_id, day,
       concat_ws(', ', CASE WHEN is_missing THEN 'missing' END,
                 CASE WHEN is_dirty THEN 'changed by hand' END,
                 CASE WHEN NOT is_missing AND inputs_differ THEN 'data' END,
                 CASE WHEN NOT is_missing AND has_grown THEN 'more data' END,
                 CASE WHEN NOT is_missing AND parameters_differ THEN 'parameters' END,
                 CASE WHEN NOT is_missing AND code_differs THEN 'code' END,
                 CASE WHEN NOT is_missing AND state_differs THEN 'state' END) AS reason
  FROM compared
 WHERE is_missing OR is_dirty OR inputs_differ OR has_grown OR parameters_differ OR code_differs OR state_differs;
COMMENT ON VIEW stale_partitions IS
    'Partitions that no longer match what they were computed from, or are missing, with the reason.';

-- From a trade to the file: the candles that decided and filled its entry and exit, with the signal and indicators
-- there, and the source of each candle.
CREATE VIEW trade_trace AS
SELECT t.id AS trade_id, s.strategy_name, s.version AS strategy_version, t.symbol, t."interval", leg.step, leg.opened,
       c.id AS market_data_id, c.open, c.high, c.low, c.close, c.volume, g.signal, i.ema, i.rsi, i.atr, i.vwap,
       o.kind AS source_kind, o.name AS source_name, encode(o.sha256, 'hex') AS source_sha256, o.requested_at
  FROM trade_history AS t
  JOIN strategies AS s ON s.id = t.strategy_id
 CROSS JOIN LATERAL (VALUES
       (1, 'entry signal', t.entry_signal_time),
       (2, 'entry', t.entry_time),
       (3, 'exit signal', t.exit_signal_time),
       (4, 'exit', (SELECT max(x."timestamp") FROM market_data AS x
                     WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                       AND x."timestamp" <= t.exit_time AND x."timestamp" > t.exit_time - interval '32 days'))
       ) AS leg (number, step, opened)
  LEFT JOIN LATERAL (SELECT * FROM market_data AS x WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                        AND x."timestamp" = leg.opened) AS c ON true
  LEFT JOIN LATERAL (SELECT * FROM signals AS x WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                        AND x.strategy_id = t.strategy_id AND x."timestamp" = leg.opened) AS g ON true
  LEFT JOIN LATERAL (SELECT * FROM indicators AS x WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                        AND x."timestamp" = leg.opened) AS i ON true
  LEFT JOIN LATERAL (SELECT * FROM sources AS x WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                        AND x.day = candle_day(t.symbol, t."interval", leg.opened)
                        AND x.first_open <= leg.opened AND leg.opened < x.end_open LIMIT 1) AS o ON true
 WHERE leg.opened IS NOT NULL
 ORDER BY t.id, leg.number;
COMMENT ON VIEW trade_trace IS
    'Each trade with the candles, signals and indicators that decided and filled it, and the source of each candle.';

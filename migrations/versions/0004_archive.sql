-- Where archived months are, the function that drops a month, and the trace from trades to archived candles.
CREATE TABLE archived_files (
    month date NOT NULL,
    table_name varchar(40) COLLATE "C" NOT NULL,
    symbol varchar(20) COLLATE "C" NOT NULL,
    "interval" varchar(10) COLLATE "C" NOT NULL,
    strategy_id bigint NOT NULL,
    path text NOT NULL,
    rows integer NOT NULL,
    first_open timestamptz NOT NULL,
    last_open timestamptz NOT NULL,
    bytes bigint NOT NULL,
    sha256 bytea NOT NULL,
    content_sha256 bytea NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT now(),
    run_id varchar(40) NOT NULL,
    CONSTRAINT archived_files_pkey PRIMARY KEY (month, table_name, symbol, "interval", strategy_id)
);

-- The caller has locked the parents in their order and recorded the month's files in the same transaction.
CREATE FUNCTION drop_month(month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    suffix text := to_char(month, 'YYYY_MM');
    parent text;
BEGIN
    IF to_regclass('market_data_' || suffix) IS NULL THEN
        RETURN false;
    END IF;
    FOREACH parent IN ARRAY ARRAY['signals', 'indicators', 'market_data'] LOOP
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, parent || '_' || suffix);
        EXECUTE format('DROP TABLE %I', parent || '_' || suffix);
    END LOOP;
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION drop_month(date) FROM PUBLIC;
COMMENT ON FUNCTION drop_month(date) IS
    'Detaches and drops the partitions of a month of signals, indicators and market_data; false if there were none.';

-- The grid point of an interval at or before a time (schema/intervals.py: floor_open).
CREATE FUNCTION candle_open(symbol text, "interval" text, moment timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
    SELECT CASE
        WHEN $2 = '1M' THEN date_trunc('month', $3)
        WHEN $2 = '1w' THEN date_trunc('week', $3)
        ELSE date_bin(
            (left($2, -1) || CASE right($2, 1) WHEN 's' THEN ' seconds' WHEN 'm' THEN ' minutes' WHEN 'h' THEN ' hours'
                                               ELSE ' days' END)::interval,
            $3,
            CASE WHEN $2 = '3d' THEN coalesce((SELECT date_trunc('day', l.first_open) FROM listings AS l
                                                WHERE l.symbol = $1 AND l."interval" = $2),
                                              TIMESTAMPTZ '1970-01-01 00:00+00')
                 ELSE TIMESTAMPTZ '1970-01-01 00:00+00' END)
    END
$$;
COMMENT ON FUNCTION candle_open(text, text, timestamptz) IS
    'The open, on the grid of the interval, of the candle in which a time lies.';

-- As before, and of an archived candle the file it is in; its values are there.
CREATE OR REPLACE VIEW trade_trace AS
SELECT t.id AS trade_id, s.strategy_name, s.version AS strategy_version, t.symbol, t."interval", leg.step, leg.opened,
       c.id AS market_data_id, c.open, c.high, c.low, c.close, c.volume, g.signal, i.ema, i.rsi, i.atr, i.vwap,
       o.kind AS source_kind, o.name AS source_name, encode(o.sha256, 'hex') AS source_sha256, o.requested_at,
       a.path AS archive_file
  FROM trade_history AS t
  JOIN strategies AS s ON s.id = t.strategy_id
 CROSS JOIN LATERAL (SELECT candle_open(t.symbol, t."interval", t.exit_time) AS opened) AS closing
 CROSS JOIN LATERAL (VALUES
       (1, 'entry signal', t.entry_signal_time),
       (2, 'entry', t.entry_time),
       (3, 'exit signal', t.exit_signal_time),
       (4, 'exit', CASE
            WHEN EXISTS (SELECT FROM archived_files AS f
                          WHERE f.month = date_trunc('month', closing.opened AT TIME ZONE 'UTC')::date
                            AND f.table_name = 'market_data' AND f.symbol = t.symbol AND f."interval" = t."interval")
            THEN closing.opened
            ELSE (SELECT max(x."timestamp") FROM market_data AS x
                   WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                     AND x."timestamp" <= t.exit_time AND x."timestamp" > t.exit_time - interval '32 days') END)
       ) AS leg (number, step, opened)
  LEFT JOIN LATERAL (SELECT * FROM market_data AS x WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                        AND x."timestamp" = leg.opened) AS c ON true
  LEFT JOIN LATERAL (SELECT * FROM signals AS x WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                        AND x.strategy_id = t.strategy_id AND x."timestamp" = leg.opened) AS g ON true
  LEFT JOIN LATERAL (SELECT * FROM indicators AS x WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                        AND x."timestamp" = leg.opened) AS i ON true
  LEFT JOIN LATERAL (SELECT kind, name, sha256, requested_at FROM sources AS x WHERE x.symbol = t.symbol AND x."interval" = t."interval"
                        AND x.day = candle_day(t.symbol, t."interval", leg.opened)
                        AND x.first_open <= leg.opened AND leg.opened < x.end_open LIMIT 1) AS o ON true
  LEFT JOIN archived_files AS a
         ON a.month = date_trunc('month', leg.opened AT TIME ZONE 'UTC')::date AND a.table_name = 'market_data'
        AND a.symbol = t.symbol AND a."interval" = t."interval"
 WHERE leg.opened IS NOT NULL
 ORDER BY t.id, leg.number;
COMMENT ON VIEW trade_trace IS
    'Each trade with the candles, signals and indicators that decided and filled it, the source of each candle, and '
    'the file it is in where it has been archived.';

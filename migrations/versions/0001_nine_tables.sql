-- The nine tables and the platform's own records as of revision 0001.
-- Comments are not here: they are set from the metadata after every migration.

CREATE TABLE code_versions (
    table_name VARCHAR(40) COLLATE "C" NOT NULL,
    strategy_type VARCHAR(255) NOT NULL,
    code_version VARCHAR(40) NOT NULL,
    CONSTRAINT code_versions_pkey PRIMARY KEY (table_name, strategy_type)
);

CREATE TABLE configurations (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    config_name VARCHAR(255) NOT NULL,
    config_value TEXT NOT NULL,
    version INTEGER DEFAULT 1 NOT NULL,
    effective_from DATE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT configurations_pkey PRIMARY KEY (id),
    CONSTRAINT configurations_natural_key UNIQUE (config_name, version) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX configurations_effective_from_idx ON configurations (effective_from);

CREATE TABLE dirty_days (
    table_name VARCHAR(40) COLLATE "C" NOT NULL,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    strategy_id BIGINT NOT NULL,
    day DATE NOT NULL,
    marked_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT dirty_days_pkey PRIMARY KEY (table_name, symbol, interval, strategy_id, day)
);

CREATE TABLE exchange (
    only_row BOOLEAN NOT NULL CONSTRAINT exchange_only_row_check CHECK (only_row),
    name VARCHAR(20) NOT NULL,
    CONSTRAINT exchange_pkey PRIMARY KEY (only_row)
);

CREATE TABLE gaps (
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    first_open TIMESTAMP WITH TIME ZONE NOT NULL,
    end_open TIMESTAMP WITH TIME ZONE NOT NULL,
    reason VARCHAR(20) NOT NULL,
    evidence TEXT NOT NULL,
    confirmed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT gaps_pkey PRIMARY KEY (symbol, interval, first_open)
);

CREATE TABLE indicators (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    market_data_id BIGINT NOT NULL,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    ema DOUBLE PRECISION,
    rsi DOUBLE PRECISION,
    atr DOUBLE PRECISION,
    vwap DOUBLE PRECISION,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT indicators_pkey PRIMARY KEY (id, timestamp),
    CONSTRAINT indicators_natural_key UNIQUE (symbol, interval, timestamp)
)
 PARTITION BY RANGE ("timestamp");

CREATE TABLE lineage (
    table_name VARCHAR(40) COLLATE "C" NOT NULL,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    strategy_id BIGINT NOT NULL,
    day DATE NOT NULL,
    rows INTEGER NOT NULL,
    input_digest BYTEA NOT NULL,
    parameters_digest BYTEA NOT NULL,
    code_version VARCHAR(40) NOT NULL,
    state_in BYTEA,
    state_out DOUBLE PRECISION[],
    state_digest BYTEA,
    output_digest BYTEA NOT NULL,
    complete_through TIMESTAMP WITH TIME ZONE NOT NULL,
    run_id VARCHAR(40) NOT NULL,
    written_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT lineage_pkey PRIMARY KEY (table_name, symbol, interval, strategy_id, day)
);

CREATE TABLE listings (
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    first_open TIMESTAMP WITH TIME ZONE NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT listings_pkey PRIMARY KEY (symbol, interval)
);

CREATE TABLE market_data (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    open NUMERIC(20, 8) NOT NULL,
    high NUMERIC(20, 8) NOT NULL,
    low NUMERIC(20, 8) NOT NULL,
    close NUMERIC(20, 8) NOT NULL,
    volume NUMERIC(28, 8) NOT NULL,
    close_time TIMESTAMP WITH TIME ZONE NOT NULL,
    quote_asset_volume NUMERIC(28, 8) NOT NULL,
    trades INTEGER NOT NULL,
    taker_buy_base NUMERIC(28, 8) NOT NULL,
    taker_buy_quote NUMERIC(28, 8) NOT NULL,
    ignored NUMERIC(28, 8) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT market_data_pkey PRIMARY KEY (id, timestamp),
    CONSTRAINT market_data_natural_key UNIQUE (symbol, interval, timestamp)
)
 PARTITION BY RANGE ("timestamp");

CREATE TABLE sources (
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    day DATE NOT NULL,
    first_open TIMESTAMP WITH TIME ZONE NOT NULL,
    end_open TIMESTAMP WITH TIME ZONE NOT NULL,
    kind VARCHAR(20) NOT NULL,
    name TEXT NOT NULL,
    sha256 BYTEA,
    requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT sources_pkey PRIMARY KEY (symbol, interval, day, first_open)
);

CREATE TABLE strategies (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    strategy_name VARCHAR(255) NOT NULL,
    strategy_type VARCHAR(255) NOT NULL,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    initial_balance NUMERIC(20, 8) NOT NULL,
    risk_per_trade NUMERIC(20, 8) NOT NULL,
    version INTEGER DEFAULT 1 NOT NULL,
    parameters JSONB NOT NULL,
    effective_from DATE NOT NULL,
    effective_to DATE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT strategies_pkey PRIMARY KEY (id),
    CONSTRAINT strategies_natural_key UNIQUE (strategy_name, effective_from)
);
CREATE INDEX strategies_effective_from_idx ON strategies (effective_from);

CREATE TABLE symbol_rules (
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    effective_from DATE NOT NULL,
    status VARCHAR(20) NOT NULL,
    tick_size NUMERIC(20, 8),
    step_size NUMERIC(20, 8),
    min_notional NUMERIC(20, 8),
    CONSTRAINT symbol_rules_pkey PRIMARY KEY (symbol, effective_from)
);

CREATE TABLE backtest_results (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    strategy_id BIGINT NOT NULL,
    day DATE NOT NULL,
    start_date TIMESTAMP WITH TIME ZONE NOT NULL,
    end_date TIMESTAMP WITH TIME ZONE NOT NULL,
    initial_capital NUMERIC(20, 8) NOT NULL,
    final_capital NUMERIC(20, 8) NOT NULL,
    total_return NUMERIC(20, 8),
    annual_return NUMERIC(20, 8),
    max_drawdown NUMERIC(20, 8),
    sharpe_ratio NUMERIC(20, 8),
    win_rate NUMERIC(20, 8),
    avg_profit_pct NUMERIC(20, 8),
    risk_reward_ratio NUMERIC(20, 8),
    profit_factor NUMERIC(20, 8),
    total_trades INTEGER NOT NULL,
    winning_trades INTEGER NOT NULL,
    losing_trades INTEGER NOT NULL,
    open_trades INTEGER NOT NULL,
    open_profit NUMERIC(20, 8) NOT NULL,
    ambiguous_stops INTEGER NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT backtest_results_pkey PRIMARY KEY (id),
    CONSTRAINT backtest_results_natural_key UNIQUE (strategy_id, day),
    CONSTRAINT backtest_results_strategy_id_fkey FOREIGN KEY(strategy_id) REFERENCES strategies (id)
);

CREATE TABLE risk_parameters (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    strategy_id BIGINT NOT NULL,
    max_risk_per_trade NUMERIC(20, 8) NOT NULL,
    max_open_trades INTEGER NOT NULL,
    stop_loss_percentage NUMERIC(20, 8) NOT NULL,
    take_profit_percentage NUMERIC(20, 8) NOT NULL,
    version INTEGER DEFAULT 1 NOT NULL,
    effective_from DATE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT risk_parameters_pkey PRIMARY KEY (id),
    CONSTRAINT risk_parameters_natural_key UNIQUE (strategy_id, version) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT risk_parameters_strategy_id_fkey FOREIGN KEY(strategy_id) REFERENCES strategies (id)
);
CREATE INDEX risk_parameters_effective_from_idx ON risk_parameters (effective_from);

CREATE TABLE signals (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    market_data_id BIGINT NOT NULL,
    strategy_id BIGINT NOT NULL,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    signal INTEGER NOT NULL CONSTRAINT signals_signal_check CHECK (signal IN (-1, 0, 1)),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT signals_pkey PRIMARY KEY (id, timestamp),
    CONSTRAINT signals_natural_key UNIQUE (symbol, interval, strategy_id, timestamp),
    CONSTRAINT signals_strategy_id_fkey FOREIGN KEY(strategy_id) REFERENCES strategies (id)
)
 PARTITION BY RANGE ("timestamp");

CREATE TABLE trade_history (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    strategy_id BIGINT NOT NULL,
    day DATE NOT NULL,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    entry_time TIMESTAMP WITH TIME ZONE NOT NULL,
    exit_time TIMESTAMP WITH TIME ZONE NOT NULL,
    position_type VARCHAR(10) NOT NULL,
    entry_price NUMERIC(20, 8) NOT NULL,
    exit_price NUMERIC(20, 8) NOT NULL,
    profit_pct NUMERIC(20, 8) NOT NULL,
    duration NUMERIC(20, 8) NOT NULL,
    commission_fee NUMERIC(20, 8) NOT NULL,
    entry_signal_time TIMESTAMP WITH TIME ZONE NOT NULL,
    exit_signal_time TIMESTAMP WITH TIME ZONE,
    quantity NUMERIC(28, 8) NOT NULL,
    gross_profit NUMERIC(20, 8) NOT NULL,
    net_profit NUMERIC(20, 8) NOT NULL,
    slippage_cost NUMERIC(20, 8) NOT NULL,
    exit_reason VARCHAR(20) NOT NULL,
    ambiguous BOOLEAN NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT trade_history_pkey PRIMARY KEY (id),
    CONSTRAINT trade_history_natural_key UNIQUE (strategy_id, entry_time),
    CONSTRAINT trade_history_strategy_id_fkey FOREIGN KEY(strategy_id) REFERENCES strategies (id)
);
CREATE INDEX trade_history_strategy_id_day_idx ON trade_history (strategy_id, day);
CREATE INDEX trade_history_strategy_id_entry_time_exit_time_idx ON trade_history (strategy_id, entry_time, exit_time);

CREATE TABLE performance_metrics (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    trade_id BIGINT NOT NULL,
    day DATE NOT NULL,
    initial_capital NUMERIC(20, 8) NOT NULL,
    final_capital NUMERIC(20, 8) NOT NULL,
    total_return NUMERIC(20, 8),
    annual_return NUMERIC(20, 8),
    max_drawdown NUMERIC(20, 8),
    sharpe_ratio NUMERIC(20, 8),
    win_rate NUMERIC(20, 8),
    avg_profit_pct NUMERIC(20, 8),
    risk_reward_ratio NUMERIC(20, 8),
    profit_factor NUMERIC(20, 8),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT performance_metrics_pkey PRIMARY KEY (id),
    CONSTRAINT performance_metrics_natural_key UNIQUE (trade_id),
    CONSTRAINT performance_metrics_trade_id_fkey FOREIGN KEY(trade_id) REFERENCES trade_history (id) ON DELETE CASCADE
);
CREATE INDEX performance_metrics_day_idx ON performance_metrics (day);

-- Makes the leaves of a month with their references: leaf to leaf, because a reference between the parents costs
-- nine times the insert and forbids detaching a month. Attached after the fact, because creating a leaf in place
-- would lock out readers of the parent.
CREATE FUNCTION ensure_month(month date) RETURNS boolean
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
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION ensure_month(date) IS
    'Makes the partitions of a month of market_data, indicators and signals; false if they were there.';

-- Digest of the settings in force, per table, strategy and period; partitions record it and are stale when it
-- differs. One definition for the writer and for the staleness view. strategy_id 0 stands for all markets.
CREATE VIEW parameter_periods AS
WITH indicator_settings AS (
    SELECT start.day AS valid_from,
           (SELECT string_agg(config_name || '=' || config_value, E'\n' ORDER BY config_name)
              FROM (SELECT DISTINCT ON (config_name) config_name, config_value FROM configurations
                     WHERE config_name LIKE 'indicators.%' AND effective_from <= start.day
                     ORDER BY config_name, effective_from DESC) AS in_force) AS content
      FROM (SELECT DISTINCT effective_from AS day FROM configurations WHERE config_name LIKE 'indicators.%') AS start
),
versions AS (
    SELECT s.*,
           least(s.effective_to, lead(s.effective_from) OVER (PARTITION BY strategy_name ORDER BY effective_from))
               AS end_day
      FROM strategies AS s
),
ledger_starts AS (
    SELECT v.id AS strategy_id, v.effective_from AS day FROM versions AS v
    UNION SELECT v.id, v.end_day FROM versions AS v WHERE v.end_day IS NOT NULL
    UNION SELECT r.strategy_id, r.effective_from FROM risk_parameters AS r
    UNION SELECT v.id, c.effective_from FROM versions AS v, configurations AS c WHERE c.config_name LIKE 'ledger.%'
    UNION SELECT v.id, y.effective_from FROM versions AS v JOIN symbol_rules AS y USING (symbol)
),
ledger_settings AS (
    SELECT start.strategy_id, start.day AS valid_from,
           concat_ws(E'\n', v.strategy_type, v.symbol, v."interval", v.initial_balance, v.risk_per_trade,
               v.parameters, v.effective_from, CASE WHEN start.day >= v.end_day THEN 'ended ' || v.end_day END,
               (SELECT concat_ws(',', 'risk', r.max_risk_per_trade, r.max_open_trades, r.stop_loss_percentage,
                                 r.take_profit_percentage)
                  FROM risk_parameters AS r WHERE r.strategy_id = v.id AND r.effective_from <= start.day
                 ORDER BY r.effective_from DESC LIMIT 1),
               (SELECT string_agg(config_name || '=' || config_value, ',' ORDER BY config_name)
                  FROM (SELECT DISTINCT ON (config_name) config_name, config_value FROM configurations
                         WHERE config_name LIKE 'ledger.%' AND effective_from <= start.day
                         ORDER BY config_name, effective_from DESC) AS in_force),
               (SELECT concat_ws(',', 'rules', y.tick_size, y.step_size, y.min_notional)
                  FROM symbol_rules AS y WHERE y.symbol = v.symbol
                 ORDER BY y.effective_from <= start.day DESC,
                          CASE WHEN y.effective_from <= start.day THEN y.effective_from END DESC,
                          y.effective_from LIMIT 1)) AS content
      FROM ledger_starts AS start JOIN versions AS v ON v.id = start.strategy_id
),
contents AS (
    SELECT 'indicators'::text AS table_name, 0::bigint AS strategy_id, valid_from, content FROM indicator_settings
    UNION ALL
    SELECT 'signals', id, '-infinity'::date, concat_ws(E'\n', strategy_type, parameters) FROM strategies
    UNION ALL
    SELECT 'ledger', strategy_id, valid_from, content FROM ledger_settings
)
SELECT table_name, strategy_id, valid_from,
       coalesce(lead(valid_from) OVER (PARTITION BY table_name, strategy_id ORDER BY valid_from), 'infinity'::date)
           AS valid_to,
       substr(sha256(convert_to(content, 'UTF8')), 1, 16) AS digest
  FROM contents;
COMMENT ON VIEW parameter_periods IS
    'Digest of the settings in force for indicators, signals and the ledger, per strategy and period [valid_from, valid_to).';

-- Parameter sweeps and walk-forwards as of revision 0006. Comments are set from the metadata after every migration.

CREATE TABLE sweeps (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    strategy_type VARCHAR(255) NOT NULL,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    first_day DATE NOT NULL,
    last_day DATE NOT NULL,
    grid JSONB NOT NULL,
    settings JSONB NOT NULL,
    combinations INTEGER NOT NULL,
    key BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT sweeps_pkey PRIMARY KEY (id),
    CONSTRAINT sweeps_natural_key UNIQUE (key)
);

CREATE TABLE sweep_results (
    sweep_id BIGINT NOT NULL,
    combination INTEGER NOT NULL,
    parameters JSONB NOT NULL,
    risk JSONB NOT NULL,
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
    CONSTRAINT sweep_results_pkey PRIMARY KEY (sweep_id, combination),
    CONSTRAINT sweep_results_sweep_id_fkey FOREIGN KEY(sweep_id) REFERENCES sweeps (id) ON DELETE CASCADE
);

CREATE TABLE walk_forwards (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    strategy_type VARCHAR(255) NOT NULL,
    symbol VARCHAR(20) COLLATE "C" NOT NULL,
    interval VARCHAR(10) COLLATE "C" NOT NULL,
    first_day DATE NOT NULL,
    last_day DATE NOT NULL,
    grid JSONB NOT NULL,
    settings JSONB NOT NULL,
    combinations INTEGER NOT NULL,
    key BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    metric VARCHAR(40) NOT NULL,
    train_days INTEGER NOT NULL,
    test_days INTEGER NOT NULL,
    anchored BOOLEAN NOT NULL,
    deflated_sharpe NUMERIC(20, 8),
    CONSTRAINT walk_forwards_pkey PRIMARY KEY (id),
    CONSTRAINT walk_forwards_natural_key UNIQUE (key)
);

CREATE TABLE walk_forward_windows (
    walk_forward_id BIGINT NOT NULL,
    number INTEGER NOT NULL,
    train_first DATE,
    train_end DATE,
    test_first DATE NOT NULL,
    test_end DATE NOT NULL,
    combination INTEGER,
    parameters JSONB,
    risk JSONB,
    train_metric NUMERIC(20, 8),
    train_deflated_sharpe NUMERIC(20, 8),
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
    CONSTRAINT walk_forward_windows_pkey PRIMARY KEY (walk_forward_id, number),
    CONSTRAINT walk_forward_windows_walk_forward_id_fkey FOREIGN KEY(walk_forward_id) REFERENCES walk_forwards (id) ON DELETE CASCADE
);

CREATE TABLE walk_forward_equity (
    walk_forward_id BIGINT NOT NULL,
    day DATE NOT NULL,
    number INTEGER NOT NULL,
    equity NUMERIC(20, 8) NOT NULL,
    CONSTRAINT walk_forward_equity_pkey PRIMARY KEY (walk_forward_id, day),
    CONSTRAINT walk_forward_equity_walk_forward_id_fkey FOREIGN KEY(walk_forward_id) REFERENCES walk_forwards (id) ON DELETE CASCADE
);

"""Asset checks: invariants of the stored tables, checked after every run for the run's days.

Dagster loads ``CHECKS``. The module of each table reads the data for the rules (``audit/rules``, pure functions on
frames) and collects their messages; ``factory`` turns it into asset checks.
"""

from __future__ import annotations

from algobot_assets.defs.checks import candle_age, candles, indicators, results, signals, trades

#: One multi-check per table, and the age of the newest candles.
CHECKS = (
    candles.checks,
    candle_age.check,
    indicators.checks,
    signals.checks,
    trades.checks,
    results.metrics,
    results.backtests,
)

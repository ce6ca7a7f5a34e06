"""Asset checks: what must hold of the stored tables, looked at after every run, within the run's days only.

``CHECKS`` is what Dagster loads. ``rules_*`` say what is right, as pure functions on frames; the module of each table
reads what they need and hands over their sentences; ``base`` is what all have in common.
"""

from __future__ import annotations

from algobot_assets.defs.checks import candles, indicators, newest, results, signals, trades

#: One multi-check per table, and the age of the newest candles.
CHECKS = (
    candles.checks,
    newest.check,
    indicators.checks,
    signals.checks,
    trades.checks,
    results.metrics,
    results.backtests,
)

"""Warn of what a reader must know before believing a result: small samples, assumptions, doubtful data.

Every warning states its rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from algobot_assets.compute.ledger.unfilled import TOO_SMALL, describe_unfilled
from algobot_assets.compute.metrics.performance import MIN_DAYS
from algobot_assets.reports.facts import Facts

#: Closed trades below which averages over trades mean little.
LEAST_TRADES = 30
#: Days of a year.
YEAR = 365
#: Standard errors that a Sharpe ratio must differ from zero by.
STANDARD_ERRORS = 2.0
#: Share of ambiguous stops above which the order of prices within candles matters.
AMBIGUOUS_SHARE = 0.05


@dataclass(frozen=True)
class PageWarning:
    """One warning. `kind`: "sample" (too little to tell), "data" (doubtful input) or "model" (assumptions)."""

    kind: str
    title: str
    text: str


def warnings_of(facts: Facts) -> list[PageWarning]:
    """Return the warnings of a version, gravest first."""
    found: list[PageWarning] = []
    if facts.exchange == "simulated":
        text = "The candles come from the simulated exchange. No real market traded like this."
        found.append(PageWarning("data", "Simulated prices", text))
    last = facts.last
    if last is None:
        first = facts.item.effective_from
        text = f"This version has no backtest. Run `algobot backfill {first} LAST`."
        return [*found, PageWarning("sample", "Nothing computed yet", text)]
    found += _sample(facts, last)
    if facts.stale:
        text = (
            f"{facts.stale:,} partitions behind this page are stale: their inputs have changed. Run `algobot refresh`."
        )
        found.append(PageWarning("data", "Not up to date", text))
    if facts.market.missing:
        text = f"{len(facts.market.missing):,} days lack candles that are not confirmed to be absent; see Data quality."
        found.append(PageWarning("data", "Missing candles", text))
    trades = last["total_trades"]
    if trades and last["ambiguous_stops"] / trades > AMBIGUOUS_SHARE:
        text = (f"In {last['ambiguous_stops']:,} of {trades:,} trades one candle reached stop and target; the stop was "
                f"taken (rule: more than {AMBIGUOUS_SHARE:.0%}). Set stop_path: 1m to decide by minutes.")  # fmt: skip
        found.append(PageWarning("model", "Many ambiguous stops", text))
    too_small = {reason: (facts.unfilled or {}).get(reason, 0) for reason in TOO_SMALL}
    if any(too_small.values()):
        text = f"{describe_unfilled(too_small)} The account is too small for this market or these risk parameters."
        found.append(PageWarning("model", "Orders too small", text))
    if facts.assumptions:
        texts = "; ".join(assumption.text for assumption in facts.assumptions)
        found.append(PageWarning("model", "Favourable assumptions", f"{texts[0].upper()}{texts[1:]}."))
    if facts.rules_from is not None and facts.rules_from > facts.item.effective_from:
        text = f"Steps and minimum notional were first seen on {facts.rules_from}; earlier days use the same."
        found.append(PageWarning("model", "Order rules assumed", text))
    return found


def _sample(facts: Facts, last: dict[str, Any]) -> list[PageWarning]:
    days = (last["end_date"] - last["start_date"]).total_seconds() / 86_400
    trades, sharpe = last["total_trades"], last["sharpe_ratio"]
    found = []
    if trades < LEAST_TRADES:
        text = (f"{trades} closed trades (rule: fewer than {LEAST_TRADES}). Win rate, profit factor and average profit "
                "of so few say little about the next ones.")  # fmt: skip
        found.append(PageWarning("sample", "Too few trades", text))
    if days < MIN_DAYS:
        text = f"{days:.1f} days (rule: fewer than {MIN_DAYS:.0f}). Annual return and Sharpe ratio are left undefined."
        found.append(PageWarning("sample", "Too short for yearly figures", text))
    elif days < YEAR:
        text = f"{days:.0f} days (rule: fewer than {YEAR}). The strategy has not seen a whole year."
        found.append(PageWarning("sample", "Less than a year", text))
    if sharpe is not None:
        distance = float(sharpe) * math.sqrt(days / YEAR)
        if abs(distance) < STANDARD_ERRORS:
            text = (f"Sharpe ratio {float(sharpe):.2f} over {days / YEAR:.1f} years is {abs(distance):.1f} standard "
                    f"errors from zero (rule: fewer than {STANDARD_ERRORS:.0f}; ratio × square root of years). Luck "
                    "alone could explain it.")  # fmt: skip
            found.append(PageWarning("sample", "Cannot be told from luck", text))
    best = facts.trades["net_profit"].cast(float).sort(descending=True)
    total = best.sum()
    if trades >= LEAST_TRADES and total > 0 and best.head(5).sum() > total:
        text = (f"Without its five best of {trades:,} trades the strategy would have lost money (rule: they earned "
                "more than all trades together).")  # fmt: skip
        found.append(PageWarning("sample", "A few trades carry the result", text))
    tried = max((sweep["computed"] for sweep in facts.sweeps), default=0)
    if tried > 1:
        text = (f"Up to {tried:,} parameter combinations were tried on this market (rule: more than one). The best of "
                "many looks good by luck alone; see Sweeps.")  # fmt: skip
        found.append(PageWarning("sample", "Chosen among many", text))
    return found

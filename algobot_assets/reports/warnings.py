"""What a reader has to know before believing a result: too small a sample, assumptions, doubts about the data.

Every sentence names the rule by which it is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from algobot_assets.compute.ledger.unfilled import TOO_SMALL, describe_unfilled
from algobot_assets.compute.metrics.performance import MIN_DAYS
from algobot_assets.reports.facts import Facts

#: Below so many closed trades, means and shares of trades are given with a warning.
LEAST_TRADES = 30
#: Below so many days a result has not seen a year.
YEAR = 365
#: A Sharpe ratio is told from zero where it is so many standard errors away from it.
STANDARD_ERRORS = 2.0
#: Above this share of trades in which stop and target lay in one candle, the order within candles matters.
AMBIGUOUS_SHARE = 0.05


@dataclass(frozen=True)
class Warning:
    """`kind`: "sample" (too little to tell), "data" (doubts about what went in) or "model" (what is assumed)."""

    kind: str
    title: str
    text: str


def warnings_of(facts: Facts) -> list[Warning]:
    """All that hold, gravest first."""
    found: list[Warning] = []
    if facts.exchange == "simulated":
        text = "The candles come from the simulated exchange. No market ever did this."
        found.append(Warning("data", "Simulated prices", text))
    last = facts.last
    if last is None:
        first = facts.item.effective_from
        text = f"backtest_results has no row of this version. Run `algobot backfill {first}` up to the day you want."
        return [*found, Warning("sample", "Nothing computed yet", text)]
    found += _sample(facts)
    if facts.stale:
        text = (f"{facts.stale:,} of the partitions behind this page are stale: what they were computed from has "
                "changed since. Run `algobot refresh`.")  # fmt: skip
        found.append(Warning("data", "Not up to date", text))
    if facts.market.holes:
        text = f"{len(facts.market.holes):,} days lack candles that nobody confirmed to be absent; see Data quality."
        found.append(Warning("data", "Missing candles", text))
    trades = last["total_trades"]
    if trades and last["ambiguous_stops"] / trades > AMBIGUOUS_SHARE:
        text = (f"In {last['ambiguous_stops']:,} of {trades:,} trades stop and target lay in one candle, and the stop "
                f"was assumed (rule: more than {AMBIGUOUS_SHARE:.0%}). With stop_path: 1m minutes tell.")  # fmt: skip
        found.append(Warning("model", "Many ambiguous stops", text))
    too_small = {reason: (facts.unfilled or {}).get(reason, 0) for reason in TOO_SMALL}
    if any(too_small.values()):
        text = f"{describe_unfilled(too_small)} The account is too small for this market or these risk parameters."
        found.append(Warning("model", "Orders too small", text))
    if facts.item.symbol.endswith(".UM"):
        found.append(Warning("model", "Futures", "Funding and liquidation are not modelled."))
    if facts.rules_from is None or facts.rules_from > facts.item.effective_from:
        text = "None are stored of this symbol: quantities have up to eight decimals, and no order is too small."
        if facts.rules_from is not None:
            text = f"Steps and smallest order were first seen on {facts.rules_from}, and are assumed before."
        found.append(Warning("model", "Order rules assumed", text))
    return found


def _sample(facts: Facts) -> list[Warning]:
    last = facts.last
    days = (last["end_date"] - last["start_date"]).total_seconds() / 86_400
    trades, sharpe = last["total_trades"], last["sharpe_ratio"]
    found = []
    if trades < LEAST_TRADES:
        text = (f"{trades} closed trades (rule: fewer than {LEAST_TRADES}). Win rate, profit factor and mean profit of "
                "so few say little about the next ones.")  # fmt: skip
        found.append(Warning("sample", "Too few trades", text))
    if days < MIN_DAYS:
        text = f"{days:.1f} days (rule: fewer than {MIN_DAYS:.0f}). No annual return and no Sharpe ratio are given."
        found.append(Warning("sample", "Too short for yearly figures", text))
    elif days < YEAR:
        text = f"{days:.0f} days (rule: fewer than {YEAR}). The strategy has not seen a whole year."
        found.append(Warning("sample", "Less than a year", text))
    if sharpe is not None:
        distance = float(sharpe) * math.sqrt(days / YEAR)
        if abs(distance) < STANDARD_ERRORS:
            text = (f"Sharpe ratio {float(sharpe):.2f} over {days / YEAR:.1f} years is {abs(distance):.1f} standard "
                    f"errors from zero (rule: fewer than {STANDARD_ERRORS:.0f}; ratio x square root of years). Luck "
                    "alone could explain it.")  # fmt: skip
            found.append(Warning("sample", "Cannot be told from luck", text))
    best = facts.trades["net_profit"].cast(float).sort(descending=True)
    total = best.sum()
    if trades >= LEAST_TRADES and total > 0 and best.head(5).sum() > total:
        text = (f"Without its five best trades of {trades:,} the strategy would have lost (rule: they earned more than "
                "all together).")  # fmt: skip
        found.append(Warning("sample", "A few trades carry the result", text))
    tried = max((sweep["computed"] for sweep in facts.sweeps), default=0)
    if tried > 1:
        text = (f"Up to {tried:,} parameter combinations were tried on this market (rule: more than one). The best of "
                "many looks good by luck alone; see Sweeps.")  # fmt: skip
        found.append(Warning("sample", "Chosen among many", text))
    return found

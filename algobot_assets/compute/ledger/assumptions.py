"""Name the assumptions of a simulated ledger that make its results better than trading would be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from algobot_assets.compute.ledger.terms import CostTerms, RuleTerms

USUAL_COMMISSION = {"spot": Decimal("0.001"), "futures": Decimal("0.0005")}
"""Binance's commission for takers without discounts, a fraction of the notional."""
_NAMED = 3


@dataclass(frozen=True, order=True)
class Assumption:
    """One favourable assumption: `name` for scripts, `text` for people."""

    name: str
    text: str


def favourable_assumptions(
    symbol: str, costs: CostTerms, rules: RuleTerms, *, shorting: bool
) -> tuple[Assumption, ...]:
    """Return the assumptions in force that flatter the results of a strategy on `symbol`.

    A stop and a target in one candle are not among them: the stop is assumed, the worse of the two.

    >>> costs, rules = CostTerms(commission_rate="0.0005", slippage_bps=2), RuleTerms(min_notional=5)
    >>> [found.name for found in favourable_assumptions("BTCUSDT.UM", costs, rules, shorting=True)]
    ['no_funding']
    """
    futures = symbol.endswith(".UM")
    usual = USUAL_COMMISSION["futures" if futures else "spot"]
    commission = Decimal(str(costs.commission_rate))
    found = []
    if not Decimal(str(costs.slippage_bps)):
        text = "orders fill at the next open without slippage or spread (ledger.slippage_bps 0)"
        found.append(Assumption("no_slippage", text))
    if not commission:
        found.append(Assumption("no_commission", "no commission (ledger.commission_rate 0)"))
    elif commission < usual:
        text = f"commission {_percent(commission)}, below Binance's usual {_percent(usual)}"
        found.append(Assumption("low_commission", text))
    if futures and "_" not in symbol:
        found.append(Assumption("no_funding", "perpetual without funding or liquidation"))
    if shorting and not futures:
        found.append(Assumption("no_borrowing_cost", "spot shorts without interest"))
    if rules == RuleTerms():
        text = "no order is too small, as no order rules of the symbol are stored"
        found.append(Assumption("no_order_rules", text))
    return tuple(found)


def describe_assumptions(assumptions: Iterable[Assumption]) -> str:
    """Return one line that names the assumptions, empty if there are none."""
    texts = [assumption.text for assumption in assumptions]
    return f"Favourable assumptions: {'; '.join(texts)}." if texts else ""


def describe_by_strategy(assumptions: Mapping[str, Sequence[Assumption]]) -> str:
    """Return one line for several strategies, which names those concerned unless all are.

    >>> no_slippage, no_funding = Assumption("no_slippage", "no slippage"), Assumption("no_funding", "no funding")
    >>> describe_by_strategy({"a": [no_slippage, no_funding], "b": [no_slippage]})
    'Favourable assumptions: no slippage; no funding (a).'
    """
    concerned: dict[Assumption, list[str]] = {}
    for strategy, found in assumptions.items():
        for assumption in found:
            concerned.setdefault(assumption, []).append(strategy)
    shown = []
    for assumption, names in concerned.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        of = "" if len(names) == len(assumptions) else f" ({', '.join(names[:_NAMED])}{more})"
        shown.append(Assumption(assumption.name, assumption.text + of))
    return describe_assumptions(shown)


def _percent(fraction: Decimal) -> str:
    return f"{(100 * fraction).normalize():f} %"

"""The known configurations: name, type, default, bounds and meaning of each setting of the computations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from algobot_assets.declared.rules import Refusal, check_day, check_number, check_whole, plain


@dataclass(frozen=True, slots=True)
class Setting:
    """A known configuration: its default (whose type is the value's), its bounds or choices, its meaning."""

    default: int | Decimal | str
    meaning: str
    low: int | Decimal = 0
    high: int | Decimal = 0
    choices: tuple[str, ...] = ()

    def check(self, value: Any) -> None:
        """Raise Refusal unless ``value`` has the type of the default and lies within the bounds or choices."""
        match self.default:
            case int():
                check_whole("value", value, int(self.low), int(self.high))
            case Decimal():
                rule = f"write a number from {self.low} to {self.high} ({self.meaning})"
                check_number("value", value, Decimal(self.low), Decimal(self.high), rule)
            case _ if value not in self.choices:
                raise Refusal(("value",), f"value is {value!r:.40}; write one of {', '.join(self.choices)}")

    def parse(self, text: str) -> int | Decimal | str:
        """Return the value behind a text of configurations.config_value."""
        return type(self.default)(text)


#: Every configuration there is. One that is not declared takes its default.
CONFIGURATIONS: dict[str, Setting] = {
    "indicators.ema_window": Setting(14, "candles of the exponential moving average", 2, 10_000),
    "indicators.rsi_window": Setting(14, "candles of the relative strength index", 2, 10_000),
    "indicators.atr_window": Setting(14, "candles of the average true range", 2, 10_000),
    "indicators.vwap_mode": Setting(
        "auto",
        "session: from 00:00 UTC; rolling: over the window; auto: session below 1d, rolling from 1d on",
        choices=("session", "rolling", "auto"),
    ),
    "indicators.vwap_window": Setting(14, "candles of the rolling volume-weighted average price", 2, 10_000),
    "ledger.commission_rate": Setting(
        Decimal("0.001"),
        "commission per side as a fraction of the notional, 0.001 means 0.1 %",
        0,
        Decimal("0.1"),
    ),
    "ledger.slippage_bps": Setting(Decimal(0), "slippage per side in basis points of the notional", 0, 1000),
}


@dataclass(frozen=True, slots=True)
class Configuration:
    """A setting of the computations from effective_from on; ``name`` is one of CONFIGURATIONS."""

    name: str
    value: int | Decimal | str
    effective_from: date

    def __post_init__(self) -> None:
        if self.name not in CONFIGURATIONS:
            raise Refusal((), f"{self.name!r:.60} is not a configuration; known are {', '.join(CONFIGURATIONS)}")
        CONFIGURATIONS[self.name].check(self.value)
        check_day("effective_from", self.effective_from)

    @property
    def text(self) -> str:
        """The value as stored in configurations.config_value: plain notation without trailing zeros."""
        return plain(self.value) if isinstance(self.value, Decimal) else str(self.value)

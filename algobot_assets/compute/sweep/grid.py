"""Build the grid of a parameter sweep: the values of each parameter, and all their combinations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cached_property
from itertools import product
from typing import Any

from algobot_assets.compute.ledger.terms import RiskTerms, StrategyTerms
from algobot_assets.compute.strategy import Strategy
from algobot_assets.errors import SettingsError

RISK = (
    "risk_per_trade",
    "max_risk_per_trade",
    "max_open_trades",
    "stop_loss_percentage",
    "take_profit_percentage",
)
"""What `--risk` can sweep: strategies.risk_per_trade and the columns of risk_parameters."""
MAX_VALUES = 10_000
MAX_COMBINATIONS = 10_000_000

Value = int | float | bool | Decimal


def parse_axis(text: str) -> tuple[str, list[str]]:
    """Return the name and the values, as texts, of `fast=5:50:5` or `fast=5,8,13`. The end of a range is included.

    Steps are added in decimals, so 0.1:0.3:0.1 ends with 0.3. SettingsError if the text cannot be read.

    >>> parse_axis("fast=5:15:5,21")
    ('fast', ['5', '10', '15', '21'])
    """
    name, equals, rest = text.partition("=")
    name = name.strip()
    if not equals or not name or not rest.strip():
        raise SettingsError(f"{text!r} has no values. Write NAME=1,2,3 or NAME=FROM:TO:STEP, for example fast=5:50:5.")
    values: list[str] = []
    for part in rest.split(","):
        values += _span(name, part.strip()) if ":" in part else [part.strip()]
        if len(values) > MAX_VALUES:
            raise SettingsError(f"{name} has more than {MAX_VALUES:,} values. Use a larger step.")
    if "" in values:
        raise SettingsError(f"{text!r} has an empty value. Remove the extra comma, for example NAME=1,2,3.")
    return name, values


def _span(name: str, text: str) -> list[str]:
    parts = text.split(":")
    try:
        numbers = [Decimal(part) for part in parts]
        finite = all(number.is_finite() for number in numbers)
    except InvalidOperation:
        finite = False
    if len(parts) not in (2, 3) or not finite:
        raise SettingsError(f"The range {text!r} of {name} cannot be read. Write FROM:TO or FROM:TO:STEP.")
    first, last, step = *numbers[:2], numbers[2] if len(parts) == 3 else Decimal(1)
    if step <= 0 or last < first:
        raise SettingsError(
            f"The range {text!r} of {name} has no values. STEP must be above 0, and FROM must not be above TO."
        )
    count = int((last - first) / step) + 1
    if count > MAX_VALUES:
        raise SettingsError(f"{name} has more than {MAX_VALUES:,} values. Use a larger step.")
    return [format(first + i * step, "f") for i in range(count)]


def _number(text: str) -> int | float | bool | str:
    """Return the value of a parameter's text, or for the error message the text itself if it is no value."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
        return number if math.isfinite(number) else text
    except ValueError:
        return text


@dataclass(frozen=True)
class Combination:
    """One point of a grid: its number, the strategy's resolved parameters, and its risk parameters."""

    number: int
    parameters: dict[str, Any]
    risk: dict[str, Value]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in (self.parameters | self.risk).items())


@dataclass(frozen=True)
class Grid:
    """All combinations of strategy parameters and risk parameters, numbered from 0 with the last axis fastest.

    `parameters` and `risk` hold every name with its values, one value if it is not swept.
    """

    parameters: dict[str, list[Any]]
    risk: dict[str, list[Value]]

    @classmethod
    def of(
        cls,
        strategy: Strategy,
        parameters: Sequence[str] = (),
        risk: Sequence[str] = (),
        base: Mapping[str, Any] | None = None,
        base_risk: Mapping[str, Value] | None = None,
    ) -> Grid:
        """Return a grid from texts that `parse_axis` can read; what is not swept takes its value from `base`.

        Every value is checked like one of the declared state. A SettingsError names parameter and value.
        """
        axes = _axes(parameters)
        for name, values in axes.items():
            for value in values:
                strategy.resolve({name: _number(value)})
        swept = {name: list(dict.fromkeys(_number(value) for value in values)) for name, values in axes.items()}
        known = strategy.resolve({name: value for name, value in (base or {}).items() if name not in swept})
        chosen = {name: swept.get(name, [known[name]]) for name in known}
        typed = {name: [strategy.resolve({name: v})[name] for v in values] for name, values in chosen.items()}
        grid = cls(typed, _risk_values(_axes(risk), base_risk or {}))
        if len(grid) > MAX_COMBINATIONS:
            raise SettingsError(
                f"The grid has {len(grid):,} combinations, more than {MAX_COMBINATIONS:,}. Use fewer values."
            )
        return grid

    def __len__(self) -> int:
        return self.parameter_set_count * self.risk_set_count

    @cached_property
    def parameter_set_count(self) -> int:
        """The number of sets of strategy parameters."""
        return math.prod(map(len, self.parameters.values()))

    @cached_property
    def risk_set_count(self) -> int:
        """The number of sets of risk parameters."""
        return math.prod(map(len, self.risk.values()))

    @cached_property
    def risk_sets(self) -> list[dict[str, Value]]:
        """Every set of risk parameters, in order."""
        return [dict(zip(self.risk, values, strict=True)) for values in product(*self.risk.values())]

    def parameter_set(self, number: int) -> dict[str, Any]:
        """Return the set of strategy parameters with that number."""
        return {name: self.parameters[name][i] for name, i in zip(self.parameters, self._index(number), strict=True)}

    def __getitem__(self, number: int) -> Combination:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return Combination(
            number, self.parameter_set(number // self.risk_set_count), self.risk_sets[number % self.risk_set_count]
        )

    def swept(self) -> list[str]:
        """Return the names that take more than one value."""
        return [name for name, values in (self.parameters | self.risk).items() if len(values) > 1]

    def in_z_order(self) -> Iterator[int]:
        """Yield the numbers of the sets of strategy parameters so that neighbours share values.

        They follow a Z-order curve: a cache of limited size then serves most sets, whichever axis is the longest.
        """

        def interleaved(number: int) -> int:
            axes = self._index(number)
            bits = max((i.bit_length() for i in axes), default=0)
            return sum(
                ((i >> bit) & 1) << (bit * len(axes) + place) for bit in range(bits) for place, i in enumerate(axes)
            )

        yield from sorted(range(self.parameter_set_count), key=interleaved)

    def _index(self, number: int) -> list[int]:
        index = []
        for values in reversed(self.parameters.values()):
            number, at = divmod(number, len(values))
            index.append(at)
        return index[::-1]


def _axes(texts: Sequence[str]) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for text in texts:
        name, values = parse_axis(text)
        if name in axes:
            raise SettingsError(f"{name} is given twice. Write all its values in one option: {name}=1,2,3.")
        axes[name] = values
    return axes


def _risk_values(axes: Mapping[str, list[str]], base: Mapping[str, Value]) -> dict[str, list[Value]]:
    for name in axes:
        if name not in RISK:
            raise SettingsError(f"There is no risk parameter {name!r}. There are: {', '.join(RISK)}.")
    chosen: dict[str, list[Value]] = {}
    for name in RISK:
        values = [_risk_value(name, text) for text in axes[name]] if name in axes else [base[name]]
        chosen[name] = list(dict.fromkeys(values))
    return chosen


def _risk_value(name: str, text: str) -> Value:
    """Return the value, checked by the ledger's own terms."""
    try:
        value: Value = int(text) if name == "max_open_trades" else Decimal(text)
    except (ValueError, InvalidOperation):
        kind = "whole number" if name == "max_open_trades" else "number"
        raise SettingsError(f"{name} is {text!r}: give a {kind}.") from None
    if name == "risk_per_trade":
        StrategyTerms(1, value, date(2017, 7, 1))
    else:
        limits: dict[str, Any] = {"max_risk_per_trade": 1, "max_open_trades": 1, "stop_loss_percentage": 1}
        RiskTerms(**limits | {name: value})
    return value

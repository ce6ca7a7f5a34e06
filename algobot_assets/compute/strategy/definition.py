"""What a strategy is: a pure rule on bars, registered by a name, with typed parameters and declared inputs.

Here: the decorator, parameters and their checks. Not here: which strategies there are (`strategies`), what a
rule may ask of its bars (`bars`), running one over candles (`signals`).

    @strategy("ema_cross", parameters={"fast": window(9), "slow": window(21)})
    def ema_cross(bars, p):
        fast, slow = bars.ema(bars.close, p.fast), bars.ema(bars.close, p.slow)
        return bars.decide((BUY, bars.crosses_above(fast, slow)), (SELL, bars.crosses_below(fast, slow)))
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from algobot_assets.compute.carry import MAX_WINDOW
from algobot_assets.errors import SettingsError

if TYPE_CHECKING:
    import polars as pl

    from algobot_assets.compute.strategy.bars import Bars

BUY, SELL, HOLD = 1, -1, 0
"""The signals: decided on the closed candle, filled by the ledger at the next one."""

INDICATORS = ("ema", "rsi", "atr", "vwap")
"""The stored indicators a strategy may declare."""

_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a strategy: its default, whose type (int, float or bool) is its type, and its bounds."""

    default: int | float | bool
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if type(self.default) not in _KINDS:
            raise TypeError(f"a parameter is an int, a float or a bool, not {self.default!r}")

    def __str__(self) -> str:
        bounds = {
            (False, False): "",
            (True, False): f" from {self.low:g} on",
            (False, True): f" up to {self.high:g}",
            (True, True): f" from {self.low:g} to {self.high:g}",
        }[math.isfinite(self.low), math.isfinite(self.high)]
        return f"{_KINDS[type(self.default)]}{bounds}, default {self.default}"

    def checked(self, value: Any) -> int | float | bool:
        """`value` in the parameter's type; a whole number is also a number. ValueError if it does not fit."""
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or not (self.low <= value <= self.high and math.isfinite(value)):
            raise ValueError(value)
        return value


def window(default: int) -> Parameter:
    """A parameter that counts candles: from 1 to MAX_WINDOW."""
    return Parameter(default, 1, MAX_WINDOW)


@dataclass(frozen=True)
class Strategy:
    """A registered rule. `indicators`: the stored indicators it reads, which are inputs in the lineage."""

    name: str
    rule: Callable[[Bars, SimpleNamespace], pl.Series]
    parameters: Mapping[str, Parameter]
    indicators: tuple[str, ...]

    def __call__(self, bars: Bars, p: SimpleNamespace) -> pl.Series:
        return self.rule(bars, p)

    @property
    def module(self) -> str:
        """Name of the module that defines the rule."""
        return self.rule.__module__

    @property
    def description(self) -> str:
        """The first line of the rule's docstring."""
        return (self.rule.__doc__ or "").strip().partition("\n")[0]

    def resolve(self, given: Mapping[str, Any] | None = None) -> dict[str, int | float | bool]:
        """All parameters with their values: those given, else the defaults. SettingsError names what is
        wrong.

        The resolved parameters decide the signals; the lineage's parameters digest is of these.
        """
        given = given or {}
        known = "; ".join(f"{name} ({parameter})" for name, parameter in self.parameters.items()) or "none"
        for name in given:
            if name not in self.parameters:
                raise SettingsError(f"Strategy {self.name} has no parameter {name!r}. Its parameters: {known}.")
        resolved = {}
        for name, parameter in self.parameters.items():
            try:
                resolved[name] = parameter.checked(given.get(name, parameter.default))
            except ValueError:
                raise SettingsError(
                    f"Parameter {name} of strategy {self.name} is {given[name]!r}; it must be {parameter}."
                    f" Its parameters: {known}."
                ) from None
        return resolved


def strategy(
    name: str,
    *,
    parameters: Mapping[str, Parameter | int | float | bool] | None = None,
    indicators: Sequence[str] = (),
) -> Callable[[Callable[[Bars, SimpleNamespace], pl.Series]], Strategy]:
    """Decorator that makes a rule a strategy of type `name`.

    The rule gets `bars` (`bars.Bars`) and the parameters as attributes, and returns what `bars.decide`
    gives. It must be pure (the same candles, the same signals) and always make the same calls on `bars`. A
    bare number as parameter is a default without bounds. Wrong declarations raise TypeError or ValueError
    at import.
    """
    declared = {
        key: value if isinstance(value, Parameter) else Parameter(value) for key, value in (parameters or {}).items()
    }
    for word in (name, *declared):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", word):
            raise ValueError(f"{word!r} is not a name; use small letters, digits and underscores")
    for key, parameter in declared.items():
        try:
            parameter.checked(parameter.default)
        except ValueError:
            raise ValueError(f"the default of {key} in strategy {name} is out of its bounds: {parameter}") from None
    unknown = set(indicators) - set(INDICATORS)
    if unknown:
        raise ValueError(f"strategy {name} declares {sorted(unknown)}; stored indicators are {INDICATORS}")
    return lambda rule: Strategy(name, rule, declared, tuple(indicators))

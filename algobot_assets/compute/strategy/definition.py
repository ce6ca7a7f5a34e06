"""Declare strategies: pure rules on bars, with a name, typed parameters and the stored indicators they read.

`strategies` lists all of them, `bars` holds what a rule can ask of its bars, and `signals` runs a rule over candles.
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
"""The signals. A rule decides at a candle's close; the ledger fills the order at the open of the next candle."""

INDICATORS = ("ema", "rsi", "atr", "vwap")
"""The stored indicators that a strategy can declare."""

_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a strategy: its default value, which sets its type (int, float or bool), and its bounds.

    >>> print(Parameter(50.0, low=0, high=100))
    a number from 0 to 100, default 50.0
    """

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
        """Return `value` in the parameter's type, or raise ValueError if it does not fit.

        A whole number is accepted for a float parameter.

        >>> Parameter(50.0, low=0, high=100).checked(30)
        30.0
        """
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or not (self.low <= value <= self.high and math.isfinite(value)):
            raise ValueError(value)
        return value


def window(default: int) -> Parameter:
    """Return a parameter that counts candles, from 1 to MAX_WINDOW.

    >>> print(window(14))
    a whole number from 1 to 10000, default 14
    """
    return Parameter(default, 1, MAX_WINDOW)


@dataclass(frozen=True)
class Strategy:
    """A rule with its name and parameters, made by the decorator `strategy`.

    `indicators` are the stored indicators it reads; lineage lists them as inputs.
    """

    name: str
    rule: Callable[[Bars, SimpleNamespace], pl.Series]
    parameters: Mapping[str, Parameter]
    indicators: tuple[str, ...]

    def __call__(self, bars: Bars, p: SimpleNamespace) -> pl.Series:
        """Run the rule."""
        return self.rule(bars, p)

    @property
    def module(self) -> str:
        """The name of the module that defines the rule."""
        return self.rule.__module__

    @property
    def description(self) -> str:
        """The first line of the rule's docstring."""
        return (self.rule.__doc__ or "").strip().partition("\n")[0]

    def resolve(self, given: Mapping[str, Any] | None = None) -> dict[str, int | float | bool]:
        """Return every parameter with its value: the one given, otherwise the default.

        Lineage digests these values, since they decide the signals. A SettingsError names the parameter that is wrong.

        >>> rule = strategy("level", parameters={"low": Parameter(30.0, 0, 100), "high": 70.0})(lambda bars, p: None)
        >>> rule.resolve({"low": 25})
        {'low': 25.0, 'high': 70.0}
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
    """Make a rule a strategy of type `name`. Use as a decorator.

    The rule receives `bars` (a `Bars`) and the parameters as attributes of `p`, and returns the result of
    `bars.decide`. It must be pure: the same candles always give the same signals. It must also make the same calls on
    `bars` every time. A bare number as parameter is a default without bounds. A wrong declaration raises TypeError or
    ValueError at import.

    >>> @strategy("dip", parameters={"level": Parameter(30.0, 0, 100)}, indicators=("rsi",))
    ... def dip(bars, p):
    ...     "Buy when the RSI falls below a level."
    ...     return bars.decide((BUY, bars.crosses_below(bars.indicator("rsi"), p.level)))
    >>> dip.description, dip.indicators
    ('Buy when the RSI falls below a level.', ('rsi',))
    """
    declared = {
        key: value if isinstance(value, Parameter) else Parameter(value) for key, value in (parameters or {}).items()
    }
    for word in (name, *declared):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", word):
            raise ValueError(f"{word!r} is not a name; use lower-case letters, digits and underscores")
    for key, parameter in declared.items():
        try:
            parameter.checked(parameter.default)
        except ValueError:
            raise ValueError(f"the default of {key} in strategy {name} is out of its bounds: {parameter}") from None
    unknown = set(indicators) - set(INDICATORS)
    if unknown:
        raise ValueError(f"strategy {name} declares {sorted(unknown)}; stored indicators are {INDICATORS}")
    return lambda rule: Strategy(name, rule, declared, tuple(indicators))

"""Trace a strategy run: record every series a rule uses and every condition it decides by, to explain its signals.

Stored signals are never computed this way.

A series is labelled by its origin, `ema(close, 9)`, and by the name that the rule gave it. Names and conditions are
read from the strategy's source at the line of the call; without a source, a series is "a series".
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from algobot_assets.compute import carry, kernels
from algobot_assets.compute.carry import Days
from algobot_assets.compute.signals import declared_indicators
from algobot_assets.compute.strategies import registered
from algobot_assets.compute.strategy import bars as plain
from algobot_assets.compute.strategy.bars import Bars

_OWN_FILES = {plain.__file__, carry.__file__, kernels.__file__, __file__}


@dataclass(frozen=True)
class Traced:
    """A series that the rule used: its origin (`label`), the rule's name for it, if any, and one Float64 per candle."""

    label: str
    name: str | None
    values: pl.Series

    def __str__(self) -> str:
        return self.label if self.name in (None, self.label) else f"{self.name} = {self.label}"


@dataclass(frozen=True)
class Rule:
    """A rule passed to `decide`: its signal, its condition as written, and a mask of the candles where it holds."""

    signal: int
    text: str
    holds: np.ndarray


@dataclass(frozen=True)
class Trace:
    """One run of a strategy.

    It holds the signal of each candle, the series used, the rules in order, a mask of the candles at which every input
    is warm, and the carried state at the end of each day.
    """

    signal: pl.Series
    inputs: tuple[Traced, ...]
    rules: tuple[Rule, ...]
    warm: np.ndarray
    states: np.ndarray

    def decided_by(self, candle: int) -> int | None:
        """Return the index of the rule that decided at the candle; None if none did."""
        if not self.warm[candle]:
            return None
        return next((i for i, rule in enumerate(self.rules) if rule.holds[candle]), None)


def trace(
    strategy_type: str,
    candles: pl.DataFrame,
    indicators: pl.DataFrame | None,
    parameters: dict[str, Any],
    days: Days,
    state: np.ndarray | None,
) -> Trace:
    """Run a strategy like `compute_signals`, with the same arguments, errors and bits, and record what it used."""
    known = registered(strategy_type)
    values = SimpleNamespace(**known.strategy.resolve(parameters))
    seen = declared_indicators(known.strategy, candles, indicators, days)
    bars = TracedBars(candles, seen, days, state, known.text, values)
    signal = known.strategy(bars, values)
    return Trace(signal, bars.traced(), tuple(bars.rules), bars.warm(), bars.states())


class TracedBars(Bars):
    """Bars that record what a rule uses. Each primitive returns the same as that of `Bars`."""

    def __init__(
        self,
        candles: pl.DataFrame,
        indicators: pl.DataFrame,
        days: Days,
        state: np.ndarray | None,
        source: str,
        parameters: SimpleNamespace,
    ) -> None:
        super().__init__(candles, indicators, days, state)
        self.rules: list[Rule] = []
        self._source = _Source(source, self, parameters)
        self._labels: dict[int, tuple[pl.Series, str]] = {}
        self._names: dict[int, str] = {}
        self._inside = 0

    def traced(self) -> tuple[Traced, ...]:
        """Return every series used, in the order in which the rule asked for it."""
        return tuple(Traced(label, self._names.get(key), series) for key, (series, label) in self._labels.items())

    def warm(self) -> np.ndarray:
        """Return, per candle, whether every input has a value."""
        missing = [np.isnan(self._values(series)) for series in self._inputs]
        return ~np.logical_or.reduce(missing) if missing else np.ones(self.days.candles, dtype=bool)

    def indicator(self, name: str) -> pl.Series:
        return self._remember(super().indicator(name), name)

    def ema(self, x: pl.Series, n: int) -> pl.Series:
        with self._call(x) as (label,):
            return self._remember(super().ema(x, n), f"ema({label}, {n})")

    def wilder(self, x: pl.Series, n: int) -> pl.Series:
        with self._call(x) as (label,):
            return self._remember(super().wilder(x, n), f"wilder({label}, {n})")

    def previous(self, x: pl.Series) -> pl.Series:
        with self._call(x) as (label,):
            return self._remember(super().previous(x), f"previous({label})")

    def rolling_sum(self, x: pl.Series, n: int) -> pl.Series:
        with self._call(x) as (label,):
            return self._remember(super().rolling_sum(x, n), f"rolling_sum({label}, {n})")

    def session_sum(self, x: pl.Series) -> pl.Series:
        with self._call(x) as (label,):
            return self._remember(super().session_sum(x), f"session_sum({label})")

    def scan(
        self,
        call: str,
        kernel: Callable[..., None],
        initial: Sequence[float],
        inputs: Sequence[pl.Series],
        *parameters: float,
    ) -> pl.Series:
        if self._inside:
            return super().scan(call, kernel, initial, inputs, *parameters)
        labels = ", ".join(self._labels.get(id(x), (x, "a series"))[1] for x in inputs)
        with self._call():
            return self._remember(super().scan(call, kernel, initial, inputs, *parameters), f"{call}({labels})")

    def crosses_above(self, a: pl.Series, b: pl.Series | float) -> pl.Series:
        with self._call(a, b):
            return super().crosses_above(a, b)

    def crosses_below(self, a: pl.Series, b: pl.Series | float) -> pl.Series:
        with self._call(a, b):
            return super().crosses_below(a, b)

    def decide(self, *rules: tuple[int, pl.Series]) -> pl.Series:
        texts = self._source.rules(len(rules))
        for (signal, condition), text in zip(rules, texts, strict=True):
            self.rules.append(Rule(signal, text, condition.fill_null(False).to_numpy()))
        for name, value in self._source.locals().items():
            if isinstance(value, pl.Series) and value.dtype == pl.Float64 and len(value) == self.days.candles:
                self._remember(value, name)
                self._names.setdefault(id(value), name)
        return super().decide(*rules)

    def _column(self, name: str) -> pl.Series:
        return self._remember(super()._column(name), name)

    def _remember(self, series: pl.Series, label: str) -> pl.Series:
        """Label a series, and hold it so that its id is not reused."""
        self._labels.setdefault(id(series), (series, label))
        return series

    @contextmanager
    def _call(self, *arguments: pl.Series | float) -> Iterator[list[str]]:
        """Labels of a primitive's arguments; the calls it makes itself are not recorded."""
        labels = []
        for place, argument in enumerate(arguments):
            if isinstance(argument, pl.Series) and id(argument) not in self._labels and not self._inside:
                self._remember(argument, self._source.argument(place))
            known = self._labels.get(id(argument)) if isinstance(argument, pl.Series) else None
            labels.append(known[1] if known else "a series" if isinstance(argument, pl.Series) else f"{argument:g}")
        self._inside += 1
        try:
            yield labels
        finally:
            self._inside -= 1


class _Source:
    """The strategy's source around the current call."""

    def __init__(self, text: str, bars: TracedBars, parameters: SimpleNamespace) -> None:
        self._bars, self._parameters = bars, parameters
        self._calls: dict[tuple[int | None, ...], ast.Call] = {
            (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset): node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call)
        }

    def argument(self, place: int) -> str:
        """Return the argument of the call as written; "a series" if the call is not in the strategy's source."""
        call, frame = self._call()
        if call is None or place >= len(call.args):
            return "a series"
        return self._written(call.args[place], frame)

    def rules(self, count: int) -> list[str]:
        """Return the conditions passed to `decide` as written; "rule 1" and so on if they cannot be read."""
        call, frame = self._call()
        if call is None or len(call.args) != count:
            return [f"rule {i + 1}" for i in range(count)]
        return [
            self._written(arg.elts[1], frame) if isinstance(arg, ast.Tuple) and len(arg.elts) == 2 else f"rule {i + 1}"
            for i, arg in enumerate(call.args)
        ]

    def locals(self) -> dict[str, Any]:
        """Return the rule's local variables."""
        return dict(_caller().f_locals)

    def _call(self) -> tuple[ast.Call | None, FrameType]:
        frame = _caller()
        positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        return self._calls.get(tuple(positions)), frame

    def _written(self, node: ast.expr, frame: FrameType) -> str:
        """`bars.crosses_above(close, vwap) & (rsi > p.low)` as `crosses_above(close, vwap) & (rsi > 30.0)`."""
        names = frame.f_locals
        bars = {name for name, value in names.items() if value is self._bars}
        parameters = {name for name, value in names.items() if value is self._parameters}

        class Plain(ast.NodeTransformer):
            def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
                self.generic_visit(node)
                if isinstance(node.value, ast.Name) and node.value.id in bars:
                    return ast.Name(node.attr, ast.Load())
                if isinstance(node.value, ast.Name) and node.value.id in parameters:
                    return ast.Constant(getattr(names[node.value.id], node.attr))
                return node

        copied = ast.parse(ast.unparse(node), mode="eval")
        return ast.unparse(Plain().visit(copied))


def _caller() -> FrameType:
    """Return the innermost frame outside the bars: the strategy's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (frame.f_code.co_filename in _OWN_FILES or "contextlib" in frame.f_code.co_filename):
        frame = frame.f_back
    assert frame is not None
    return frame

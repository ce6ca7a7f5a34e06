"""Read the declared state from its YAML file, and report the problems of all entries together, each with its line.

Shape::

    markets:                         # a list
      - {symbol: BTCUSDT, interval: 1h, start: 2024-01-01}      # or intervals: [1h, 1m]
    strategies:                      # by name
      trend:
        type: ema_cross
        market: BTCUSDT 1h
        initial_balance: 10000
        risk_per_trade: 0.02
        parameters: {fast: 9}        # default: those of the type
        shorting: false              # default
        stop_path: 1m                # default: none
        effective_from: 2024-01-01   # default: the market's start
        effective_to: 2025-01-01     # default: none
        risk:                        # a mapping, or a list of them, each but the first with effective_from
          {max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2, take_profit_percentage: 0}
    configurations:                  # by name: a value, or a list of {value, effective_from}
      ledger.commission_rate: 0.001

A strategy with several versions lists them under `versions`, each with effective_from and the keys in which
it differs; keys beside `versions` hold for all of them, and a key in a version replaces the one beside as a
whole. Risk parameters beside `versions` keep their dates: each version begins with those in force on its
first day. effective_to beside `versions` ends the last one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from algobot_assets.declared import yaml_file
from algobot_assets.declared.configurations import CONFIGURATIONS, Configuration
from algobot_assets.declared.fields import Fields, Lines, dated, line_at
from algobot_assets.declared.model import DeclaredState, Market, Strategy
from algobot_assets.declared.rules import Refusal
from algobot_assets.declared.strategy_reading import Types, read_strategy
from algobot_assets.declared.yaml_file import Mapping, Node, Problem, Scalar, Sequence
from algobot_assets.errors import SettingsError

_MOST_PROBLEMS = 20


def load(path: Path, types: Types) -> DeclaredState:
    """Load the state from the file at ``path``. SettingsError with file, line and remedy of each problem."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path.name}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise SettingsError(
            f"The declared state cannot be read from {path}: {error.strerror}. Put the file there, or set "
            "ALGOBOT_STATE_FILE to the one you have."
        ) from None
    return loads(text, types, path.name)


def loads(text: str, types: Types, file: str = "algobot.yaml") -> DeclaredState:
    """Load the state from ``text``; ``file`` is its name in errors. SettingsError like `load`."""
    reader = _Reader(types)
    state = None
    with reader.noting():
        state = reader.state(yaml_file.parse(text))
    if state is None:
        problems = sorted(reader.problems, key=lambda problem: problem.line)
        lines = [
            f"{file}, line {problem.line}: {' '.join(str(problem).split())}" for problem in problems[:_MOST_PROBLEMS]
        ]
        if len(problems) > _MOST_PROBLEMS:
            lines.append(f"and {len(problems) - _MOST_PROBLEMS} more")
        raise SettingsError("\n".join(lines))
    return state


class _Reader:
    """A reader that notes problems entry by entry and remembers the line of every entry."""

    def __init__(self, types: Types) -> None:
        self.types = types
        self.problems: list[Problem] = []
        self.lines: Lines = {}

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a Problem instead of raising it, so that the next entry is read too."""
        try:
            yield
        except Problem as problem:
            self.problems.append(problem)

    def state(self, root: Node) -> DeclaredState | None:
        """Return the state, or None if problems were noted."""
        fields = Fields(root, "the file", ("markets", "strategies", "configurations"))
        markets = self.markets(fields["markets"])
        if self.problems:
            return None  # everything below would be refused for the missing markets alone
        starts = {market.name: market.start for market in markets}
        strategies: list[Strategy] = []
        for name, node in self.named(fields, "strategies"):
            with self.noting():
                for strategy, lines in read_strategy(name, node, starts, self.types):
                    self.lines |= {("strategies", len(strategies), *path): line for path, line in lines.items()}
                    strategies.append(strategy)
        configurations: list[Configuration] = []
        for name, node in self.named(fields, "configurations"):
            with self.noting():
                configurations += self.configuration(name, node, min(starts.values()))
        if self.problems:
            return None
        try:
            return DeclaredState(tuple(markets), tuple(strategies), tuple(configurations))
        except Refusal as refusal:
            raise Problem(line_at(self.lines, refusal.path, root.line), str(refusal)) from None

    def named(self, fields: Fields, key: str) -> list[tuple[Scalar, Node]]:
        """Return the entries under ``key``, by name; none if the key is absent or empty."""
        node = fields.node.values.get(key)
        if node is None or (isinstance(node, Scalar) and node.is_empty):
            return []
        if not isinstance(node, Mapping):
            self.problems.append(Problem(node.line, f"`{key}` must be a mapping; write a name and a colon per entry"))
            return []
        return [(node.keys[name], value) for name, value in node.values.items()]

    def markets(self, node: Node) -> list[Market]:
        """Return the declared markets, and note the problems of single ones."""
        if not isinstance(node, Sequence) or not node.items:
            raise Problem(
                node.line,
                "`markets` must be a list; write `- {symbol: BTCUSDT, interval: 1h, start: 2024-01-01}`",
            )
        markets: list[Market] = []
        for item in node.items:
            with self.noting():
                fields = Fields(item, "a market", ("symbol", "interval", "intervals", "start"))
                symbol = unicodedata.normalize("NFC", yaml_file.text_of(fields["symbol"], "symbol"))
                start = yaml_file.day_of(fields["start"], "start")
                for interval in self.intervals(fields):
                    with fields.refusals():
                        market = Market(symbol, yaml_file.text_of(interval, "interval"), start)
                    self.lines["markets", len(markets)] = interval.line
                    markets.append(market)
        return markets

    def intervals(self, fields: Fields) -> tuple[Node, ...]:
        """Return the nodes of a market's intervals: one interval or a list of them."""
        if "intervals" not in fields:
            return (fields["interval"],)
        node = fields["intervals"]
        if "interval" in fields:
            raise Problem(fields.line_of("intervals"), "a market has interval and intervals; keep one of them")
        if not isinstance(node, Sequence) or not node.items:
            raise Problem(node.line, "intervals must be a list, like [1h, 1m]")
        return node.items

    def configuration(self, name: Scalar, node: Node, default: date) -> list[Configuration]:
        """Return the versions of the configuration ``name``."""
        if name.text not in CONFIGURATIONS:
            remedy = yaml_file.nearest(name.text, CONFIGURATIONS)
            raise Problem(name.line, f"`configurations` has the unknown key {yaml_file.shown(name)}; {remedy}")
        if isinstance(node, Scalar):
            node = Mapping({"value": name}, {"value": node}, node.line, node.column)
        what = f"configuration {name.text}"
        versions = []
        for day, fields in dated(node, what, ("value", "effective_from"), default):
            value: Any
            match CONFIGURATIONS[name.text].default:
                case int():
                    value = yaml_file.whole_of(fields["value"], what)
                case Decimal():
                    value = yaml_file.decimal_of(fields["value"], what)
                case _:
                    value = yaml_file.text_of(fields["value"], what)
            with fields.refusals():
                versions.append(Configuration(name.text, value, day))
        return versions

"""Read strategies, their versions and their risk parameters from the nodes of the declared file.

The shape is shown in reading.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from algobot_assets.declared import yaml_file
from algobot_assets.declared.fields import Fields, Lines, dated, line_at
from algobot_assets.declared.model import RiskParameters, Strategy
from algobot_assets.declared.rules import Refusal
from algobot_assets.declared.yaml_file import Node, Problem, Scalar, Sequence
from algobot_assets.errors import AlgobotError
from algobot_assets.schema.symbols import suggest_market

#: Strategy types by name, each with a function that takes the parameters as written (int, float, bool, text,
#: lists, mappings), returns them completed with defaults, and raises ValueError or TypeError if they are invalid.
Types = Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]

_RISK = (
    "max_risk_per_trade",
    "max_open_trades",
    "stop_loss_percentage",
    "take_profit_percentage",
    "effective_from",
)
_VERSION = (
    "type",
    "market",
    "initial_balance",
    "risk_per_trade",
    "parameters",
    "shorting",
    "stop_path",
    "effective_from",
    "effective_to",
    "risk",
)


def read_strategy(name: Scalar, node: Node, starts: Mapping[str, date], types: Types) -> list[tuple[Strategy, Lines]]:
    """Return the versions of the strategy ``name``, each with the lines of its values.

    starts: first day of each declared market, by "BTCUSDT 1h". Raises Problem for the first error.
    """
    what = f"strategy {name.text:.60}"
    shared = Fields(node, what, (*_VERSION, "versions"))
    if "versions" not in shared:
        day = _first_day(shared, shared, starts)
        return [_Version(name, shared, shared, day, day, None, True).read(starts, types)]
    if "effective_from" in shared:
        line = shared.line_of("effective_from")
        raise Problem(line, f"{what} has versions; move effective_from into the version that begins on that day")
    what = f"a version of {what}"
    listed = shared["versions"]
    if not isinstance(listed, Sequence) or not listed.items:
        raise Problem(listed.line, "versions must be a list of mappings; write `- effective_from: ...`, or remove it")
    first = _first_day(Fields(listed.items[0], what, _VERSION), shared, starts)
    entries = dated(listed, what, _VERSION, first)
    days = [day for day, _ in entries] + [None]
    return [
        _Version(name, own, shared, day, first, later, later is None).read(starts, types)
        for (day, own), later in zip(entries, days[1:], strict=True)
    ]


def _first_day(own: Fields, shared: Fields, starts: Mapping[str, date]) -> date:
    """Return the first day of a strategy: that of its first version, else the start of its market."""
    if "effective_from" in own:
        return yaml_file.day_of(own["effective_from"], "effective_from")
    return starts[_market(own if "market" in own else shared, starts)]


def _market(fields: Fields, starts: Mapping[str, date]) -> str:
    """Return the declared market that ``fields`` names."""
    node = fields["market"]
    market = unicodedata.normalize("NFC", " ".join(yaml_file.text_of(node, "market").split()))
    if market not in starts:
        meant = suggest_market(market)
        remedy = f"did you mean `{meant}`?" if meant in starts else yaml_file.nearest(market, starts)
        raise Problem(node.line, f"{fields.what} trades {yaml_file.shown(node)}, not one of `markets`; {remedy}")
    return market


@dataclass(frozen=True, slots=True)
class _Version:
    """One version to read: its own keys (``own is shared`` without versions) and its days.

    first: the strategy's first day; later: the day of the next version; last: whether there is none.
    """

    name: Scalar
    own: Fields
    shared: Fields
    day: date
    first: date
    later: date | None
    last: bool

    def holder(self, key: str) -> Fields:
        """Return the mapping that holds ``key``: the version's own, else the one beside the versions."""
        return self.own if key in self.own else self.shared

    def node(self, key: str) -> Node:
        """Return the node of ``key``. Problem if it is missing."""
        return self.holder(key)[key]

    def has(self, key: str) -> bool:
        """Whether ``key`` is written for this version."""
        return key in self.holder(key)

    def read(self, starts: Mapping[str, date], types: Types) -> tuple[Strategy, Lines]:
        """Return the version and the lines of its values."""
        symbol, interval = _market(self.holder("market"), starts).split(" ")
        kind = yaml_file.text_of(self.node("type"), "type")
        if kind not in types:
            written = yaml_file.shown(self.node("type"))
            remedy = yaml_file.nearest(kind, types)
            raise Problem(self.node("type").line, f"{written} is not a strategy type; {remedy}")
        lines: Lines = {(key,): self.holder(key).line_of(key) for key in _VERSION}
        lines[()] = self.name.line if self.own is self.shared else self.own.node.line
        lines["name",] = self.name.line
        shorting, stop_path = self.has("shorting"), self.has("stop_path")
        try:
            strategy = Strategy(
                name=self.name.text,
                type=kind,
                symbol=symbol,
                interval=interval,
                initial_balance=self.holder("initial_balance").decimal("initial_balance"),
                risk_per_trade=self.holder("risk_per_trade").decimal("risk_per_trade"),
                parameters=self.parameters(lines),
                shorting=shorting and yaml_file.truth_of(self.node("shorting"), "shorting"),
                stop_path=yaml_file.text_of(self.node("stop_path"), "stop_path") if stop_path else None,
                effective_from=self.day,
                effective_to=self.end(),
                risk=self.risk(lines),
            )
            return replace(strategy, parameters=self.completed(types[kind], strategy.parameters, lines)), lines
        except Refusal as refusal:
            raise Problem(line_at(lines, refusal.path, self.name.line), str(refusal)) from None

    def end(self) -> date | None:
        """Return effective_to: the version's own, or for the last version the one beside the versions."""
        holders = {id(fields) for fields in (self.own, self.shared) if "effective_to" in fields}
        if self.last and len(holders) == 2:
            raise Problem(
                self.own.line_of("effective_to"),
                f"{self.shared.what} has effective_to in its last version and beside the versions; keep one",
            )
        holder = self.holder("effective_to") if self.last else self.own
        return yaml_file.day_of(holder["effective_to"], "effective_to") if "effective_to" in holder else None

    def parameters(self, lines: Lines) -> dict[str, Any]:
        """Return the parameters as written, and add their lines to ``lines``."""
        if not self.has("parameters"):
            return {}
        node = self.node("parameters")
        if not isinstance(node, yaml_file.Mapping):
            raise Problem(node.line, "parameters must be a mapping, like {fast: 9, slow: 21}; or remove the key")
        lines.update({("parameters", key): place.line for key, place in node.keys.items()})
        parameters: dict[str, Any] = yaml_file.value_of(node, "parameters")
        return parameters

    def completed(
        self,
        complete: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        parameters: Mapping[str, Any],
        lines: Lines,
    ) -> Mapping[str, Any]:
        """Return the parameters completed by the type; its error is reported at the parameter it mentions first."""
        try:
            return complete(dict(parameters))
        except (ValueError, TypeError, AlgobotError) as error:
            places = [(re.search(rf"(?<!\w){re.escape(key)}(?!\w)", str(error)), key) for key in parameters]
            mentioned = sorted((found.start(), key) for found, key in places if found)[:1]
            line = line_at(lines, ("parameters", *(key for _, key in mentioned)), self.name.line)
            raise Problem(line, f"parameters of {self.shared.what}: {error}") from None

    def risk(self, lines: Lines) -> tuple[RiskParameters, ...]:
        """Return the risk parameters; of those beside the versions, the ones that apply to this version."""
        inherited = "risk" not in self.own
        entries = dated(self.node("risk"), f"risk of {self.shared.what}", _RISK, self.first if inherited else self.day)
        if inherited and self.day != self.first:
            before = [entry for entry in entries if entry[0] <= self.day]
            entries = [(self.day, fields) for _, fields in before[-1:]] + entries[len(before) :]
        if inherited and not self.last:
            until = self.end() or self.later
            entries = [entry for entry in entries if until is None or entry[0] < until]
        risk = []
        for number, (day, fields) in enumerate(entries):
            lines["risk", number] = fields.node.line
            lines["risk", number, "effective_from"] = fields.line_of("effective_from")
            with fields.refusals():
                risk.append(
                    RiskParameters(
                        max_risk_per_trade=fields.decimal("max_risk_per_trade"),
                        max_open_trades=yaml_file.whole_of(fields["max_open_trades"], "max_open_trades"),
                        stop_loss_percentage=fields.decimal("stop_loss_percentage"),
                        take_profit_percentage=fields.decimal("take_profit_percentage"),
                        effective_from=day,
                    )
                )
        return tuple(risk)

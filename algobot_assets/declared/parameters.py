"""Write the parameters of strategies as canonical JSON, so that equal parameters are equal texts.

Canonical form: keys sorted, no spaces, numbers in plain notation without trailing zeros (50, 50.0 and 5e1 are
the same text). It survives a JSONB column, which changes order and spacing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

#: Keys of strategies.parameters that say how the strategy is executed; no parameter may have these names.
RESERVED = ("shorting", "stop_path")
#: A decimal number of up to this many digits passes through float64 unchanged.
MAX_DIGITS = 15
_MAX_EXPONENT = 20


@dataclass(frozen=True, slots=True)
class StoredParameters:
    """One value of strategies.parameters.

    parameters: arguments of the strategy's function; shorting: whether -1 may open shorts; stop_path: "1m"
    if stored minutes decide the order of stops and targets, else None.
    """

    parameters: dict[str, Any]
    shorting: bool
    stop_path: str | None


def _plain(number: Decimal) -> int | float:
    """Return ``number`` as int if it is whole, else as float. ValueError if it would not come back the same."""
    if not number.is_finite():
        raise ValueError(f"{number} is not a finite number")
    if not number:
        return 0
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if len(digits) > MAX_DIGITS or abs(number.adjusted()) > _MAX_EXPONENT:
        raise ValueError(
            f"the number {number!s:.40} cannot be kept exactly: at most {MAX_DIGITS} significant digits, "
            f"between 1e-{_MAX_EXPONENT} and 1e{_MAX_EXPONENT}"
        )
    return int(number) if number == int(number) else float(number)


def normal(value: Any) -> Any:
    """Return ``value`` with numbers as int (whole) or float and sorted mappings. ValueError if it cannot be stored."""
    match value:
        case None | bool() | str():
            return value
        case int() | Decimal():
            return _plain(Decimal(value))
        case float():
            return _plain(Decimal(repr(value)))
        case list() | tuple():
            return [normal(item) for item in value]
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise ValueError("keys must be text")
            return {key: normal(value[key]) for key in sorted(value)}
    raise ValueError(f"a {type(value).__name__} cannot be a parameter")


def _written(value: Any) -> str:
    match value:
        case float():
            return format(Decimal(repr(value)), "f")
        case list():
            return f"[{','.join(map(_written, value))}]"
        case dict():
            return "{" + ",".join(f"{json.dumps(key)}:{_written(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def canonical(value: Any) -> str:
    """Return the canonical JSON of a value, or of a JSON text from a database. ValueError if it cannot be stored."""
    if isinstance(value, str):
        value = json.loads(value, parse_float=Decimal, parse_int=Decimal)
    return _written(normal(value))


def texts(text: str) -> dict[str, str]:
    """Return the canonical JSON of each value in a JSON object, by key."""
    return {
        key: _written(value) for key, value in normal(json.loads(text, parse_float=Decimal, parse_int=Decimal)).items()
    }


def to_json(parameters: Mapping[str, Any], shorting: bool, stop_path: str | None) -> str:
    """Return the canonical text of strategies.parameters: the parameters and the RESERVED keys."""
    return canonical({**parameters, "shorting": shorting, "stop_path": stop_path})


def from_json(text: str) -> StoredParameters:
    """Parse strategies.parameters; the inverse of to_json, for JSON of any spacing and order."""
    held = json.loads(canonical(text))
    shorting, stop_path = held.pop("shorting", False), held.pop("stop_path", None)
    return StoredParameters(held, shorting, stop_path)

"""Waiting and asking again: the one policy for everything that is fetched over the network.

Here belong backoff, Retry-After and the budget of waiting. What counts as transient is decided by those who
speak the protocol (exchange, archive): they raise `Transient`, everything else passes through at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from algobot_assets.errors import SourceUnavailable

T = TypeVar("T")


class Transient(Exception):
    """An answer worth asking for again.

    reason: half a sentence for people. after: seconds the server told to wait, None if it did not say.
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


@dataclass
class Retry:
    """Repeats a request while its failure is transient.

    attempts: how often one request is made at most. budget: seconds that one request may spend waiting.
    Without Retry-After the waits double from ``base`` to ``cap`` seconds, each shortened by up to a half at
    random so that many clients do not return in step. A Retry-After is kept to the second, by every request
    made through this object, since asking a server that has said no lengthens its ban. sleep, clock (seconds
    since 1970) and chance (a number in [0, 1)) can be replaced in tests.
    """

    attempts: int = 6
    budget: float = 300.0
    base: float = 0.5
    cap: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    _not_before: float = field(default=0.0, init=False)
    _asked: float = field(default=0.0, init=False)

    def call(self, request: Callable[[], T], what: str) -> T:
        """The answer of ``request``; SourceUnavailable, naming ``what``, when attempts or budget are
        spent."""
        waited = 0.0
        reason = ""
        for attempt in range(1, self.attempts + 1):
            # no longer than was asked for: a clock that was set back meanwhile must not bar the server for hours
            pause = min(max(0.0, self._not_before - self.clock()), self._asked)
            if waited + pause > self.budget:
                raise self._barred(what)
            if pause:
                self.sleep(pause)
                waited += pause
            try:
                return request()
            except Transient as failure:
                reason = failure.reason
                if failure.after is not None:
                    self._not_before = max(self._not_before, self.clock() + failure.after)
                    self._asked = max(self._asked, failure.after)
                    continue
            if attempt < self.attempts:
                pause = min(self.cap, self.base * 2 ** (attempt - 1)) * (1 - self.chance() / 2)
                if waited + pause > self.budget:
                    break
                self.sleep(pause)
                waited += pause
        raise SourceUnavailable(f"{what}: {reason}, {attempt} times in a row. Nothing was changed; run again later.")

    def _barred(self, what: str) -> SourceUnavailable:
        until = datetime.fromtimestamp(self._not_before, UTC)
        return SourceUnavailable(
            f"{what}: the server asks to be left alone until {until:%Y-%m-%d %H:%M:%S} UTC (too many"
            " requests from this address). Nothing was changed; run again after that time."
        )


def retry_after(headers: object) -> float | None:
    """Seconds of a Retry-After header, None if there is none or it is not a number."""
    value = getattr(headers, "get", lambda _: None)("Retry-After")
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None

"""Retry network requests with backoff, Retry-After and a limit on total waiting.

The modules that speak the protocol (exchange, archive) decide which failures are transient and raise `Transient`;
every other error passes through at once.
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
    """A failure worth a retry.

    reason: half a sentence for people. after: seconds the server asked to wait, None if it did not.
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


@dataclass
class Retry:
    """The retry policy for transient failures.

    attempts: most attempts per request. budget: most seconds that one request may spend waiting.
    Without Retry-After the waits double from ``base`` to ``cap`` seconds, each shortened at random by up to a half
    so that many clients do not return in step. A Retry-After is honored to the second by every request made through
    this object, because asking too early lengthens a ban. Tests can replace sleep, clock (seconds since 1970) and
    chance (a number in [0, 1)).
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
        """Return the answer of ``request``. SourceUnavailable, naming ``what``, when attempts or budget are
        used up."""
        waited = 0.0
        reason = ""
        for attempt in range(1, self.attempts + 1):
            # never longer than the server asked: a clock set back meanwhile must not block requests for hours
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
            f"{what}: the server refuses requests until {until:%Y-%m-%d %H:%M:%S} UTC (too many"
            " requests from this address). Nothing was changed; run again after that time."
        )


def retry_after(headers: object) -> float | None:
    """Return the seconds of a Retry-After header; None if there is none or it is not a number."""
    value = getattr(headers, "get", lambda _: None)("Retry-After")
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None

"""Bodies of answers over HTTP that must arrive within a time, however slowly they trickle.

A timeout of requests counts from one packet to the next, so that a server which sends a byte now and then would be
listened to for ever. What is asked, and what an answer means, belongs to those who ask.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import requests
import urllib3

#: Bytes read at once, at most.
_PART = 1 << 18
#: Seconds in which an answer of REST, a few hundred kilobytes at most, must be whole.
DEADLINE = 60.0


class TooSlow(requests.exceptions.ReadTimeout):
    """The body was not there in time."""


def arriving(answer: requests.Response, deadline: float) -> Iterator[bytes]:
    """The body of a streamed answer as it arrives; TooSlow after ``deadline`` seconds, else what requests raises."""
    until = time.monotonic() + deadline
    try:
        while part := answer.raw.read1(_PART, decode_content=True):
            yield part
            if time.monotonic() > until:
                raise TooSlow(f"not whole after {deadline:g} s")
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.exceptions.ConnectionError(error) from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error


class BoundedSession(requests.Session):
    """A session whose answers are whole within ``DEADLINE`` seconds of their first byte."""

    def request(self, *args: Any, **options: Any) -> requests.Response:
        """As requests does, with an end."""
        answer = super().request(*args, **{**options, "stream": True})
        try:
            answer._content = b"".join(arriving(answer, DEADLINE))
            answer._content_consumed = True
        finally:
            answer.close()
        return answer

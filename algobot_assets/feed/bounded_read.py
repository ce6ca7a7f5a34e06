"""Read HTTP bodies with a deadline.

The timeout of requests restarts with every packet, so a server that sends a byte now and then could hold the client
forever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import requests
import urllib3

#: Most bytes read at once.
_PART = 1 << 18
#: Seconds for a whole answer of REST, which is a few hundred kilobytes at most.
DEADLINE = 60.0


class TooSlow(requests.exceptions.ReadTimeout):
    """A body that did not arrive before its deadline."""


def read_parts(answer: requests.Response, deadline: float) -> Iterator[bytes]:
    """Yield the body of a streamed answer as it arrives. TooSlow after ``deadline`` seconds; else requests' errors."""
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
    """A session that reads every answer within ``DEADLINE`` seconds of its first byte."""

    def request(self, *args: Any, **options: Any) -> requests.Response:
        """Send a request like requests does, and read the whole body before the deadline."""
        answer = super().request(*args, **{**options, "stream": True})
        try:
            answer._content = b"".join(read_parts(answer, DEADLINE))
            answer._content_consumed = True  # type: ignore[attr-defined]  # private to requests, not in its stubs
        finally:
            answer.close()
        return answer

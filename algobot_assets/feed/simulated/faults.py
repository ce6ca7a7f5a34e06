"""Inject faults into the simulated exchange, like those of a real one on a bad day.

A fault is appended to `SimulatedExchange.faults`. The first one that matches a request changes its answer and is then
used up."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

FIREWALL_PAGE = b"<html><head><title>403 Forbidden</title></head><body>Request blocked.</body></html>"


@dataclass
class Answer:
    """An HTTP answer before it is sent. cut: number of bytes of the body to send before closing the connection.
    pause: seconds of silence in the middle of the body."""

    status: int
    body: bytes
    headers: dict[str, str]
    cut: int | None = None
    pause: float = 0.0


@dataclass
class Fault:
    """One fault. where: text that the request's path and query contain, or a function of it. change: the changed
    answer. times: number of requests it strikes; after: number of matching requests it lets pass first."""

    where: str | Callable[[str], bool]
    change: Callable[[Answer], Answer]
    times: int = 1
    after: int = 0

    def strikes(self, target: str) -> bool:
        """Return whether the fault strikes this request, and count it."""
        matches = self.where in target if isinstance(self.where, str) else self.where(target)
        if not matches or self.times <= 0:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


def error(where: str, status: int, code: int = 0, message: str = "", times: int = 1, after: int = 0) -> Fault:
    """Answer with an error in Binance's form, such as 503 or 400 with -1003."""
    body = json.dumps({"code": code, "msg": message}).encode()
    return Fault(where, lambda _: Answer(status, body, {}), times, after)


def too_many(where: str, seconds: int, status: int = 429, times: int = 1) -> Fault:
    """Answer 429 (slow down) or 418 (banned), with Retry-After."""
    body = json.dumps({"code": -1003, "msg": "Too much request weight used."}).encode()
    return Fault(where, lambda _: Answer(status, body, {"Retry-After": str(seconds)}), times)


def firewall(where: str, times: int = 1) -> Fault:
    """Answer 403 with a page of HTML."""
    return Fault(where, lambda _: Answer(403, FIREWALL_PAGE, {"Content-Type": "text/html"}), times)


def location(where: str, times: int = 1) -> Fault:
    """Answer 451: the location is not served; code 0, as the exchange sends it."""
    body = json.dumps({"code": 0, "msg": "Service unavailable from a restricted location."}).encode()
    return Fault(where, lambda _: Answer(451, body, {}), times)


def missing(where: str, times: int = 1) -> Fault:
    """Answer 404, as for a missing archive file or CHECKSUM."""
    return Fault(where, lambda _: Answer(404, b"", {}), times)


def broken_off(where: str, share: float = 0.5, times: int = 1) -> Fault:
    """End the connection in the middle of the body."""

    def change(answer: Answer) -> Answer:
        answer.cut = int(len(answer.body) * share)
        return answer

    return Fault(where, change, times)


def truncated(where: str, share: float = 0.5, times: int = 1) -> Fault:
    """Cut the body, with a length that fits: broken JSON, a damaged zip."""

    def change(answer: Answer) -> Answer:
        answer.body = answer.body[: int(len(answer.body) * share)]
        return answer

    return Fault(where, change, times)


def stalled(where: str, seconds: float, times: int = 1) -> Fault:
    """Pause in the middle of the body."""

    def change(answer: Answer) -> Answer:
        answer.pause = seconds
        return answer

    return Fault(where, change, times)


def wrong_checksum(where: str, times: int = 1) -> Fault:
    """Answer with the CHECKSUM of other bytes; ``where`` should match the .CHECKSUM path."""

    def change(answer: Answer) -> Answer:
        answer.body = b"0" * 64 + answer.body[64:]
        return answer

    return Fault(where, change, times)


def first_rows(count: int) -> Callable[[bytes], bytes]:
    """Return an edit for `SimulatedExchange.republish` that keeps the first rows, as in a file published
    too early."""
    return lambda text: b"".join(text.splitlines(keepends=True)[:count])


def without_rows(first: int, end: int) -> Callable[[bytes], bytes]:
    """Return an edit of a CSV that removes rows [first, end)."""

    def edit(text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        return b"".join(lines[:first] + lines[end:])

    return edit


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Return an edit of a CSV that replaces the first ``old`` by ``new``."""
    return lambda text: text.replace(old, new, 1)


def zipped(name: str, text: bytes, made: tuple[int, int, int, int, int, int]) -> bytes:
    """Return a zip with the one member ``name``; the same input gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo(name, made)
        member.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(member, text, compresslevel=1)
    return buffer.getvalue()

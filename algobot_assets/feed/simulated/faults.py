"""Faults for the simulated exchange: what a real one does on a bad day, on demand.

Here belongs when a fault strikes and what it does to an answer. A fault is appended to
`SimulatedExchange.faults`; the first one that applies to a request decides its answer, and is used up by
that."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

FIREWALL_PAGE = b"<html><head><title>403 Forbidden</title></head><body>Request blocked.</body></html>"


@dataclass
class Answer:
    """An HTTP answer before it is sent. cut: send only so many bytes of the body, then close the connection.
    pause: seconds of silence in the middle of the body."""

    status: int
    body: bytes
    headers: dict[str, str]
    cut: int | None = None
    pause: float = 0.0


@dataclass
class Fault:
    """One fault. where: text that the request's path with its query contains, or a function of it. change:
    what becomes of the answer. times: how many requests it strikes; after: how many matching requests it
    lets pass."""

    where: str | Callable[[str], bool]
    change: Callable[[Answer], Answer]
    times: int = 1
    after: int = 0

    def strikes(self, target: str) -> bool:
        """Whether it strikes this request; counts it if so."""
        matches = self.where in target if isinstance(self.where, str) else self.where(target)
        if not matches or self.times <= 0:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


def error(where: str, status: int, code: int = 0, message: str = "", times: int = 1, after: int = 0) -> Fault:
    """An error answer in Binance's form, such as 503 or 400 with -1003."""
    body = json.dumps({"code": code, "msg": message}).encode()
    return Fault(where, lambda _: Answer(status, body, {}), times, after)


def too_many(where: str, seconds: int, status: int = 429, times: int = 1) -> Fault:
    """429 (slow down) or 418 (banned), with Retry-After."""
    body = json.dumps({"code": -1003, "msg": "Too much request weight used."}).encode()
    return Fault(where, lambda _: Answer(status, body, {"Retry-After": str(seconds)}), times)


def firewall(where: str, times: int = 1) -> Fault:
    """403 with a page of HTML."""
    return Fault(where, lambda _: Answer(403, FIREWALL_PAGE, {"Content-Type": "text/html"}), times)


def location(where: str, times: int = 1) -> Fault:
    """451: the location is not served; code 0, as the exchange sends it."""
    body = json.dumps({"code": 0, "msg": "Service unavailable from a restricted location."}).encode()
    return Fault(where, lambda _: Answer(451, body, {}), times)


def missing(where: str, times: int = 1) -> Fault:
    """404, as for an archive file or a CHECKSUM that is not there."""
    return Fault(where, lambda _: Answer(404, b"", {}), times)


def broken_off(where: str, share: float = 0.5, times: int = 1) -> Fault:
    """The connection ends in the middle of the body."""

    def change(answer: Answer) -> Answer:
        answer.cut = int(len(answer.body) * share)
        return answer

    return Fault(where, change, times)


def truncated(where: str, share: float = 0.5, times: int = 1) -> Fault:
    """A body that is whole by its length and yet cut: broken JSON, a damaged zip."""

    def change(answer: Answer) -> Answer:
        answer.body = answer.body[: int(len(answer.body) * share)]
        return answer

    return Fault(where, change, times)


def stalled(where: str, seconds: float, times: int = 1) -> Fault:
    """Silence in the middle of the body."""

    def change(answer: Answer) -> Answer:
        answer.pause = seconds
        return answer

    return Fault(where, change, times)


def wrong_checksum(where: str, times: int = 1) -> Fault:
    """A CHECKSUM of other bytes; ``where`` should match the .CHECKSUM path."""

    def change(answer: Answer) -> Answer:
        answer.body = b"0" * 64 + answer.body[64:]
        return answer

    return Fault(where, change, times)


def first_rows(count: int) -> Callable[[bytes], bytes]:
    """An edit of a CSV for `SimulatedExchange.republish`: only its first rows, as a file published too
    early."""
    return lambda text: b"".join(text.splitlines(keepends=True)[:count])


def without_rows(first: int, end: int) -> Callable[[bytes], bytes]:
    """An edit of a CSV: rows [first, end) are left out."""

    def edit(text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        return b"".join(lines[:first] + lines[end:])

    return edit


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """An edit of a CSV: the first ``old`` becomes ``new``."""
    return lambda text: text.replace(old, new, 1)


def zipped(name: str, text: bytes, made: tuple[int, int, int, int, int, int]) -> bytes:
    """A zip with the one member ``name``, the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo(name, made)
        member.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(member, text, compresslevel=1)
    return buffer.getvalue()

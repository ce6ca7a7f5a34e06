"""Handle Ctrl-C at any moment: print one line, exit with code 130, and keep everything written so far.

Windows are written in single transactions, so a command may simply end (``os._exit``) at any time, with two exceptions.
While the server starts and the schema is migrated, the interrupt waits until that is finished (``deferred``; a second
Ctrl-C does not wait). While Dagster executes a run, the interrupt is raised as KeyboardInterrupt, so that the run is
recorded as failed (``unwinding``).

This module must stay light: it is imported before everything else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130
MESSAGE = "Interrupted. Everything written so far is complete and stays."
_SHOW_CURSOR = b"\x1b[?25h\n"


class _State:
    """Whether an interrupt was received and reported, and how many sections of each kind are active."""

    pipe: int | None = None
    """Read end of the pipe to which the interpreter reports every signal, even if a library replaced the handler."""
    received = False
    printed = False
    deferred = 0
    unwinding = 0


def install() -> None:
    """Handle Ctrl-C from now on. Called once, by the console script."""
    _State.pipe, write = os.pipe()
    for end in (_State.pipe, write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _on_interrupt)
    sys.unraisablehook = _on_unraisable


def was_received() -> bool:
    """Return whether Ctrl-C was pressed, even if a library handled the signal and swallowed the exception."""
    if _State.pipe is not None and not _State.received:
        with suppress(BlockingIOError):
            _State.received = signal.SIGINT in os.read(_State.pipe, 4096)
    return _State.received


def print_message() -> None:
    """Print the one line, unless it has been printed already."""
    if _State.printed:
        return
    _State.printed = True
    # write to the descriptor, because the handler may run while the stream's buffer is locked
    os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + MESSAGE.encode() + b"\n")


def exit_now() -> None:
    """End the process at once, without cleanup: open transactions are rolled back by the server."""
    print_message()
    os._exit(INTERRUPTED)


@contextmanager
def deferred() -> Iterator[None]:
    """Finish the block before an interrupt takes effect; a second interrupt ends the process at once."""
    _State.deferred += 1
    try:
        yield
    finally:
        _State.deferred -= 1
        if _State.received and not _State.deferred:
            exit_now()


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise the first interrupt in the block as KeyboardInterrupt; a second one ends the process at once."""
    _State.unwinding += 1
    try:
        yield
    finally:
        _State.unwinding -= 1


def _on_interrupt(_number: int, _frame: FrameType | None) -> None:
    again, _State.received = _State.received, True
    if not again and _State.deferred:
        print_message()
        return
    if not again and _State.unwinding:
        raise KeyboardInterrupt
    exit_now()


def _on_unraisable(raised: UnraisableHookArgs) -> None:
    """End the process if KeyboardInterrupt was raised where Python cannot pass it on, such as in a destructor."""
    if was_received() and not issubclass(raised.exc_type, Exception):
        exit_now()
    sys.__unraisablehook__(raised)

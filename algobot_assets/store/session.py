"""One session with the server that ends by itself when the server does not answer.

Which server, and for how long it is waited for, is the affair of database.py and connection.py.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


class Session(psycopg.Connection[Any]):
    """A connection that does not wait for ever: a server that is stopped or hangs keeps its end of the wire alive, and
    the timeouts it was told are of no use then. OperationalError when ``patience`` is over; it is closed."""

    patience: float = 0

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """As psycopg waits, with an end."""
        return super().wait(self._ending(gen) if self.patience else gen, *args, **options)

    def _ending(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        until = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value

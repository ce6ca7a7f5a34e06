"""What benchmarks share: stages timed from outside, peak memory, the machine's state, a table and a JSON file.

The product carries no timers: a benchmark wraps the functions it wants to see for the time of its run. Nothing
here knows what is measured. README.md says how figures are taken.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

#: Packages whose versions are written beside the figures.
PACKAGES = ("dagster", "dagster-postgres", "polars", "psycopg", "pgpq", "connectorx", "numba", "sqlalchemy")
#: Where the latest figures are; BENCHMARK_RESULTS names another folder.
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).with_name("results"))


class Stages:
    """Seconds per stage: ``inside`` with what it called, ``own`` without the stages inside of it.

    A stage is (name, detail); the detail is that of the stage around it where a function names none. Stages nest
    within a thread; what threads do at the same time adds up to more than the clock shows.
    """

    def __init__(self) -> None:
        self.own: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.inside: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.calls: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._local = threading.local()
        self._lock = threading.Lock()

    @property
    def _open(self) -> list[list[Any]]:
        """The stages that this thread is in."""
        if not hasattr(self._local, "open"):
            self._local.open = []
        return self._local.open

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[None]:
        """Time the block."""
        key = (name, detail or (self._open[-1][0][1] if self._open else ""))
        recursive = any(entry[0][0] == name for entry in self._open)
        began = time.perf_counter()
        self._open.append([key, 0.0])
        try:
            yield
        finally:
            took = time.perf_counter() - began
            _, within = self._open.pop()
            with self._lock:
                self.own[key] += took - within
                if not recursive:
                    self.inside[key] += took
                    self.calls[key] += 1
            if self._open:
                self._open[-1][1] += took

    @contextmanager
    def watching(self, *watched: tuple[Any, str, str, Callable[..., str] | None]) -> Iterator[Stages]:
        """Within the block the functions (owner, attribute, stage, detail of the call) are timed."""
        with ExitStack() as stack:
            for owner, attribute, name, detail in watched:
                original = getattr(owner, attribute)
                stack.enter_context(mock.patch.object(owner, attribute, self._timed(original, name, detail)))
            yield self

    def _timed(self, call: Callable[..., Any], name: str, detail: Callable[..., str] | None) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name, detail(*args, **kwargs) if detail else ""):
                return call(*args, **kwargs)

        return timed

    def seconds(self, name: str, detail: str | None = None, *, inside: bool = False) -> float:
        """Seconds of a stage, of one detail or of all."""
        source = self.inside if inside else self.own
        return sum(value for (n, d), value in source.items() if n == name and detail in (None, d))


def reset_peak() -> None:
    """Begin a new measurement of this process's peak memory."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The process's largest resident size since ``reset_peak``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def family_cpu(pid: int) -> float:
    """CPU seconds so far of a process and its children, those that have ended included."""

    def fields(number: str) -> list[str]:
        try:
            return Path("/proc", number, "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            return []

    ticks = sum(map(int, fields(str(pid))[11:15]))
    for number in filter(str.isdigit, os.listdir("/proc")):
        found = fields(number)
        if found and found[1] == str(pid):
            ticks += int(found[11]) + int(found[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """What a figure depends on besides the code: processor, load before the run, versions."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds; of a figure that is a ratio within one round, the median ratio."""
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text: first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])

    return "\n".join([title, line(header), line(["-" * width for width in widths]), *map(line, rows), ""])


def save(name: str, figures: Mapping[str, Any]) -> Path:
    """Write the latest figures of a benchmark to results/``name``.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    return path

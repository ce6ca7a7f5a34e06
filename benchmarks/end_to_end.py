"""A year of minutes through all nine tables in one Dagster run: speed, where it goes, and memory.

    python -m benchmarks.end_to_end [--rounds 3] [--days 365] [--profile FILE]

Each round runs twice in fresh databases on a throw-away embedded server with fsync on: once as users run it, and
once with one writer; its rows are then written again by two yardsticks (bare.py).

Candles are the real ones of BTCUSDT 1m of 2023 (ALGOBOT_DATA, default ../shared/data), else seeded ones. README.md
says how to read the figures.
"""

from __future__ import annotations

import argparse
import cProfile
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from algobot_assets.cli import runs
from algobot_assets.defs import io_manager
from algobot_assets.defs.checks import factory
from algobot_assets.feed.folder import Folder
from algobot_assets.pipeline import indicators, reference, signals
from algobot_assets.pipeline import table as tables
from algobot_assets.pipeline.candles import parts
from algobot_assets.pipeline.ledger import inputs as ledger_inputs
from algobot_assets.pipeline.ledger import tables as ledger_tables
from algobot_assets.pipeline.steps import batches, parallel_writes, reads
from algobot_assets.schema.windows import Window
from algobot_assets.store import merge, writer
from algobot_assets.store.lineage import recorded
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.server import control as servers
from benchmarks.bare import yardsticks
from benchmarks.harness import PACKAGES, Stages, machine, medians, peak_bytes, reset_peak, save, show
from benchmarks.throwaway import checkpoint
from benchmarks.year import COPIED, FIRST, check_equality, counted, fresh, prepared


def table_of(_: Any, items: Any, *__: Any) -> str:
    """The table that a call of write_windows or read_window is about."""
    return items.table if isinstance(items, Window) else items[0].window.table


WATCHED = (
    *((Folder, name, "fetch", None) for name in ("__init__", "known_through", "first_open", "_read")),
    (indicators, "compute_indicators", "compute", None),
    (signals, "compute_signals", "compute", None),
    (ledger_tables, "run_ledger", "compute", None),
    (ledger_tables, "candle_arrays", "compute", None),
    (tables, "read_window", "read", table_of),
    (reads.Reader, "fetch", "read", None),
    (recorded.Lineages, "read", "plan", None),
    *((module, "read_table", "read", None) for module in (tables, ledger_inputs, reference)),
    (factory, "evaluate", "checks", None),
    (io_manager, "vacuum_months", "vacuum", None),
    *((module, "day_digests", "digest", None) for module in (parts, batches, writer)),
    (merge, "copy_in", "copy", None),
    (merge, "_compare", "verify", None),
    (writer, "read_windows", "lineage", None),
    (lineage, "write", "lineage", None),
    (parallel_writes, "write_windows", "write", table_of),
    (io_manager.PostgresIOManager, "handle_output", "asset", lambda _, context, __: context.asset_key.path[-1]),
    (io_manager.PostgresIOManager, "load_input", "asset", lambda _, context: context.asset_key.path[-1]),
)


def whole_run(
    server: servers.Server, number: int, days: int, file: Path, profile: str | None
) -> tuple[dict[str, float], dict[str, Any]]:
    """One run as users run it, equality, and the run again: figures, and rows and digest of each table."""
    last = FIRST + timedelta(days=days - 1)
    end = last + timedelta(days=1)
    began = time.perf_counter()
    with fresh(server, f"whole_{number}") as (instance, store, _):
        opening = time.perf_counter() - began
        stages, again_stages, profiler = Stages(), Stages(), cProfile.Profile()
        reset_peak()
        with stages.watching(*WATCHED):
            began = time.perf_counter()
            if profile:
                profiler.enable()
            result = runs.materialise(instance, FIRST, last)
            profiler.disable()
            total = time.perf_counter() - began
        peak = peak_bytes()
        if profile:
            profiler.dump_stats(profile)
        if not result.success or result.skipped:
            sys.exit(f"The run failed: {result.error or result.skipped}")
        equality = check_equality(store, end, file)
        checkpoint(server)
        changes: list[int] = []

        def write_windows(*arguments: Any) -> Any:
            written = writer.write_windows(*arguments)
            changes.append(written.changed)
            return written

        with again_stages.watching(*WATCHED), mock.patch.object(parallel_writes, "write_windows", write_windows):
            began = time.perf_counter()
            again = runs.materialise(instance, FIRST, last)
            again_total = time.perf_counter() - began
        if not again.success or check_equality(store, end, file) != equality:
            sys.exit(f"The second run changed what is stored: {again.error}")
    names = sorted({name for name, _ in stages.own} - {"asset"})
    ours = sum(stages.seconds(name, inside=True) for name in ("asset", "checks"))
    again_ours = sum(again_stages.seconds(name, inside=True) for name in ("asset", "checks"))
    return {
        "seconds": total,
        "candles per second": equality["market_data"]["rows"] / total,
        "peak GB": peak / 2**30,
        "opening the Dagster instance": opening,
        "second run seconds": again_total,
        "second run fraction": again_total / total,
        "second run checks": again_stages.seconds("checks", inside=True),
        "second run Dagster": again_total - again_ours,
        "second run rows written": sum(changes),
        "stage Dagster": total - ours,
        "stage tables": stages.seconds("asset", inside=True),
        **{f"stage {name}": stages.seconds(name) for name in names},
    }, equality


def against_bare(server: servers.Server, number: int, days: int) -> dict[str, float]:
    """The same run with one writer, and its rows by both yardsticks: seconds of each per table."""
    last = FIRST + timedelta(days=days - 1)
    with fresh(server, f"copied_{number}", beside=True) as (instance, store, bare):
        stages = Stages()
        with stages.watching(*WATCHED), mock.patch.multiple(parallel_writes, WRITERS=1, UNFINISHED=0):
            result = runs.materialise(instance, FIRST, last)
        if not result.success or result.skipped:
            sys.exit(f"The run failed: {result.error or result.skipped}")
        least = yardsticks(store, bare, last + timedelta(days=1))
        if counted(store) != counted(bare):
            sys.exit("The bare COPY holds other rows than the run stored; no figure is worth anything.")
    figures: dict[str, float] = {}
    for table in COPIED:
        write = stages.seconds("write", table, inside=True)
        figures[f"write {table}"] = write
        figures[f"copy {table}"] = least[table]["bare"]
        figures[f"ratio {table}"] = write / least[table]["bare"]
        figures[f"floor {table}"] = least[table]["floor"]
        figures[f"floor ratio {table}"] = write / least[table]["floor"]
    return figures


def report(figures: dict[str, float]) -> str:
    """The figures as text."""
    total = figures["seconds"]
    general = [
        [name, f"{figures[name]:,.{places}f}"]
        for name, places in (
            ("seconds", 1), ("candles per second", 0), ("peak GB", 2), ("opening the Dagster instance", 1),
            ("second run seconds", 2), ("second run fraction", 3), ("second run checks", 2), ("second run Dagster", 2),
            ("second run rows written", 0),
        )
    ]  # fmt: skip
    stages = sorted(
        ((name.removeprefix("stage "), value) for name, value in figures.items() if name.startswith("stage ")),
        key=lambda item: -item[1],
    )
    columns = ("write {}", "copy {}", "ratio {}", "floor {}", "floor ratio {}")
    tables = [[table, *(f"{figures[column.format(table)]:.2f}" for column in columns)] for table in COPIED]
    return "\n".join(
        [
            show("One run over all nine tables", ["figure", "median"], general),
            show("Stages of it, own time (writers work beside the rest: the sum is more than the clock)",
                 ["stage", "s", "share"], [[n, f"{v:.2f}", f"{v / total:.1%}"] for n, v in stages]),
            show("Writing, against a bare COPY into the keyed table, and the least that the rows can cost (bare.py)",
                 ["table", "write s", "bare s", "ratio", "floor s", "ratio"], tables),
        ]
    )  # fmt: skip


def main() -> None:
    """Run the rounds and print and save their medians."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--days", type=int, default=365)
    options.add_argument("--profile", help="write cProfile's statistics of the last round's run to this file")
    given = options.parse_args()
    state = machine(PACKAGES)
    figures: list[dict[str, float]] = []
    equalities: list[dict[str, Any]] = []
    with prepared(given.days) as (server, file, what):
        for number in range(1, given.rounds + 1):
            profile = given.profile if number == given.rounds else None
            whole, equality = whole_run(server, number, given.days, file, profile)
            figures.append(whole | against_bare(server, number, given.days))
            equalities.append(equality)
    if any(equality != equalities[0] for equality in equalities):
        sys.exit("Two rounds stored different rows; no figure is worth anything.")
    result = medians(figures)
    print(report(result))
    path = save(
        "end_to_end",
        {
            "candles": what,
            "days": given.days,
            "rounds": given.rounds,
            "machine": state,
            "equality": equalities[0],
            "medians": {name: round(value, 4) for name, value in result.items()},
            "seconds of each round": [round(item["seconds"], 2) for item in figures],
        },
    )
    print(f"Written to {path}.")


if __name__ == "__main__":
    main()

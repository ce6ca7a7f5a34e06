"""Operation for an hour, a day of the market in seconds: do memory and connections stay flat, also after failures?

    python -m benchmarks.soak [--minutes 60] [--every 5]

One process, as a code server that never restarts: each cycle runs one more day of all nine tables, asks the client,
and every few cycles something breaks (--every): sessions are ended under a run, a month stays locked, a statement takes
too long, the server is stopped. After each failure no connection may be lost and the next run must heal. A hand edit
and its refresh, and months that leave for the archive, come along. At the end everything stored is recomputed and
compared. Exits with 1 where memory or connections grew, or anything differs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg

from algobot_assets.audit.staleness import due
from algobot_assets.audit.verify import verify
from algobot_assets.cli import runs
from algobot_assets.cli.commands.database import prepare
from algobot_assets.client import Client, connect
from algobot_assets.errors import StoreError
from algobot_assets.settings import Settings
from algobot_assets.store.advisory_locks import lock_months
from algobot_assets.store.connection import Store
from algobot_assets.store.retention.policy import archive_due_months
from algobot_assets.store.server import control as servers
from benchmarks.harness import PACKAGES, machine, save, show
from benchmarks.markets import published
from benchmarks.throwaway import environment, throwaway

FIRST = date(2019, 1, 1)
DAYS = 2500
STATE = f"""
markets:
  - {{symbol: BTCUSDT, interval: 1h, start: {FIRST}}}
  - {{symbol: ETHUSDT, interval: 1h, start: {FIRST}}}
strategies:
  cross:
    type: ema_cross
    market: BTCUSDT 1h
    parameters: {{fast: 5, slow: 13}}
    initial_balance: 10000
    risk_per_trade: 0.02
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 2, stop_loss_percentage: 2, take_profit_percentage: 4}}
  eth:
    type: ema_cross
    market: ETHUSDT 1h
    parameters: {{fast: 9, slow: 21}}
    initial_balance: 5000
    risk_per_trade: 0.01
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 3, take_profit_percentage: 0}}
"""


@dataclass
class Soak:
    """The running platform, and what was seen of it."""

    settings: Settings
    instance: dg.DagsterInstance
    store: Store
    client: Client
    admin: psycopg.Connection
    outcomes: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, float]] = field(default_factory=list)

    def run(self, first: date, last: date, tables: tuple[str, ...] | None = None) -> bool:
        """A range run; whether it succeeded."""
        result = runs.materialise(self.instance, first, last, tables)
        if not result.success and "Stack Trace" in (result.error or ""):
            sys.exit(f"A failure that is no sentence: {result.error}")
        return result.success

    def cycle(self, day: date, fault: str | None) -> None:
        """One day of operation."""
        broken = getattr(self, fault)(day) if fault else False
        self.outcomes[f"{fault}: run failed" if broken else fault or "plain"] += 1
        if fault:
            self.nothing_is_lost(fault)
            healing = due(self.store)
            first = min(day, healing.first) if healing else day
        else:
            first = day
        if not self.run(first, day):
            sys.exit(f"The run of {day} after {fault} did not heal.")
        frame = self.client.candles("BTCUSDT", "1h", day - timedelta(days=30), day + timedelta(days=1)).frame
        if frame.height != 24 * min(31, (day - FIRST).days + 1):
            sys.exit(f"The client sees {frame.height} candles at {day}.")

    # --- what breaks; each says whether the run failed ------------------------------------------------------

    def sessions_end(self, day: date) -> bool:
        """Every session of the platform is ended by the server, again and again, while a run goes."""
        ended = threading.Event()

        def end() -> None:
            while not ended.wait(random.uniform(0.05, 0.4)):
                self.admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'algobot %'"
                )

        thread = threading.Thread(target=end)
        thread.start()
        try:
            return not self.run(day, day)
        finally:
            ended.set()
            thread.join()

    def month_is_locked(self, day: date) -> bool:
        """Somebody holds the month for longer than writers wait."""
        with self.store.database.connect() as stranger:
            lock_months(stranger, "market_data", [day.replace(day=1)])
            with environment(ALGOBOT_LOCK_TIMEOUT="0.2"):
                return not self.run(day, day)

    def statement_is_slow(self, day: date) -> bool:
        """A question takes longer than it may."""
        for _ in range(5):
            try:
                with self.store.transaction() as connection:
                    connection.execute("SET LOCAL statement_timeout = '20ms'")
                    connection.execute("SELECT pg_sleep(1)")
            except StoreError:
                continue
            sys.exit("A statement went on beyond its timeout.")
        return True

    def server_stops(self, day: date) -> bool:
        """The server is stopped and started again; every connection that was kept is dead."""
        servers.stop(self.settings, mode="immediate")
        servers.ensure_running(self.settings)
        self.admin.close()
        self.admin = self.store.database.connect("postgres", autocommit=True)
        return True

    def nothing_is_lost(self, fault: str) -> None:
        """No connection of the long-lived stores is still taken, and none waits."""
        for store in (self.store, self.client._store):
            seen = store._pool.get_stats()
            if seen["pool_available"] != seen["pool_size"] or seen.get("requests_waiting", 0):
                sys.exit(f"After {fault} connections were not given back: {seen}")

    # --- what else goes on ----------------------------------------------------------------------------------

    def edited_by_hand(self, day: date) -> None:
        """A candle is changed by hand; what is stale is computed again, and nothing stays stale."""
        with self.store.transaction() as connection:
            connection.execute(
                """UPDATE market_data SET trades = trades + 1 WHERE symbol = 'ETHUSDT' AND "timestamp" = %s""",
                (datetime(day.year, day.month, day.day, 12, tzinfo=UTC),),
            )
        for _ in range(3):
            healing = due(self.store)
            if healing is None:
                self.outcomes["hand edit healed"] += 1
                return
            self.run(healing.first, healing.last, healing.tables)
        sys.exit(f"After a hand edit of {day} something stays stale: {due(self.store)}")

    def retired(self, day: date) -> None:
        """Months beyond twelve leave for the archive."""
        for outcome in archive_due_months(self.store, self.settings, day):
            if outcome.kept:
                sys.exit(outcome.kept)
            self.outcomes["months archived"] += 1

    def sample(self, began: float, cycles: int) -> None:
        """Memory of this process and of the server, sessions, threads and open files, after a collection."""
        gc.collect()
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        (sessions,) = self.admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
        self.samples.append(
            {
                "minutes": round((time.monotonic() - began) / 60, 2),
                "cycles": cycles,
                "memory_mb": round(int(status["VmRSS"].split()[0]) / 1024, 1),
                "connections": sessions,
                "threads": int(status["Threads"]),
                "files": len(os.listdir("/proc/self/fd")),
            }
        )


FAULTS = ("sessions_end", "month_is_locked", "statement_is_slow", "server_stops")


def soak(minutes: float, every: int) -> Soak:
    """Operate for so long; the platform as it was left, its server stopped."""
    with ExitStack() as stack:
        _, folder = stack.enter_context(throwaway(ALGOBOT_RETENTION_MONTHS="12", ALGOBOT_CONNECT_TIMEOUT="5"))
        (folder / "algobot.yaml").write_text(STATE)
        for seed, (symbol, price) in enumerate((("BTCUSDT", 30_000.0), ("ETHUSDT", 2_000.0)), 1):
            hours = published(FIRST, DAYS, seed, minutes=60, price=price, volatility=0.004, wick=0.003)
            hours.write_parquet(folder / "klines" / "spot" / f"{symbol}-1h-all.parquet")
        settings = Settings()
        prepare(settings)
        store = stack.enter_context(Store.open(settings, "soak"))
        running = Soak(
            settings,
            stack.enter_context(runs.instance(settings)),
            store,
            stack.enter_context(connect(settings)),
            store.database.connect("postgres", autocommit=True),
        )
        began, faults = time.monotonic(), itertools.cycle(FAULTS)
        for number in range(DAYS):
            if time.monotonic() - began > minutes * 60:
                break
            day = FIRST + timedelta(days=number)
            running.cycle(day, next(faults) if number % every == every - 1 else None)
            if number % 20 == 10:
                running.edited_by_hand(day - timedelta(days=3))
            if number % 30 == 29:
                running.retired(day)
            running.sample(began, number + 1)
            if number % 20 == 0:
                print(running.samples[-1], flush=True)
        findings = list(verify(running.store, FIRST, day))
        wrong = [finding for finding in findings if finding.difference]
        if wrong:
            sys.exit(f"What is stored differs from what is computed: {wrong[0]}")
        running.outcomes["partitions' tables verified"] = len(findings)
        running.admin.close()
        return replace(running)


def main() -> None:
    """Operate, show and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=int, default=5, help="cycles from one fault to the next")
    given = parser.parse_args()
    about = machine(PACKAGES)
    random.seed(1)
    found = soak(given.minutes, given.every)
    kept = found.samples
    quarter = max(len(kept) // 4, 1)
    # the first quarter warms up: code is compiled, caches fill
    parts, rows, summary = (kept[quarter : 2 * quarter] or kept, kept[-quarter:]), [], {}
    for name in ("memory_mb", "connections", "threads", "files"):
        early, late = (statistics.median(sample[name] for sample in part) for part in parts)
        most = max(sample[name] for sample in kept)
        summary[name] = {"second quarter": early, "last quarter": late, "most": most}
        rows.append([name, f"{early:,.1f}", f"{late:,.1f}", f"{most:,.1f}"])
    title = f"{kept[-1]['minutes']:.0f} minutes, {kept[-1]['cycles']} days operated; {dict(found.outcomes)}"
    print(show(title, ["medians", "second quarter", "last quarter", "most"], rows))
    step = max(len(kept) // 60, 1)
    figures = {"machine": about, "outcomes": dict(found.outcomes), "summary": summary, "over_time": kept[::step]}
    print(save("soak", figures))
    memory, sessions = summary["memory_mb"], summary["connections"]
    if memory["last quarter"] > 1.1 * memory["second quarter"] + 20:
        sys.exit("Memory grew by more than a tenth.")
    if sessions["last quarter"] > sessions["second quarter"] + 1:
        sys.exit("Connections grew.")


if __name__ == "__main__":
    main()

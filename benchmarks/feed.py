"""Candles from archive and REST into PostgreSQL: speed, the floor under it, and memory.

    python -m benchmarks.feed [--rounds 3] [--years 5]

A replica of Binance answers on loopback from a process of its own, with files and pages made before anything is
timed. Measured: one market's year of minutes from monthly archives through a Dagster run of market_data, beside
unzip + parse + COPY of the same bytes alone; REST through the feed, beside python-binance's
get_historical_klines; peak memory of a run over several years. Equality is checked first.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import polars as pl

from algobot_assets.cli import runs
from algobot_assets.feed import klines
from algobot_assets.feed.archive_files import ArchiveName, _unzip
from algobot_assets.feed.binance_client import public_client
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.simulated.faults import Answer
from algobot_assets.feed.simulated.prices import SimulatedPrices
from algobot_assets.feed.simulated.replay import ReplayedPrices
from algobot_assets.schema.intervals import midnight, months_between
from algobot_assets.schema.windows import Window, content_columns
from algobot_assets.settings import Settings
from algobot_assets.store.connection import Store
from algobot_assets.store.copy import copy_in
from algobot_assets.store.lineage import records as lineage
from algobot_assets.store.lineage.digests import day_digests
from algobot_assets.store.server import control as servers
from benchmarks.harness import machine, medians, peak_bytes, reset_peak, save, show
from benchmarks.throwaway import TEMPLATE, checkpoint, throwaway

FIRST, END = date(2023, 1, 1), date(2024, 1, 1)
NOW = datetime(2024, 1, 20, tzinfo=UTC)
REST_DAYS = 10
STATE = "markets:\n  - {{symbol: BTCUSDT, interval: 1m, start: {first}}}\nstrategies: {{}}\nconfigurations: {{}}\n"
PACKAGES = ("dagster", "polars", "psycopg", "pgpq", "python-binance", "requests")
_spawn = multiprocessing.get_context("spawn")


class Replica(SimulatedExchange):
    """The simulated exchange with every answer made once; only its clock is asked anew."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, weight_limit=10**9)
        self._made: dict[str, Answer] = {}

    def answer(self, target: str) -> Answer:
        """The answer, from memory where it has been given before."""
        if target not in self._made or target.endswith("/time"):
            self._made[target] = super().answer(target)
        return self._made[target]


def names(first: date, end: date) -> list[ArchiveName]:
    """The monthly files of the days [first, end)."""
    return [ArchiveName("BTCUSDT", "1m", "monthly", month) for month in months_between(first, end)]


def serve(pipe: Connection, folder: str | None, first: date) -> None:
    """The replica's process: make the files, tell the address, serve until told to end."""
    replica = Replica(prices=ReplayedPrices(folder) if folder else SimulatedPrices(), now=NOW)
    for name in names(first, END):
        for target in (f"/{name.path}", f"/{name.path}.CHECKSUM"):
            replica.answer(target)
    pipe.send(replica.start())
    pipe.recv()
    replica.stop()


def ingest(pipe: Connection, environment: Mapping[str, str], first: date) -> None:
    """A process that runs market_data over [first, END), and again; sends seconds and peak memory."""
    os.environ.update(environment)
    last = END - timedelta(days=1)
    with runs.instance(Settings()) as instance:
        reset_peak()
        began = time.perf_counter()
        result = runs.materialise(instance, first, last, ("market_data",))
        seconds, peak = time.perf_counter() - began, peak_bytes()
        began = time.perf_counter()
        again = runs.materialise(instance, first, last, ("market_data",))
        pipe.send((result.success and again.success, result.error, seconds, peak, time.perf_counter() - began))


@contextmanager
def process(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """A process of its own, and the pipe to it."""
    here, there = _spawn.Pipe()
    child = _spawn.Process(target=target, args=(there, *arguments), daemon=True)
    child.start()
    there.close()
    try:
        yield here
    finally:
        if child.is_alive() and target is serve:
            here.send(None)
        child.join()


def product(server: servers.Server, home: Path, url: str, database: str, first: date) -> dict[str, float]:
    """Seconds and peak memory of the run into a fresh database."""
    server.ensure_database(database, template=TEMPLATE)
    state = home / f"{database}.yaml"
    state.write_text(STATE.format(first=first))
    environment = {
        "ALGOBOT_DATABASE": database,
        "ALGOBOT_DAGSTER_DATABASE": f"dagster_{database}",
        "ALGOBOT_STATE_FILE": str(state),
        "ALGOBOT_SOURCE": "binance",
        **{f"ALGOBOT_{name}_URL": url for name in ("EXCHANGE", "FUTURES", "ARCHIVE")},
    }
    checkpoint(server)
    with process(ingest, environment, first) as pipe:
        success, error, seconds, peak, again = pipe.recv()
    if not success:
        sys.exit(f"The run failed: {error}")
    return {"seconds": seconds, "peak MB": peak / 2**20, "second run": again}


def bare(server: servers.Server, database: str, files: Mapping[ArchiveName, bytes]) -> dict[str, float]:
    """Seconds of unzip, parse and COPY of the same files alone: no download, digest, lock, lineage or check."""
    server.ensure_database(database, template=TEMPLATE)
    os.environ["ALGOBOT_DATABASE"] = database
    seconds = dict.fromkeys(("unzip", "parse", "copy"), 0.0)
    with Store.open() as store:
        with store.transaction() as connection:
            for name in files:
                connection.execute("SELECT ensure_month(%s)", (name.first,))
        checkpoint(server)
        for name, data in files.items():
            began = time.perf_counter()
            text, _ = _unzip(data, name)
            unzipped = time.perf_counter()
            frame = klines.from_csv(text, name.symbol, name.interval)
            parsed = time.perf_counter()
            with store.transaction() as connection:
                copy_in(connection, "market_data", frame)
            copied = time.perf_counter()
            seconds["unzip"] += unzipped - began
            seconds["parse"] += parsed - unzipped
            seconds["copy"] += copied - parsed
    server.drop_database(database)
    return {**{f"bare {name}": value for name, value in seconds.items()}, "bare seconds": sum(seconds.values())}


def check_equality(database: str, files: Mapping[ArchiveName, bytes]) -> int:
    """Candles stored; stops where their digests are not those of the files."""
    os.environ["ALGOBOT_DATABASE"] = database
    columns, rows = content_columns("market_data"), 0
    with Store.open() as store, store.transaction() as connection:
        for name, data in files.items():
            frame = klines.from_csv(_unzip(data, name)[0], name.symbol, name.interval)
            wanted = day_digests(frame, columns, frame["timestamp"].dt.date())
            window = Window("market_data", name.first, name.hi.date(), name.symbol, name.interval)
            recorded = {d: (item.rows, item.output) for d, item in lineage.read(connection, window).items()}
            stored = connection.execute(
                'SELECT count(*), sum(volume) FROM market_data WHERE symbol = %s AND "timestamp" >= %s '
                'AND "timestamp" < %s',
                (name.symbol, *window.bounds),
            ).fetchone()
            if recorded != wanted or stored != (frame.height, frame["volume"].sum()):
                sys.exit(f"{window}: what is stored is not what the file holds; no figure is worth anything.")
            rows += frame.height
    return rows


def rest(url: str) -> dict[str, float]:
    """Candles per second of the feed's REST and of get_historical_klines, which must bring the same candles."""
    lo, hi = midnight(END - timedelta(days=REST_DAYS)), midnight(END)
    asked = [str(round(moment.timestamp() * 1000)) for moment in (lo, hi - timedelta(milliseconds=1))]
    figures: dict[str, float] = {}
    for attempt in ("warm", "timed"):  # the replica makes its pages in the first
        began = time.perf_counter()
        with closing(Exchange(url)) as exchange:
            ours = pl.concat([s.frame for s in exchange.fetch("BTCUSDT", "1m", lo, hi)])
        middle = time.perf_counter()
        client = public_client(url, url, (5.0, 20.0))
        plain = client.get_historical_klines("BTCUSDT", "1m", int(asked[0]), int(asked[1]))
        ended = time.perf_counter()
        client.close_connection()
        if not ours.equals(klines.from_rest(plain, "BTCUSDT", "1m")):
            sys.exit("REST through the feed and get_historical_klines differ; no figure is worth anything.")
        figures = {"rest": ours.height / (middle - began), "plain": ours.height / (ended - middle)}
        assert attempt
    return figures


def real_candles() -> str | None:
    """The folder of real candles, None where it is not here."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ALGOBOT_DATA", default)) / "klines"
    return str(folder) if (folder / "spot" / "BTCUSDT-1m-2023.parquet").exists() else None


def measure(server: servers.Server, home: Path, rounds: int, years: int) -> dict[str, Any]:
    """All figures: medians of the rounds, REST, memory."""
    import requests

    folder = real_candles()
    figures: list[dict[str, float]] = []
    with process(serve, folder, FIRST) as replica:
        url = replica.recv()
        files = {name: requests.get(f"{url}/{name.path}", timeout=60).content for name in names(FIRST, END)}
        candles = 0
        for number in range(rounds):
            taken = product(server, home, url, f"round_{number}", FIRST)
            candles = check_equality(f"round_{number}", files)
            floor = bare(server, f"bare_{number}", files)
            for database in (f"round_{number}", f"dagster_round_{number}"):
                server.drop_database(database)
            figures.append(
                {
                    **taken,
                    **floor,
                    "candles per second": candles / taken["seconds"],
                    "ratio to bare": taken["seconds"] / floor["bare seconds"],
                    "ratio without the run itself": (taken["seconds"] - taken["second run"]) / floor["bare seconds"],
                }
            )
        by_rest = rest(url)
    result: dict[str, Any] = {"candles": candles, "real": folder is not None, "medians": medians(figures), **by_rest}
    if years:
        first = date(END.year - years, 1, 1)
        with process(serve, None, first) as replica:
            result["years"] = product(server, home, replica.recv(), "years", first)
    return result


def report(result: Mapping[str, Any]) -> str:
    """The figures as text."""
    middle = result["medians"]
    year = [
        ["run of market_data, s", f"{middle['seconds']:.2f}"],
        ["candles per second", f"{middle['candles per second']:,.0f}"],
        ["unzip + parse + COPY alone, s", f"{middle['bare seconds']:.2f}"],
        [
            "  of it unzip, parse, COPY",
            ", ".join(f"{middle[f'bare {part}']:.2f}" for part in ("unzip", "parse", "copy")),
        ],
        ["ratio", f"{middle['ratio to bare']:.2f}"],
        ["the same run again, nothing to fetch, s", f"{middle['second run']:.2f}"],
        ["ratio without what a run costs anyway", f"{middle['ratio without the run itself']:.2f}"],
        ["peak memory, MB", f"{middle['peak MB']:,.0f}"],
    ]
    by_rest = [
        ["the feed, candles/s", f"{result['rest']:,.0f}"],
        ["get_historical_klines, candles/s", f"{result['plain']:,.0f}"],
        ["ratio", f"{result['rest'] / result['plain']:.1f}"],
    ]
    what = "real" if result["real"] else "simulated"
    parts = [
        show(f"{result['candles']:,} {what} candles (1m) from monthly archives", ["figure", "median"], year),
        show(f"{REST_DAYS} days of minutes by REST", ["figure", "value"], by_rest),
    ]
    if "years" in result:
        years = result["years"]
        parts.append(
            show(
                "Several years of simulated minutes",
                ["figure", "value"],
                [["seconds", f"{years['seconds']:.1f}"], ["peak memory, MB", f"{years['peak MB']:,.0f}"]],
            )
        )
    return "\n".join(parts)


def main() -> None:
    """Run, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--years", type=int, default=5, help="length of the run whose memory is measured; 0: none")
    given = options.parse_args()
    state = machine(PACKAGES)
    with throwaway() as (server, folder):
        result = measure(server, folder, given.rounds, given.years)
    print(report(result))
    print(f"Written to {save('feed', {'machine': state, 'rounds': given.rounds, **result})}.")


if __name__ == "__main__":
    main()

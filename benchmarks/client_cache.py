"""What a client's memory of frames gains: each question answered from the database and from memory, in turn.

    python -m benchmarks.client_cache [--days 60] [--rounds 30]

Equality first: both clients must give the same frames. Candles are those of benchmarks/year.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from algobot_assets.cli import runs
from algobot_assets.client import Client, connect
from algobot_assets.client.results import QueryResult
from benchmarks.harness import PACKAGES, machine, save, show
from benchmarks.year import FIRST, fresh, prepared


def questions(days: int) -> dict[str, Callable[[Client], QueryResult]]:
    """What bots and notebooks ask again and again, of the newest stored days."""
    end = FIRST + timedelta(days=days)
    market = ("BTCUSDT", "1m")

    def since(back: int) -> tuple:
        return end - timedelta(days=back), end

    return {
        "candles, 1 day": lambda client: client.candles(*market, *since(1)),
        "candles, 30 days": lambda client: client.candles(*market, *since(30)),
        "candles with indicators, 7 days": lambda client: client.candles_with_indicators(*market, *since(7)),
        "indicators, 7 days": lambda client: client.indicators(*market, *since(7)),
        "signals of a strategy, 7 days": lambda client: client.signals(*market, *since(7), strategy="ema_cross"),
    }


def timed(ask: Callable[[Client], QueryResult], client: Client) -> float:
    """Milliseconds of one question."""
    began = time.perf_counter()
    ask(client)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Measure, show and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    about = machine(PACKAGES)
    figures: dict[str, dict[str, float]] = {}
    with prepared(given.days) as (server, _, what), fresh(server, "cache") as (instance, _, _):
        result = runs.materialise(instance, FIRST, FIRST + timedelta(days=given.days - 1))
        if not result.success:
            sys.exit(f"The run failed: {result.error}")
        with connect(cache_mb=256) as remembering, connect(cache_mb=0) as plain:
            for name, ask in questions(given.days).items():
                first, rows = ask(plain).frame, ask(remembering).frame
                if not first.equals(rows) or not ask(remembering).frame.equals(rows):
                    sys.exit(f"{name}: the answers differ; no figure is worth anything.")
                pairs = [(timed(ask, plain), timed(ask, remembering)) for _ in range(given.rounds)]
                read, kept = (statistics.median(column) for column in zip(*pairs, strict=True))
                gain = statistics.median(one / other for one, other in pairs)
                figures[name] = {"rows": rows.height, "database ms": read, "memory ms": kept, "gain": gain}
            info = remembering.cache_info
    print(
        show(
            f"{what}, {given.days} days, medians of {given.rounds}; hit ratio {info.hit_ratio:.3f}",
            ["question", "rows", "database ms", "memory ms", "gain"],
            [
                [name, f"{f['rows']:,}", f"{f['database ms']:.2f}", f"{f['memory ms']:.2f}", f"{f['gain']:.1f}"]
                for name, f in figures.items()
            ],
        )
    )
    save(
        "client_cache",
        {
            "candles": what,
            "days": given.days,
            "rounds": given.rounds,
            "hit ratio": info.hit_ratio,
            "machine": about,
            "questions": figures,
        },
    )


if __name__ == "__main__":
    main()

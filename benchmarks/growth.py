"""The tables of docs/scaling.md: what grows with the number of candles, and what so many markets need.

The first is measured (scale.py). The second is a model of three measurements, whose terms are below; no figure in it
is typed by hand. ``python -m benchmarks --table`` writes both.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.harness import RESULTS

#: What the model assumes of an installation.
MONTHS, STRATEGIES, MARKETS = 24, 3, (5, 50, 500, 2_000)
CANDLES_A_MONTH = 365 * 1440 / 12
#: Figures of scale.py in the table, with their unit.
SHOWN = (
    ("market_data, GB", "market_data"),
    ("indicators, GB", "indicators"),
    ("signals, GB", "signals of one strategy"),
    ("lineage, GB", "lineage"),
    ("a month of a market, s", "writing a market's month of candles"),
    ("a day of two markets, s", "a day of two markets, all nine tables"),
    ("latest signal, ms", "latest signal of a strategy"),
    ("trades of a strategy, ms", "trades of a strategy"),
    ("candles with indicators, a month, ms", "a month of candles with indicators"),
    ("catalogue, ms", "catalogue of what is stored"),
    ("stale partitions, ms", "what is stale"),
    ("archiving a month, s", "archiving a month of every market"),
    ("dropping the month, ms", "dropping it"),
)


def read(name: str) -> dict[str, Any]:
    """The latest figures of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def by_size() -> list[str]:
    """The measured growth as Markdown."""
    result = read("scale")
    found = result["sizes"]
    lines = ["| | " + " | ".join(f"{s['candles'] / 1e6:.1f} M candles" for s in found) + " | growth |"]
    lines.append("|---" * (len(found) + 2) + "|")
    for name, what in SHOWN:
        unit = name.rpartition(", ")[2]
        cells = [f"{s[name]:,.0f} {unit}" if s[name] >= 100 else f"{s[name]:.3g} {unit}" for s in found]
        lines.append(f"| {what} | " + " | ".join(cells) + f" | {result['laws'].get(name, 'linear')} |")
    return lines


def terms() -> dict[str, float]:
    """The model's terms: CPU seconds of a run and of each market in it, bytes of a candle, seconds of a market-year."""
    day, size, year = read("day"), read("scale")["sizes"][-1], read("end_to_end")
    one, many = day["by history"][0]["CPU seconds"], day["many"]
    per_market = max(0.0, (many["CPU seconds"] - one) / (many["markets"] - 1))
    bytes_a_candle = size["market_data, bytes a row"] + size["indicators, bytes a row"]
    return {
        "run": one - per_market,
        "market": per_market,
        "bytes": bytes_a_candle + STRATEGIES * size["signals, bytes a row"],
        "year": year["medians"]["seconds"] * 365 / year["days"],
    }


def by_markets() -> list[str]:
    """The model as Markdown."""
    used = terms()
    lines = [
        f"| markets (1m, {STRATEGIES} strategies each) | candles, {MONTHS} months | disk | first backfill | one day |",
        "|---|---|---|---|---|",
    ]
    for markets in MARKETS:
        candles = markets * MONTHS * CANDLES_A_MONTH
        backfill, day = markets * MONTHS / 12 * used["year"], used["run"] + markets * used["market"]
        cells = [f"{markets:,}", f"{candles / 1e6:,.0f} M", f"{candles * used['bytes'] / 1e9:,.0f} GB"]
        lines.append("| " + " | ".join([*cells, duration(backfill), duration(day)]) + " |")
    lines += [
        "",
        f"Terms: a run takes {used['run']:.1f} s of CPU, PostgreSQL's included, and {used['market']:.2f} s for each "
        "market in it (`benchmarks.day`), all counted as one core; a candle with what follows from it takes "
        f"{used['bytes']:,.0f} bytes (`benchmarks.scale`); a market's year takes {used['year']:.0f} s on two cores, "
        "PostgreSQL's included (`benchmarks.end_to_end`).",
    ]
    return lines


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.0f} h"


def costs() -> list[str]:
    """What a candle costs worker and server, and the model of many workers, as Markdown."""
    result = read("workers")
    middle = result["medians"]
    here, there = middle["worker CPU, µs a candle"], middle["server CPU, µs a candle"]
    lines = ["| workers | PostgreSQL | workers bring | PostgreSQL takes | limit |", "|---|---|---|---|---|"]
    for workers, cores in ((1, 2), (8, 8), (32, 16), (100, 32)):
        bring = workers * 1e6 / (here + there)
        take = cores * 1e6 / there
        limit = "workers" if bring < take else "PostgreSQL"
        lines.append(f"| {workers} | {cores} cores | {bring:,.0f}/s | {take:,.0f}/s | {limit} |")
    log = min(take, bring) * middle["log, bytes a candle"] / 1e6
    lines += [
        "",
        f"Terms (`benchmarks.workers`), CPU, which hardly moves when others use the machine: a worker computes "
        f"{here:.1f} µs for a candle and waits while PostgreSQL's processes compute {there:.1f} µs; these write "
        f"{middle['log, bytes a candle']:.0f} bytes of log: "
        f"{log:,.0f} MB/s in the last row. Two runs at once on two cores that PostgreSQL shares: "
        f"{middle['speed-up']:.2f} times as fast as one for candles, {middle['computed speed-up']:.2f} times for what "
        f"follows from them, with a load of {result['machine']['load_before'][0]:.1f} from "
        "other processes before them.",
    ]
    return lines


#: The marks in docs/scaling.md and what is written between them.
PARTS = {"growth": by_size, "markets": by_markets, "workers": costs}

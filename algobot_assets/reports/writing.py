"""Write the pages: one file per strategy version and the comparison, each whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from algobot_assets.audit.diff import Comparison
from algobot_assets.audit.explain import explain_trade
from algobot_assets.audit.explain_text import as_text
from algobot_assets.errors import AlgobotError
from algobot_assets.reports.facts import Facts, Reader
from algobot_assets.reports.page import comparison_page, diff_page, strategy_page
from algobot_assets.settings import Settings
from algobot_assets.store.catalogue import StoredVersion
from algobot_assets.store.connection import Store

#: Newest trades of a version that carry their explanation, which takes an eighth of a second each.
EXPLAINED = 12
INDEX = "index.html"


@dataclass(frozen=True)
class WrittenPage:
    """A page of one version: its file, its newest row of backtest_results, its equity by day (day, equity)."""

    item: StoredVersion
    path: Path
    last: dict[str, Any] | None
    curve: pl.DataFrame


def write_comparison(found: Comparison, folder: Path) -> Path:
    """Write the page that compares two versions; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (f"{item.name}~v{item.version}" for item in (found.a, found.b))
    path = folder / f"diff~{'~'.join(names)}.html"
    _write(path, diff_page(found, datetime.now(UTC)))
    return path


def folder_of(settings: Settings) -> Path:
    """Return the folder of the pages: `reports` in the settings' home."""
    return settings.home / "reports"


def write_reports(
    store: Store,
    folder: Path,
    name: str | None = None,
    version: int | None = None,
    progress: Callable[[str], None] = lambda page: None,
) -> list[WrittenPage]:
    """Write the pages of all strategies, or of the named one, and the comparison of all.

    Versions in force are NAME.html, others NAME~vN.html. `progress` gets the name of each page before it is made.
    Raises WindowError for a name or version that is not stored.
    """
    reader = Reader(store)
    in_force = {each: reader.choose(each) for each in dict.fromkeys(item.name for item in reader.versions)}
    if name is not None:
        chosen = reader.choose(name, version)
        wanted = [chosen]
    else:
        wanted = list(reader.versions)
    pages = {item.id: _page(item, in_force) for item in reader.versions}
    folder.mkdir(parents=True, exist_ok=True)
    written: list[WrittenPage] = []
    compared: dict[str, Facts] = {}
    # market by market, because the reader keeps the candles of one market only
    for item in sorted(reader.versions, key=lambda v: (v.symbol, v.interval, v.effective_from, v.id)):
        compares = in_force[item.name] == item
        if item not in wanted and not compares:
            continue
        progress(pages[item.id])
        facts = reader.facts(item)
        if item in wanted:
            of_name = {other.version: pages[other.id] for other in reader.versions if other.name == item.name}
            path = folder / pages[item.id]
            _write(path, strategy_page(facts, _explained(store, facts), of_name))
            written.append(WrittenPage(item, path, facts.last, facts.curve.select("day", "equity")))
        if compares:
            compared[item.name] = facts
    every = [compared[each] for each in in_force]
    names = [pages[item.id] for item in in_force.values()]
    progress(INDEX)
    _write(folder / INDEX, comparison_page(every, names, reader.as_of, reader.exchange))
    return sorted(written, key=lambda page: (page.item.name, page.item.version))


def _page(item: StoredVersion, in_force: dict[str, StoredVersion]) -> str:
    """Return the file name, unique because no strategy's name contains `~`."""
    if in_force[item.name] != item:
        return f"{item.name}~v{item.version}.html"
    return f"{item.name}~.html" if f"{item.name}.html".lower() == INDEX else f"{item.name}.html"


def _explained(store: Store, facts: Facts) -> dict[int, str]:
    found = {}
    for trade_id in facts.trades["id"].tail(EXPLAINED).to_list():
        try:
            found[trade_id] = as_text(explain_trade(store, trade_id))
        except AlgobotError as error:
            found[trade_id] = str(error)
    return found


def _write(path: Path, text: str) -> None:
    """Write under another name first, so that a reader sees the old page or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)

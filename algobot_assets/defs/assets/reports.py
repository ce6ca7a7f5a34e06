"""The asset tear_sheets: an HTML page per strategy and one that compares them.

It has no partitions because a page covers all days. A schedule writes the pages once a day; the refresh does not.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import polars as pl

from algobot_assets.defs.resources import DatabaseResource
from algobot_assets.reports.writing import INDEX, WrittenPage, folder_of, write_reports
from algobot_assets.settings import Settings

_POINTS = 120


def sparkline(equity: pl.Series, width: int = 180, height: int = 36) -> str:
    """Draw the curve as an SVG embedded in Markdown: the UI loads no images from elsewhere."""
    values: list[float] = equity.gather_every(max(1, len(equity) // _POINTS)).to_list()
    if not values:
        return ""
    low, high = min(values), max(values)
    step, scale = width / max(1, len(values) - 1), (height - 4) / ((high - low) or 1)
    points = " ".join(f"{i * step:.1f},{height - 2 - (value - low) * scale:.1f}" for i, value in enumerate(values))
    tone = "#0f8a6a" if values[-1] >= values[0] else "#c8374a"
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"><polyline points="{points}" '
        f'fill="none" stroke="{tone}" stroke-width="1.5"/></svg>'
    )
    return f"![equity](data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()})"


def _table(written: list[WrittenPage], served: str) -> str:
    """Return a Markdown table of each version's newest figures, with its curve and its page."""
    lines = ["| strategy | equity | return % | drawdown % | Sharpe | trades | page |", "|" + " --- |" * 7]
    for page in written:
        last = page.last
        name = f"{page.item.name} v{page.item.version}".replace("|", "\\|")
        shown = f"[{page.path.name}]({served}/{quote(page.path.name)})" if served else page.path.name
        if last is None:
            lines.append(f"| {name} | nothing computed yet | | | | | {shown} |")
            continue
        of = {n: "-" if last[n] is None else f"{last[n] * 100:.2f}" for n in ("total_return", "max_drawdown")}
        ratio = "-" if last["sharpe_ratio"] is None else f"{last['sharpe_ratio']:.2f}"
        lines.append(
            f"| {name} | {sparkline(page.curve['equity'])} | {of['total_return']} | {of['max_drawdown']} | {ratio} | "
            f"{last['total_trades']:,} | {shown} |"
        )
    return "\n".join(lines)


def _tear_sheets(context: dg.AssetExecutionContext, database: DatabaseResource) -> Iterator[dg.MaterializeResult[None]]:
    settings = Settings()
    folder, served = folder_of(settings), settings.reports_url.rstrip("/")
    written = write_reports(database.store, folder, progress=lambda page: context.log.info(f"Writing {page}"))
    index = folder / INDEX

    def link(path: Path) -> dg.MetadataValue:
        # browsers do not follow links from the UI to files, so without a server show the path
        return dg.MetadataValue.url(f"{served}/{quote(path.name)}") if served else dg.MetadataValue.path(str(path))

    yield dg.MaterializeResult(
        asset_key="tear_sheets",
        metadata={
            "comparison": link(index),
            "results": dg.MetadataValue.md(_table(written, served)),
            **{f"{w.item.name} v{w.item.version}": link(w.path) for w in written},
            "pages": len(written),
            "bytes": sum(page.path.stat().st_size for page in written) + index.stat().st_size,
            "folder": dg.MetadataValue.path(str(folder)),
        },
    )


# Dagster reads this annotation without resolving it
_tear_sheets.__annotations__["context"] = dg.AssetExecutionContext
tear_sheets = dg.multi_asset(
    name="tear_sheets",
    specs=[
        dg.AssetSpec(
            "tear_sheets",
            deps=["trade_history", "performance_metrics", "backtest_results"],
            group_name="reports",
            kinds={"html"},
            owners=["team:data"],
            description="An HTML page per strategy and a comparison: candles with entries and exits, equity against "
            "buy and hold, drawdown, months, trades, figures, data quality, hashes. Each is one file that works "
            "offline, in `reports` of ALGOBOT_HOME. `algobot up` serves them one port above the UI; "
            "`algobot report --open` opens them without it.",
        )
    ],
)(_tear_sheets)

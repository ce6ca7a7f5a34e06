"""tear_sheets: the pages of every strategy and the one that compares them, as files.

Not one of the nine tables: it has no partitions, as a page is about all days, and is made once a day or when asked for,
never by the refresh. What is on a page is said in reports/.
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
    """The curve as an image in Markdown: an SVG inside of it, as the UI loads nothing from elsewhere."""
    values = equity.gather_every(max(1, len(equity) // _POINTS))
    low, high = values.min(), values.max()
    if low is None:
        return ""
    step, scale = width / max(1, len(values) - 1), (height - 4) / ((high - low) or 1)
    points = " ".join(f"{i * step:.1f},{height - 2 - (value - low) * scale:.1f}" for i, value in enumerate(values))
    tone = "#0f8a6a" if values[-1] >= values[0] else "#c8374a"
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"><polyline points="{points}" '
        f'fill="none" stroke="{tone}" stroke-width="1.5"/></svg>'
    )
    return f"![equity](data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()})"


def _table(written: list[WrittenPage], served: str) -> str:
    """The newest figures of every version with its curve and its page."""
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


def _tear_sheets(context, database: DatabaseResource) -> Iterator[dg.MaterializeResult]:
    settings = Settings()
    folder, served = folder_of(settings), settings.reports_url.rstrip("/")
    written = write_reports(database.store, folder, progress=lambda page: context.log.info(f"Writing {page}"))
    index = folder / INDEX

    def link(path: Path) -> dg.MetadataValue:
        # a browser follows no link from the UI to a file: without a server the path, to be copied
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


tear_sheets = dg.multi_asset(
    name="tear_sheets",
    specs=[
        dg.AssetSpec(
            "tear_sheets",
            deps=["trade_history", "performance_metrics", "backtest_results"],
            group_name="reports",
            kinds={"html"},
            owners=["team:data"],
            description="A page to look at per strategy, and one that compares them: candles with entries and exits, "
            "equity against buy and hold, drawdown, months, trades, figures, data quality, hashes. Each is one file "
            "that needs no network, in `reports` of ALGOBOT_HOME. `algobot up` serves them one port above the UI's; "
            "`algobot report --open` shows them without it.",
        )
    ],
)(_tear_sheets)

"""Makes docs/images/report.png, the picture of the README, from the stored results: `python tests/pictures.py`.

Run it in a home where `algobot demo` has run; it needs Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import browser

from algobot_assets.reports.writing import write_reports
from algobot_assets.store.connection import Store

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
DRAWN = "document.documentElement.dataset.drawn !== undefined"


def main(strategy: str) -> None:
    """Picture the top of a strategy's page and its candles."""
    with tempfile.TemporaryDirectory() as folder, Store.open() as store:
        page = write_reports(store, Path(folder) / "pages", strategy)[0].path
        with browser(Path(folder)) as tab:
            tab.look(1200, 1020)
            tab.open(page.as_uri(), DRAWN)
            tab.picture(IMAGES / "report.png")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["btc_ema_cross"])

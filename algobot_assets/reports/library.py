"""Embed the charting library and a page's data into the page.

Pages work from a file without a network, so each contains the library, compressed from 4.8 MB to 1.5. Browsers
unpack it themselves (DecompressionStream, since 2023).
"""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib.metadata import version
from typing import Any

from plotly.offline import get_plotlyjs


@cache
def charting() -> str:
    """Return plotly.js as gzip in base64."""
    return _packed(get_plotlyjs(), 9)


def charting_version() -> str:
    """Return the version of the plotly package."""
    return version("plotly")


def packed(data: Any) -> str:
    """Return plain values as JSON, gzip in base64, in which nothing can be taken for markup."""
    return _packed(json.dumps(data, separators=(",", ":"), allow_nan=False), 6)


def _packed(text: str, level: int) -> str:
    # mtime 0: equal contents are equal files
    return base64.b64encode(gzip.compress(text.encode(), level, mtime=0)).decode()

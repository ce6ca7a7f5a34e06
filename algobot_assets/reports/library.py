"""The charting library and a page's data, as they are put into a page.

Pages work from a file without a network, so the library is inside of each; compressed, as its 4.8 MB become 1.5.
Browsers have unpacked that by themselves (DecompressionStream) since 2023.
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
    """plotly.js, gzip in base64."""
    return _packed(get_plotlyjs(), 9)


def charting_version() -> str:
    """Version of the Python package that carries it."""
    return version("plotly")


def packed(data: Any) -> str:
    """JSON of plain values, gzip in base64: nothing in it can be taken for markup."""
    return _packed(json.dumps(data, separators=(",", ":"), allow_nan=False), 6)


def _packed(text: str, level: int) -> str:
    # mtime 0: equal contents are equal files
    return base64.b64encode(gzip.compress(text.encode(), level, mtime=0)).decode()

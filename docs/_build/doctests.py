"""Shows the examples in docstrings as code: fences each block that begins with `>>>`."""

from __future__ import annotations

import re
from typing import Any

import griffe


class FenceDoctests(griffe.Extension):
    """Put doctests, which run as tests in the sources, into blocks of Python on the site."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of one object."""
        if obj.docstring is not None:
            example = re.compile(r"^>>> .*(?:\n(?!\n).*)*", re.MULTILINE)
            obj.docstring.value = example.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)

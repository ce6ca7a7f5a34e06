"""Translate recorded code versions, so that nothing computed by the release before becomes stale.

That release digested the text of the sources, layout and import paths included. From here on a version covers only
what computes. Days that the release's own sources computed get the version of the same code as it stands here; days
of a user's strategy get the version of its file as it stands now, if the release would have given that file the
version that is recorded. All other versions are left alone.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import sys
import tokenize
import zlib
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from alembic import op

from algobot_assets.compute.code_version import own_imports, version_of_strategy
from algobot_assets.compute.source_digest import source_text
from algobot_assets.compute.strategies import Registered, registered, strategy_types

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

#: What the release before computed with, and the version of the same code in this release.
INDICATORS = ("eac68a5c8057e074", "6a6d1760c779392e")
LEDGER = ("e5a6f5cf83d3c663", "efee22fe4c1a7d18")
STRATEGIES = {
    "btc": ("fd8d60f29ed69d83", "25226b6ff903a5e0"),
    "ema_cross": ("0f27d0700195cd31", "809f37cc2b86e049"),
    "macd": ("3d095961bee092a3", "3d9eeb8af4ead53a"),
}
#: Digests, in this release, of the modules that a user's strategy computes with.
MODULES = {
    "algobot_assets.compute.candles": "fc18dfc02c22c84c",
    "algobot_assets.compute.carry": "c38800a9f0a768d3",
    "algobot_assets.compute.indicators": "d8d810e2037268f5",
    "algobot_assets.compute.kernels": "677f6d148c6f24f9",
    "algobot_assets.compute.native": "f0a8f74ed37ddd02",
    "algobot_assets.compute.strategies.btc": "d8eb8f64be50be11",
    "algobot_assets.compute.strategies.ema_cross": "b303e189f341a164",
    "algobot_assets.compute.strategies.macd": "c9ba7975bf75fa21",
    "algobot_assets.compute.strategy.bars": "ccb052c4a657d77a",
}
#: The modules that the release before put in front of each strategy's file.
_PLATFORM = tuple(f"algobot_assets.compute.{name}" for name in ("carry", "kernels", "candles", "bars"))
_SOURCES = Path(__file__).with_name("0011_release_sources.json")
_log = logging.getLogger("alembic.runtime.migration")


def upgrade() -> None:
    _translate(dict(_translations()) if _is_filled() else {})


def downgrade() -> None:
    _translate({new: old for old, new in _translations()} if _is_filled() else {})


def _is_filled() -> bool:
    """False for a new database: nobody's strategies need to be loaded then."""
    statement = "SELECT EXISTS (SELECT FROM lineage) OR EXISTS (SELECT FROM code_versions)"
    return bool(op.get_bind().execute(sa.text(statement)).scalar_one())


def _translate(versions: dict[str, str]) -> None:
    for table in ("lineage", "code_versions") if versions else ():
        op.get_bind().execute(
            sa.text(
                f"""UPDATE {table} AS r SET code_version = t.now
                      FROM unnest(CAST(:before AS text[]), CAST(:now AS text[])) AS t (before, now)
                     WHERE r.code_version = t.before"""
            ),
            {"before": list(versions), "now": list(versions.values())},
        )


def _translations() -> Iterator[tuple[str, str]]:
    """Pairs of code versions of the same code: the release's, and the one from here on."""
    yield from (INDICATORS, LEDGER, *STRATEGIES.values())
    kept = json.loads(_SOURCES.read_text(encoding="utf-8"))
    essences = json.loads(zlib.decompress(base64.b64decode("".join(kept["essences"]))))
    for kind in sorted(set(strategy_types()) - set(STRATEGIES)):
        strategy = registered(kind)
        before = _version_before(strategy, essences, kept["imports"])
        if before is not None:
            yield before, version_of_strategy(strategy, MODULES)


def _version_before(strategy: Registered, essences: dict[str, str], imports: dict[str, list[str]]) -> str | None:
    """The version that the release gave to a user's strategy; None if its sources at that time are not known."""
    found: dict[str, str] = {}
    for name in own_imports(strategy.text, strategy.strategy.module):
        if name in essences:
            found |= {part: essences[part] for part in (name, *imports[name])}
        elif name.startswith("algobot_assets.compute.") and not name.startswith("algobot_assets.compute.strategies."):
            _log.warning("Strategy %s imports %s: its days will be recomputed.", strategy.strategy.name, name)
            return None
        else:
            found[name] = essence(source_text(sys.modules[name]))
    parts = [essences[name] for name in _PLATFORM] + [essence(strategy.text)] + [found[name] for name in sorted(found)]
    return hashlib.sha256(b"".join(part.encode() + b"\0" for part in parts)).hexdigest()[:16]


def essence(text: str) -> str:
    """What the release digested of a source: its lines without comments, docstrings and blank lines."""
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    cuts: list[tuple[tuple[int, int], tuple[int, int]]] = []
    statement: list[tokenize.TokenInfo] = []
    layout = (tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
    for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL):
            cuts.append((token.start, token.end if token.type == tokenize.COMMENT else token.start))
        elif token.type == tokenize.NEWLINE:
            if all(part.type == tokenize.STRING for part in statement):
                cuts += [(part.start, part.end) for part in statement]
            cuts.append((token.start, token.start))
            statement = []
        elif token.type not in layout:
            statement.append(token)
    touched: set[int] = set()
    for (first, left), (last, right) in sorted(cuts, reverse=True):
        touched.update(range(first, last + 1))
        if (first, left) != (last, right):
            lines[first - 1 : last] = [lines[first - 1][:left] + lines[last - 1][right:], *[""] * (last - first)]
    kept = [
        line.rstrip() if row in touched else line
        for row, line in enumerate(lines, start=1)
        if line.strip() or row not in touched
    ]
    return "\n".join(kept)

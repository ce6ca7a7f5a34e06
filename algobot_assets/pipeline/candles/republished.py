"""Find files that their publisher replaced after they were loaded.

One small request per file compares the checksum stored with the candles with the one published now. market_data
fetches the days of replaced files again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import groupby

from algobot_assets.feed.source import Source
from algobot_assets.store.connection import Store

#: The most files compared at once, newest first.
LIMIT = 2_000


@dataclass(frozen=True)
class Replaced:
    """A replaced file and the days whose candles came from its earlier version."""

    symbol: str
    interval: str
    name: str
    days: tuple[date, ...]


@dataclass(frozen=True)
class Compared:
    """The result of a comparison. files: number of files loaded; checked: number of them compared."""

    files: int
    checked: int
    replaced: tuple[Replaced, ...]

    @property
    def days(self) -> list[date]:
        """The days of replaced files, all markets together, ascending."""
        return sorted({day for item in self.replaced for day in item.days})


def republished(
    store: Store,
    source: Source,
    first: date | None = None,
    end: date | None = None,
    *,
    market: tuple[str, str] | None = None,
    limit: int = LIMIT,
) -> Compared:
    """Return the files behind the stored candles of the days [first, end) that their publisher has replaced.

    ``market``: (symbol, interval), by default every market. A file that is no longer published counts as unchanged.
    Errors are the source's: SourceError, SourceUnavailable.
    """
    with store.transaction() as connection:
        rows = connection.execute(
            """SELECT symbol, "interval", kind, name, encode(sha256, 'hex'), array_agg(DISTINCT day ORDER BY day)
                 FROM sources
                WHERE sha256 IS NOT NULL AND day >= coalesce(%(first)s::date, '-infinity')
                  AND day < coalesce(%(end)s::date, 'infinity')
                  AND (%(symbol)s::text IS NULL OR (symbol, "interval") = (%(symbol)s::text, %(interval)s::text))
                GROUP BY 1, 2, 3, 4, 5 ORDER BY max(day) DESC, 1, 2, 3, 4""",
            {
                "first": first,
                "end": end,
                "symbol": market[0] if market else None,
                "interval": market[1] if market else None,
            },
        ).fetchall()
    files = list(dict.fromkeys(tuple(row[:4]) for row in rows))
    chosen = files[:limit]
    now: dict[tuple[str, str, str, str], str | None] = {}
    for (symbol, interval), group in groupby(sorted(chosen), lambda file: file[:2]):
        names = list(group)
        published = source.checksums(symbol, interval, [(kind, name) for _, _, kind, name in names])
        now.update(zip(names, published, strict=True))
    replaced = [
        Replaced(row[0], row[1], row[3], tuple(row[5])) for row in rows if now.get(tuple(row[:4])) not in (None, row[4])
    ]
    return Compared(len(files), len(chosen), tuple(sorted(replaced, key=lambda r: (r.symbol, r.interval, r.days))))

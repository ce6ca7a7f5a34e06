"""Turn consecutive failures into one incident, and its end into one recovery.

Pure logic without Dagster: maps the outcomes of runs to documents to send, and keeps its state as one JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

#: Documents kept for a webhook that does not answer; beyond this, the oldest are dropped.
_WAITING = 100
#: Ids of counted runs to remember: the record of a run may change after its end.
_COUNTED = 200
#: Maximum length of a message in characters.
_LONGEST = 1000


@dataclass(frozen=True)
class Outcome:
    """The outcome of one asset or check in one run.

    ``part``: the name of the check, or empty for the asset's computation. ``failure``: a message, None for success.
    """

    asset: str
    part: str
    failure: str | None


@dataclass
class Memory:
    """The state of the alerts between two ticks.

    ``failing``: per "asset/part" the number of failures in a row, the time of the first, and the last message and run.
    ``open``: reported incidents with their assets. ``waiting``: documents not sent yet. ``after``: time of the newest
    run seen. ``counted``: ids of runs already counted.
    """

    after: float | None = None
    failing: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, text: str | None) -> Memory:
        """Read the sensor's cursor; an empty one is a fresh start."""
        return cls(**json.loads(text)) if text else cls()

    def dump(self) -> str:
        """Return the text for the sensor's cursor."""
        return json.dumps(asdict(self))

    def count(self, run_id: str, ended: datetime, outcomes: Sequence[Outcome], threshold: int) -> None:
        """Count the outcomes of one run, and add the resulting documents to ``waiting``.

        All parts that reach the threshold in one run form one incident. While an asset has an open incident, further
        failures of that asset belong to it. The incident ends when none of its assets fails any more.
        """
        self.counted = [*self.counted, run_id][-_COUNTED:]
        for outcome in outcomes:
            key = f"{outcome.asset}/{outcome.part}"
            if outcome.failure is None:
                self.failing.pop(key, None)
                continue
            before = self.failing.get(key, {"times": 0, "since": ended.isoformat()})
            self.failing[key] = {
                "times": before["times"] + 1,
                "since": before["since"],
                "sentence": outcome.failure[:_LONGEST],
                "run_id": run_id,
            }
        self._open(run_id, threshold)
        self._close(run_id, ended)

    def _open(self, run_id: str, threshold: int) -> None:
        told = {asset for incident in self.open for asset in incident["assets"]}
        new = {
            key: item
            for key, item in self.failing.items()
            if item["run_id"] == run_id and item["times"] >= threshold and key.split("/")[0] not in told
        }
        if not new:
            return
        assets = sorted({key.split("/")[0] for key in new})
        incident = {"assets": assets, "since": min(item["since"] for item in new.values())}
        self.open.append(incident)
        times = max(item["times"] for item in new.values())
        sentences = list(dict.fromkeys(item["sentence"] for item in new.values()))
        self._wait(
            {
                "event": "failure",
                "assets": assets,
                "checks": sorted(key.split("/")[1] for key in new if not key.endswith("/")),
                "times": times,
                "since": incident["since"],
                "run_id": run_id,
                "sentences": sentences,
                "text": f"{', '.join(assets)} failed {times} times in a row. {sentences[0]}",
            }
        )

    def _close(self, run_id: str, ended: datetime) -> None:
        failing = {key.split("/")[0] for key in self.failing}
        for incident in [item for item in self.open if not failing.intersection(item["assets"])]:
            self.open.remove(incident)
            self._wait(
                {
                    "event": "recovery",
                    "assets": incident["assets"],
                    "since": incident["since"],
                    "until": ended.isoformat(),
                    "run_id": run_id,
                    "text": f"{', '.join(incident['assets'])} work again; they had failed since {incident['since']}.",
                }
            )

    def _wait(self, document: Mapping[str, Any]) -> None:
        self.waiting = [*self.waiting, {"source": "algobot", **document}][-_WAITING:]

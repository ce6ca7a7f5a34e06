"""From how runs ended to what a person must know: consecutive failures become one incident, its end one recovery.

Plain values, no Dagster: what happened goes in, documents to send come out, and all that must be remembered is one
JSON text. Reading runs and sending are the sensor's affair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

#: Documents that wait for a webhook that does not answer; beyond it the oldest are given up.
_WAITING = 100
#: Runs that are remembered as counted: a run's record may change after its end.
_COUNTED = 200
#: Characters of a sentence that are sent.
_LONGEST = 1000


@dataclass(frozen=True)
class Outcome:
    """How one thing ended in one run. ``asset``: whose affair it is. ``part``: what of it, empty for the computation,
    else the name of a check. ``failure``: a sentence, None where it went well."""

    asset: str
    part: str
    failure: str | None


@dataclass
class Memory:
    """What the alerts remember between two ticks.

    ``failing``: per "asset/part" how often in a row it failed, since when, and the last sentence and run. ``open``:
    incidents that a person was told of, each with its assets. ``waiting``: documents not yet sent. ``after``: time of
    the newest run looked at. ``counted``: ids of runs that are counted already.
    """

    after: float | None = None
    failing: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, text: str | None) -> Memory:
        """From the sensor's cursor; an empty one is a fresh start."""
        return cls(**json.loads(text)) if text else cls()

    def dump(self) -> str:
        """For the sensor's cursor."""
        return json.dumps(asdict(self))

    def count(self, run_id: str, ended: datetime, outcomes: Sequence[Outcome], threshold: int) -> None:
        """Take in how one run ended, and add what a person must know of it to ``waiting``.

        Things that reach the threshold in one run are one incident. While an incident of an asset is open, whatever
        else fails of that asset belongs to it; it is over when nothing of its assets fails any more.
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

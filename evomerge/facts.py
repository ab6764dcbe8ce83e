"""What a result depends on beside its campaign: recorded when it begins, compared when it is resumed."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.check import Preflight
from evomerge.errors import ResultsError
from evomerge.goals import Size
from evomerge.merge import Layout
from evomerge.store import Store
from evomerge.trial import SPLITS

_CHANGED = {
    "models": "is not what it was",
    "items": (
        "is drawn from other documents than it was (its data changed, or an earlier version drew it "
        "apart from a task that has the same documents)"
    ),
    "prompts": "is not what it was",
}


def facts_of(ready: Preflight, first: Sequence[Mapping[str, float]] = ()) -> dict[str, Any]:
    """Return versions, models, prompts, items and directions as JSON values.

    Args:
        ready: The checked campaign.
        first: Points that the search begins with.
    """
    names = ("evomerge", "torch", "transformers", "lm_eval", "optuna")
    goals, items, base = ready.campaign.objectives, ready.items, ready.family.base
    sizes = {name: math.prod(header.shape) for name, header in base.tensors.items()}
    return {
        "versions": {name: importlib.metadata.version(name) for name in names},
        "models": dict(ready.family.hashes),
        "prompts": dict(items.digests),
        "higher_is_better": {
            goal.task: {
                metric: items.higher_is_better(goal.task, metric)
                for metric in (goal.metric, goal.report)
            }
            for goal in goals
        },
        "items": {
            goal.task: {split: list(items.ids(goal.task, split)) for split in SPLITS}
            for goal in goals
        },
        "size": Size.count(sizes, Layout.of(base).layer_of).to_json(),
        "first": [dict(point) for point in first],
    }


def refuse_changes(store: Store, now: Mapping[str, Any]) -> None:
    """Refuse to mix results of unlike models, prompts, items, or major versions.

    Args:
        store: Of the campaign that is resumed.
        now: The facts as they are.

    Raises:
        ResultsError: Naming what differs.
    """
    before = store.facts
    for what in ("models", "items", "prompts"):  # other items are other prompts, too
        for name, value in before[what].items():
            if now[what].get(name) != value:
                raise ResultsError(
                    f'the {what} changed since the campaign began: "{name}" {_CHANGED[what]}; '
                    "start a new campaign with another --out",
                    file=store.folder,
                )
    for library in ("optuna", "lm_eval"):
        old, new = before["versions"][library], now["versions"][library]
        if old.split(".")[0] != new.split(".")[0] or (library == "lm_eval" and old != new):
            raise ResultsError(
                f"the campaign ran with {library} {old}, found {new}; install {library}=={old} to "
                "resume it",
                file=store.folder,
            )

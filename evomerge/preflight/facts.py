"""What a result depends on beside its campaign: recorded when it begins, compared when it is resumed.

The rule: what can change the scores of stored trials, or their meaning, is refused; what moves at most their
low bits is warned of. Refused: other files of a model (a Hub id that moved to a commit with other files
included), other prompts or items, another version of lm-eval, another major version of Optuna. Warned of:
another version of any other library, and a Hub id that moved to a commit with the same files.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.candidate.trial import SPLITS, row_key, row_name
from evomerge.errors import ResultsError
from evomerge.merge.layout import Layout
from evomerge.objective import Size
from evomerge.preflight.check import Preflight
from evomerge.store import Store

LIBRARIES = ("evomerge", "torch", "transformers", "tokenizers", "datasets", "lm_eval", "optuna")
"""Whose versions are recorded."""

_CHANGED = {
    "models": "is not what it was",
    "items": (
        "is drawn from other documents than it was (its data changed, or an earlier version drew it "
        "apart from a task that has the same documents)"
    ),
    "prompts": "is not what it was",
}


def facts_of(ready: Preflight, first: Sequence[Mapping[str, float]] = ()) -> dict[str, Any]:
    """Return versions, models, their commits on the Hub, prompts, items and directions as JSON values.

    Args:
        ready: The checked campaign.
        first: Points that the search begins with.
    """
    goals, items, base = ready.campaign.objectives, ready.items, ready.family.base
    sizes = {name: math.prod(header.shape) for name, header in base.tensors.items()}
    return {
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "models": {_key(name): digest for name, digest in ready.family.hashes.items()},
        "revisions": {_key(name): commit for name, commit in ready.family.revisions.items()},
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


def refuse_changes(store: Store, now: Mapping[str, Any]) -> list[str]:
    """Refuse to mix results of unlike models, prompts, items or versions, by the rule above.

    Args:
        store: Of the campaign that is resumed.
        now: The facts as they are.

    Returns:
        Warnings, a sentence each.

    Raises:
        ResultsError: Naming what differs.
    """
    before = store.facts
    old, new = before.get("revisions"), now["revisions"]
    for what in ("models", "items", "prompts"):  # other items are other prompts, too
        for key, value in before[what].items():
            if now[what].get(key) == value or (what == "models" and old is None and key in new):
                continue
            name, moved = key, ""
            if what == "models":
                name = row_name(key)
                moved = _moved((old or {}).get(key), new.get(key))
            raise ResultsError(
                f'the {what} changed since the campaign began: "{name}" {_CHANGED[what]}{moved}; '
                "start a new campaign with another --out",
                file=store.folder,
            )
    for library in ("optuna", "lm_eval"):
        was, found = before["versions"][library], now["versions"][library]
        if was.split(".")[0] != found.split(".")[0] or (library == "lm_eval" and was != found):
            raise ResultsError(
                f"the campaign ran with {library} {was}, found {found}; install {library}=={was} to "
                "resume it",
                file=store.folder,
            )
    return [*_other_versions(before["versions"], now["versions"]), *_other_commits(old, new)]


def _other_versions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    changed = [
        f"{library} {before[library]} (now {now[library]})"
        for library in LIBRARIES
        if library in before and before[library] != now[library]
    ]
    if not changed:
        return []
    return [
        f"the campaign ran with {', '.join(changed)}: scores from now on may differ from the stored ones "
        "in their low bits"
    ]


def _other_commits(before: Mapping[str, str] | None, now: Mapping[str, str]) -> list[str]:
    if before is None:
        names = ", ".join(map(row_name, now))
        recorded = f"of models from the Hub no commit was recorded ({names}): whether they moved is unknown"
        return [recorded] if now else []
    return [
        f"{row_name(key)} moved on the Hub from {before[key]} to {commit}; the files that count are the same"
        for key, commit in now.items()
        if before.get(key, commit) != commit
    ]


def _moved(before: str | None, now: str | None) -> str:
    if before is None or now is None or before == now:
        return ""
    return f" (on the Hub it moved from {before} to {now}; MODEL@{before} names the old one)"


def _key(name: str) -> str:
    return row_key("base" if name == "base" else "expert", name)

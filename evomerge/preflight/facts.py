"""What a result depends on beside its campaign: recorded when it begins, compared when it is resumed.

The rule: what can change the scores of stored trials, or their meaning, is refused; what moves at most their
low bits is warned of. Refused: other files of a model (a Hub id that moved to a commit with other files
included), other prompts or items, another version of lm-eval, another major version of Optuna. Warned of:
another version of any other library, and a Hub id that moved to a commit with the same files.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.candidate.trial import SPLITS, row_key, row_name
from evomerge.errors import ResultsError
from evomerge.merge.quantise import PACKAGE
from evomerge.preflight.check import Preflight
from evomerge.preflight.family import size_of
from evomerge.store import Store
from evomerge.tasks import answers_digest

LIBRARIES = ("evomerge", "torch", "transformers", "tokenizers", "datasets", "lm_eval", "optuna")
"""Whose versions are recorded."""

_CHANGED = {
    "models": "is not what it was",
    "methods": "declares other merge methods, or computes them otherwise",
    "items": (
        "is drawn from other documents than it was (its data changed, or an earlier version drew it "
        "apart from a task that has the same documents)"
    ),
    "prompts": "is not what it was",
    "prompt files": "has other prompts, or another max_tokens or until",
    "answers": "has other answers of its teacher's",
}


def facts_of(ready: Preflight, first: Sequence[Mapping[str, float]] = ()) -> dict[str, Any]:
    """Return versions, models, their commits on the Hub, prompts, items and directions as JSON values.

    Args:
        ready: The checked campaign.
        first: Points that the search begins with.
    """
    goals, items = ready.campaign.objectives, ready.items
    allow_pickle = ready.campaign.models.allow_pickle
    libraries = (*LIBRARIES, PACKAGE) if ready.campaign.scorer.quantise else LIBRARIES
    return {
        "versions": {name: importlib.metadata.version(name) for name in libraries},
        "models": {_key(name): digest for name, digest in ready.family.hashes.items()},
        "revisions": {_key(name): commit for name, commit in ready.family.revisions.items()},
        "prompts": dict(items.digests),
        "prompt files": {each.task: each.digest for each in ready.prompts},
        "methods": {} if ready.methods is None else {ready.methods.name: ready.methods.digest},
        "answers": {
            each.task: answers_digest(Path(each.answers), each.task)
            for each in ready.requests
            if each.answers is not None
        },
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
        "size": size_of(ready.family, allow_pickle=allow_pickle).to_json(),
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
    # other prompts of a file are other items, and those are other prompts, too
    for what in ("models", "methods", "prompt files", "items", "prompts", "answers"):
        for key, value in before.get(what, {}).items():
            if now[what].get(key) == value:
                continue
            name, moved = key, ""
            if what == "models":
                name = row_name(key)
                moved = _moved(before["revisions"].get(key), now["revisions"].get(key))
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
    changed = [
        f"{library} {was} (now {found})"
        for library, found in now["versions"].items()
        if (was := before["versions"].get(library, found)) != found
    ]
    warnings = [
        f"{row_name(key)} moved on the Hub from {before['revisions'][key]} to {commit}; the files that "
        "count are the same"
        for key, commit in now["revisions"].items()
        if before["revisions"].get(key, commit) != commit
    ]
    if changed:
        warnings.insert(
            0,
            f"the campaign ran with {', '.join(changed)}: scores from now on may differ from the stored "
            "ones in their low bits",
        )
    return warnings


def _moved(before: str | None, now: str | None) -> str:
    if before is None or now is None or before == now:
        return ""
    return f" (on the Hub it moved from {before} to {now}; MODEL@{before} names the old one)"


def _key(name: str) -> str:
    return row_key("base" if name == "base" else "expert", name)

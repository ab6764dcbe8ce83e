"""What campaigns have in common, and why they cannot be compared.

Only like is compared with like: the same lm-eval version and, task by task, the same metric and, item by
item, the same prompt and right answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from evomerge.candidate.trial import SPLITS, Split
from evomerge.errors import ResultsError
from evomerge.report.material import Material
from evomerge.report.summary import Goal
from evomerge.store import ItemText

Sides = Mapping[str, Material]
"""What a campaign is called → the campaign; the others are compared with the first."""


@dataclass(frozen=True)
class Common:
    """What campaigns share.

    Attributes:
        split: The items that are compared.
        goals: The first campaign's objectives, as far as all have them. Values count as they are, not as
            shares of the best expert's, which may differ between campaigns.
        left_out: Tasks that not all have.
        faults: Why the campaigns cannot be compared, a clause each; none where they can.
    """

    split: Split
    goals: tuple[Goal, ...]
    left_out: tuple[str, ...]
    faults: tuple[str, ...]


def common(sides: Sides, split: Split | None = None) -> Common:
    """Find what campaigns share.

    Args:
        sides: Two or more.
        split: Which items; None: the last that every campaign has scores on.

    Raises:
        ResultsError: They are fewer than two, or have no task in common.
    """
    labels, materials = list(sides), list(sides.values())
    if len(labels) < 2:
        raise ResultsError(f"found {len(labels)} leaderboard, expected two or more to compare")
    split = split or SPLITS[min(SPLITS.index(one.split) for one in materials)]
    tasks = [[goal.task for goal in one.board.campaign.goals] for one in materials]
    shared = [task for task in tasks[0] if all(task in known for known in tasks)]
    if not shared:
        raise ResultsError(f"{labels[0]} and {', '.join(labels[1:])} have no task in common")
    every = dict.fromkeys(task for known in tasks for task in known)
    faults = [
        fault
        for label, other in list(sides.items())[1:]
        for fault in _faults({labels[0]: materials[0], label: other}, shared, split)
    ]
    return Common(
        split,
        tuple(
            replace(goal, normalized=False)
            for goal in materials[0].board.campaign.goals
            if goal.task in shared
        ),
        tuple(task for task in every if task not in shared),
        tuple(faults),
    )


def refuse(found: Common) -> None:
    """Refuse what cannot be compared. Raises ResultsError with every reason."""
    if found.faults:
        raise ResultsError(
            f"cannot be compared: {'; '.join(found.faults)}; run one of them again under the settings of "
            "the other, or compare them --anyway"
        )


def same_items(first: Material, second: Material, task: str, split: Split) -> bool:
    """Tell whether a task's items of a split, and their prompts and right answers, are the same."""
    digests = [one.board.campaign.prompts.get(task) for one in (first, second)]
    if digests[0] == digests[1]:
        return True
    texts = [_texts(one, task, split) for one in (first, second)]
    return bool(texts[0]) and texts[0] == texts[1]


def _faults(pair: Sides, tasks: Sequence[str], split: Split) -> Iterator[str]:
    (first, second), (mine, theirs) = pair, pair.values()
    campaigns = mine.board.campaign, theirs.board.campaign
    versions = [one.versions.get("lm_eval", "unknown") for one in campaigns]
    pairs = [("the version of lm_eval", *versions)]
    for task in tasks:
        metrics = [next(g.report for g in one.goals if g.task == task) for one in campaigns]
        pairs.append((f'the reported metric of task "{task}"', *metrics))
    for what, one, other in pairs:
        if one != other:
            yield f"{what} is {one} in {first} and {other} in {second}"
    for task in tasks:
        digests = [one.prompts.get(task) for one in campaigns]
        if None in digests or digests[0] == digests[1]:
            continue
        texts = [_texts(one, task, split) for one in (mine, theirs)]
        shared = [item for item in texts[0] if item in texts[1]]
        unlike = [item for item in shared if texts[0][item] != texts[1][item]]
        if not all(texts):
            yield (
                f'the hash of the prompts of task "{task}" is {digests[0]} in {first} and {digests[1]} in '
                f"{second}"
            )
        elif not shared:
            yield f'{first} and {second} share no {split} items of task "{task}"'
        elif unlike:
            yield (
                f'{len(unlike)} of {len(shared)} {split} items of task "{task}" that {first} and {second} '
                "share have another prompt or right answer"
            )


def _texts(material: Material, task: str, split: Split) -> dict[str, ItemText]:
    """Return id → prompt and right answer of a task's items; empty where they were not kept."""
    ids = material.facts.get("items", {}).get(task, {}).get(split, ())
    return dict(zip(ids, material.texts(split).get(task, ()), strict=False))

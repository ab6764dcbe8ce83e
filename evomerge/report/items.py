"""What models wrote on each item, and on which items the winner is better or worse than another model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evomerge.candidate.trial import Split, TaskScores
from evomerge.report.evidence import best
from evomerge.report.intervals import is_binary
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.material import Material
from evomerge.report.rows import Row
from evomerge.report.scores import item_scores
from evomerge.store import ItemText

Standing = Literal["gained", "lost", "same", "unknown"]
SAME = 1e-9
"""Scores of an item that differ by less are the same."""


@dataclass(frozen=True)
class TaskItems:
    """The items of one task.

    Attributes:
        name: Of the task.
        metric: Whose scores these are.
        higher: Whether more of it is better.
        binary: Whether every score is 0 or 1.
        ids: Of its items.
        prompts: What each asks; empty where that was not kept.
        golds: What is right; empty where there is no gold answer.
        scores: Of each row, one an item; None where it has none.
        answers: Of each row, what it wrote on each item; None where that was not kept.
    """

    name: str
    metric: str
    higher: bool
    binary: bool
    ids: tuple[str, ...]
    prompts: tuple[str, ...]
    golds: tuple[str, ...]
    scores: tuple[tuple[float | None, ...] | None, ...]
    answers: tuple[tuple[str, ...] | None, ...]

    def standing(self, item: int, row: int, against: int) -> Standing:
        """Tell whether a row is better than another on an item: `gained`, `lost`, `same` or `unknown`."""
        mine, theirs = ((self.scores[at] or {item: None})[item] for at in (row, against))
        if mine is None or theirs is None:
            return "unknown"
        better = (mine - theirs) * (1.0 if self.higher else -1.0)
        return "same" if abs(better) <= SAME else "gained" if better > 0 else "lost"

    def only(self, kept: Sequence[int]) -> TaskItems:
        """Return the same of some items."""

        def of(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[item] for item in kept)

        return TaskItems(
            *(self.name, self.metric, self.higher, self.binary),
            *(of(self.ids), of(self.prompts), of(self.golds)),
            scores=tuple(None if one is None else of(one) for one in self.scores),
            answers=tuple(None if one is None else of(one) for one in self.answers),
        )


@dataclass(frozen=True)
class ItemList:
    """Items of one split, and what the models worth reading did on them.

    Attributes:
        split: Of the items.
        rows: Base, experts, the best naive merge, and the winner (or what leads so far).
        row: Which of them is the winner; it is compared with the others.
        against: Which other one first: the best naive merge, else the best expert.
        tasks: With scores.
    """

    split: Split
    rows: tuple[Row, ...]
    row: int
    against: int
    tasks: tuple[TaskItems, ...]

    def count(self, standing: Standing, against: int | None = None) -> int:
        """Return on how many items the winner stands so against a row (None: `against`)."""
        other = self.against if against is None else against
        return sum(
            task.standing(item, self.row, other) == standing
            for task in self.tasks
            for item in range(len(task.ids))
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {
            "split": self.split,
            "rows": [{"name": row.name, "kind": row.kind} for row in self.rows],
            "row": self.row,
            "against": self.against,
            "tasks": [asdict(task) for task in self.tasks],
        }


def items_of(material: Material, split: Split | None = None) -> ItemList | None:
    """Collect what the base, the experts, the best naive merge and the winner did on a split.

    Before there is a winner, the best finalist or trial so far stands for it.

    Args:
        material: Of the study.
        split: Of the items; None: the last that has scores.

    Returns:
        None where no merge, or nothing to compare it with, has scores by item.
    """
    board, split = material.board, split or material.split
    rows = _rows(board, split)
    if len(rows) < 2 or rows[-1].kind not in ("finalist", "winner"):
        return None
    tasks = tuple(_tasks(material, split, rows))
    if not tasks:
        return None
    naive = [at for at, row in enumerate(rows) if row.kind == "baseline"]
    lead = best([row for row in rows if row.kind == "expert"], split)
    against = naive[0] if naive else 0 if lead is None else rows.index(lead)
    return ItemList(split, tuple(rows), len(rows) - 1, against, tasks)


def _rows(board: Leaderboard, split: Split) -> list[Row]:
    scored = [row for row in board.rows if row.outcome(split) is not None]
    naive = best([row for row in scored if row.kind == "baseline"], split)
    leading = board.winners or [row for row in scored if row.kind == "finalist"]
    found = [row for row in scored if row.kind in ("base", "expert")]
    found += [] if naive is None else [naive]
    return found + [row for row in leading[:1] if row in scored]


def _tasks(material: Material, split: Split, rows: Sequence[Row]) -> Iterator[TaskItems]:
    ids, texts = material.facts.get("items", {}), material.texts(split)
    for goal in material.board.campaign.goals:
        scored = [_scores_of(row, split, goal.task) for row in rows]
        known = [one for one in scored if one is not None]
        metrics = [
            metric
            for metric in dict.fromkeys((goal.report, goal.metric))
            if any(item_scores(one, metric) is not None for one in known)
        ]
        if not metrics:
            continue
        metric = max(metrics, key=lambda name: sum(name in one.metrics for one in known))
        whole = tuple(ids.get(goal.task, {}).get(split, ())) or known[0].items
        asked = texts.get(goal.task, ())
        told = asked if len(asked) == len(whole) else [ItemText("", "")] * len(whole)
        values = [item_scores(one, metric) for one in known]
        yield TaskItems(
            name=goal.task,
            metric=metric,
            higher=(
                goal.higher_is_better if metric == goal.report else goal.searched_higher_is_better
            ),
            binary=all(is_binary(one) for one in values if one is not None),
            ids=whole,
            prompts=tuple(one.prompt for one in told),
            golds=tuple(one.gold for one in told),
            scores=tuple(_in_order(one, whole, metric) for one in scored),
            answers=tuple(_answers(one, whole) for one in scored),
        )


def _scores_of(row: Row, split: Split, task: str) -> TaskScores | None:
    outcome = row.outcome(split)
    return None if outcome is None else outcome.scores.get(task)


def _in_order(
    scores: TaskScores | None, whole: Sequence[str], metric: str
) -> tuple[float | None, ...] | None:
    """Return the score of each item, None of those that were not scored."""
    values = None if scores is None else item_scores(scores, metric)
    if scores is None or values is None:
        return None
    known = dict(zip(scores.items, map(float, values), strict=True))
    found = [known.get(item) for item in whole]
    return tuple(one if one is not None and math.isfinite(one) else None for one in found)


def _answers(scores: TaskScores | None, whole: Sequence[str]) -> tuple[str, ...] | None:
    if scores is None or not scores.answers:
        return None
    known = dict(zip(scores.items, scores.answers, strict=True))
    return tuple(known.get(item, "") for item in whole)

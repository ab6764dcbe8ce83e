"""Items that the winner gains and loses against the best expert and the plain average."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evomerge.candidate.trial import Outcome, Split, row_key
from evomerge.explanation.explanation import ItemChanges, ItemExample
from evomerge.objective import Objectives, metric_on
from evomerge.report.evidence import best
from evomerge.report.intervals import Floats
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Row
from evomerge.report.scores import item_scores
from evomerge.store import ItemText

AVERAGE = row_key("baseline", "uniform average")
SPLITS: tuple[Split, ...] = ("holdout", "select")
"""The first on which both models were scored counts."""
EXAMPLES = 3
"""Shown of those that are gained, and of those that are lost."""
Texts = Mapping[Split, Mapping[str, Sequence[ItemText]]]


def item_changes(board: Leaderboard, texts: Texts) -> tuple[ItemChanges, ...]:
    """Compare the winner with the best expert and the plain average, item by item.

    Args:
        board: With the winner.
        texts: Split → task → text of each item, in the order of the items of whole splits.
    """
    (winner, *_) = board.winners
    experts = [row for row in board.rows if row.kind == "expert"]
    found = []
    for part in ("best expert", "plain average"):
        for split in SPLITS:
            averages = [row for row in board.rows if row.key == AVERAGE]
            rows = experts if part == "best expert" else averages
            other = best(rows, split)
            mine, theirs = winner.outcome(split), None if other is None else other.outcome(split)
            if other is None or mine is None or theirs is None:
                continue
            others = [row for row in board.rows if row.kind not in ("winner", "finalist")]
            changes = _Changes(board.aims[split], mine, theirs, _outcomes(others, split))
            found.append(changes.found(other.name, part, split, texts.get(split, {})))
            break
    return tuple(found)


def _outcomes(rows: Iterable[Row], split: Split) -> list[Outcome]:
    found = (row.outcome(split) for row in rows)
    return [one for one in found if one is not None and one.failure is None]


class _Changes:
    def __init__(
        self, aims: Objectives, mine: Outcome, theirs: Outcome, others: Sequence[Outcome]
    ) -> None:
        self._mine, self._theirs, self._others = mine, theirs, others
        self._metrics = {
            goal.task: metric_on(goal, aims.split) for goal in aims.campaign.objectives
        }
        self._signs = {
            task: 1.0 if aims.better(task, metric) else -1.0
            for task, metric in self._metrics.items()
        }
        self._differences = {}  # task → by how much the winner is better on each item
        for task in self._metrics:
            own, other = self._scores(mine, task), self._scores(theirs, task)
            if own is not None and other is not None:
                self._differences[task] = self._signs[task] * (own - other)

    def found(
        self, against: str, part: str, split: Split, texts: Mapping[str, Sequence[ItemText]]
    ) -> ItemChanges:
        pairs = self._differences.items()
        return ItemChanges(
            against,
            part,
            split,
            {task: int((one > 0).sum()) for task, one in pairs},
            {task: int((one < 0).sum()) for task, one in pairs},
            {task: one.size for task, one in pairs},
            tuple(self._examples(1.0, texts)),
            tuple(self._examples(-1.0, texts)),
        )

    def _scores(self, outcome: Outcome, task: str) -> Floats | None:
        """Return an outcome's scores of the winner's items; None where it has none of them."""
        scores, own = outcome.scores.get(task), self._mine.scores.get(task)
        if scores is None or own is None or scores.items != own.items:
            return None
        return item_scores(scores, self._metrics[task])

    def _examples(
        self, sign: float, texts: Mapping[str, Sequence[ItemText]]
    ) -> Iterable[ItemExample]:
        """Give the largest changes, of equals those most unlike the other models; tasks in turn."""
        ranked = []
        for task, differences in self._differences.items():
            changes, others = sign * differences, self._usual(task)
            unusual = -sign * self._signs[task] * others  # gained though hard, or lost though easy
            order = np.lexsort((np.arange(changes.size), -unusual, -changes))
            chosen = [place for place in order.tolist() if changes[place] > 0][:EXAMPLES]
            ranked += [
                (turn, -changes[place], task, place, others[place])
                for turn, place in enumerate(chosen)
            ]
        for _, _, task, place, usual in sorted(ranked)[:EXAMPLES]:
            yield self._example(task, place, float(usual), texts)

    def _usual(self, task: str) -> Floats:
        """Return the mean score of all other models on each item."""
        known = [found for one in self._others if (found := self._scores(one, task)) is not None]
        usual: Floats = np.mean(known, axis=0)
        return usual

    def _example(
        self, task: str, place: int, usual: float, texts: Mapping[str, Sequence[ItemText]]
    ) -> ItemExample:
        mine, theirs = self._mine.scores[task], self._theirs.scores[task]
        own, metric = texts.get(task, ()), self._metrics[task]
        text = own[place] if len(own) == len(mine.items) else ItemText("", "")
        return ItemExample(
            task,
            mine.items[place],
            text.prompt,
            text.gold,
            mine.answers[place] if mine.answers else "",
            theirs.answers[place] if theirs.answers else "",
            float(mine.metrics[metric][place]),
            float(theirs.metrics[metric][place]),
            usual,
        )

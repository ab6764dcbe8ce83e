"""One row of the leaderboard: a model, how to rebuild it, and what it scored on each split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from evomerge.candidate import Candidate
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Outcome, Split
from evomerge.objective import feasible
from evomerge.report.scores import SplitScores, Value
from evomerge.report.serving import Serving
from evomerge.report.summary import Goal

Kind = Literal["base", "expert", "baseline", "finalist", "winner"]
_OF_ONE_EVALUATION = ("copied_tokens", "began")
KINDS: tuple[Kind, ...] = ("base", "expert", "baseline", "finalist", "winner")


@dataclass(frozen=True)
class Row:
    """One model of the leaderboard.

    Attributes:
        name: What it is called, such as `trial 17`.
        kind: Its part in the campaign.
        trial: The trial's number; None for parents and baselines.
        recipe: How to rebuild it.
        splits: What it scored; a split on which it was not scored is absent.
        cost: Summed over its evaluations.
        serving: What it takes to serve it; None where that was not counted.
        front: In Pareto mode, whether no other merge is better in every objective; else None.
        key: Its identity, as `trial.row_key` returns it, whatever name its user chose.
    """

    name: str
    kind: Kind
    trial: int | None
    recipe: Candidate
    splits: Mapping[Split, SplitScores]
    cost: Cost = field(default_factory=Cost)
    front: bool | None = None
    key: str = ""
    serving: Serving | None = None

    def outcome(self, split: Split) -> Outcome | None:
        """Return the per-item scores on `split`, None where it was not scored."""
        scores = self.splits.get(split)
        return None if scores is None else scores.outcome

    def objective(self, split: Split) -> float | None:
        """Return the reported objective on `split`, None where there is none."""
        scores = self.splits.get(split)
        return None if scores is None or scores.objective is None else scores.objective.value

    def reported(self, split: Split, goal: Goal) -> Value | None:
        """Return the reported value of one objective on `split`, None where there is none."""
        scores = self.splits.get(split)
        return None if scores is None else scores.tasks.get(goal.task, {}).get(goal.report)

    def misses(self, split: Split) -> bool:
        """Tell whether it is a merge that misses a constraint on `split`; parents never do."""
        scores = self.splits.get(split)
        merged = self.kind not in ("base", "expert")
        return merged and scores is not None and not feasible(scores.violations)

    def to_json(self) -> dict[str, Any]:
        """Return its values; its recipe as the text of a recipe file, its items not at all."""
        data = {
            "key": self.key,
            "name": self.name,
            "kind": self.kind,
            "trial": self.trial,
            "recipe": self.recipe.file(),
            "splits": {split: _scores_to_json(scores) for split, scores in self.splits.items()},
            "cost": {k: v for k, v in asdict(self.cost).items() if k not in _OF_ONE_EVALUATION},
            "serving": None if self.serving is None else asdict(self.serving),
        }
        return data if self.front is None else {**data, "front": self.front}


def _scores_to_json(scores: SplitScores) -> dict[str, Any]:
    """Return the values that there are; an unknown (infinite) violation is null in JSON."""
    data = asdict(replace(scores, outcome=None, quality=None))
    for mean in (data["objective"], data["searched"]):
        if mean is not None:
            del mean["stderr"]
    data["violations"] = [one if math.isfinite(one) else None for one in scores.violations]
    if scores.net is None:
        del data["net"]
    always = ("objective", "tasks", "net")
    return {name: value for name, value in data.items() if value or name in always}

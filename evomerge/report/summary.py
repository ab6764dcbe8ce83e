"""What a leaderboard says of its campaign: objectives, constraints, budget, progress, versions and hashes.

The facts read from the store are those recorded when it was created: `versions` (package → version),
`prompts` (task → hash over every prompt) and `higher_is_better` (task → metric → bool); one that is
missing is unknown, and lm-eval's own direction of the metric is taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.candidate.trial import SPLITS, Split
from evomerge.config import Campaign, KeepCost
from evomerge.objective import Objectives, limits, recorded_directions

if TYPE_CHECKING:
    from evomerge.store import Store, StoredTrial


@dataclass(frozen=True)
class Goal:
    """One objective: the sampler saw `metric`; `report` picks the winner and is reported.

    `higher_is_better` is the direction of `report`. Where objectives are `normalized`, the mean takes their
    values as shares of the best expert's. `answered_by` is the expert whose answers are the labels of a
    file of prompts; empty where the task has its own.
    """

    task: str
    metric: str
    report: str
    weight: float = 1.0
    higher_is_better: bool = True
    searched_higher_is_better: bool = True
    normalized: bool = False
    answered_by: str = ""


@dataclass(frozen=True)
class Constraint:
    """An entry of `keep`: of a task at least the share `at_least` of what `of` has of `metric`.

    Or of a `cost` at most `at_most` times the base's; then the others are empty. `limits`: split → the value
    asked for; absent where the model compared with has no value.
    """

    task: str = ""
    metric: str = ""
    at_least: float | None = None
    of: str = "base"
    limits: Mapping[Split, float] = field(default_factory=dict)
    cost: str = ""
    at_most: float | None = None

    @property
    def name(self) -> str:
        """What it is on: a task or a cost."""
        return self.task or self.cost

    def to_json(self) -> dict[str, Any]:
        """Return its fields, without those that are empty."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}


@dataclass(frozen=True)
class Summary:
    """A campaign in short.

    Attributes:
        base: The base model as the campaign names it; `experts` likewise, by name.
        items: Split → items a task.
        trials: Trials in the budget; None: without a limit.
        complete: Trials with scores; `failed`: without; `pruned`: stopped before their last item.
        versions: Package → version, as recorded.
        prompts: Task → hash over every prompt, as recorded.
        normalize: `none`, or whose values the mean takes shares of.
        costs: Cost that is an objective → its weight.
        ended: What ended the search, such as `trials` or `hours`; None: nothing yet, or it is not recorded.
        chosen: What chose the winner, a clause; empty before there is one.
        holdout_readings: How many winners, one after the other, were scored on holdout.
        quantised: What the weights of all models were quantised to when they were scored; empty: nothing.
    """

    name: str
    mode: str
    base: str
    experts: Mapping[str, str]
    goals: tuple[Goal, ...]
    items: Mapping[Split, int]
    trials: int | None
    complete: int
    failed: int
    versions: Mapping[str, str]
    prompts: Mapping[str, str]
    pruned: int = 0
    normalize: str = "none"
    costs: Mapping[str, float] = field(default_factory=dict)
    ended: str | None = None
    chosen: str = ""
    holdout_readings: int = 0
    quantised: str = ""

    @property
    def done(self) -> int:
        """Trials with an outcome of any kind."""
        return self.complete + self.pruned + self.failed

    @property
    def precision(self) -> str:
        """In which precision scores were made, a clause; empty: in that of the saved models."""
        return self.quantised and (
            f"scored with weights quantised to {self.quantised}; what is saved is in full precision"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {**asdict(self), "goals": [asdict(goal) for goal in self.goals]}


def summarise(store: Store, trials: Sequence[StoredTrial]) -> Summary:
    """Sum up a finished or running campaign with its trials."""
    campaign, facts = store.campaign, store.facts
    states = [trial.state for trial in trials]
    models = campaign.models
    return Summary(
        name=campaign.name,
        mode=campaign.mode,
        base=portable(models.base, store.folder),
        experts={expert.name: portable(expert.model, store.folder) for expert in models.experts},
        goals=goals_of(campaign, facts),
        items={split: getattr(campaign.items, split) for split in SPLITS},
        trials=campaign.search.trials,
        complete=states.count("complete"),
        failed=states.count("failed"),
        versions=_texts(facts.get("versions")),
        prompts=_texts(facts.get("prompts")),
        pruned=states.count("pruned"),
        normalize=campaign.normalize,
        costs={cost.cost: cost.weight for cost in campaign.costs},
        ended=store.ended,
        chosen="" if store.winner is None else store.winner.how,
        holdout_readings=store.holdout_readings,
        quantised=campaign.scorer.quantised_to,
    )


def goals_of(campaign: Campaign, facts: Mapping[str, Any]) -> tuple[Goal, ...]:
    """Return a campaign's objectives with the directions recorded in `facts`."""
    better = recorded_directions(facts)
    return tuple(
        Goal(
            task=objective.task,
            metric=objective.metric,
            report=objective.report,
            weight=objective.weight,
            higher_is_better=better(objective.task, objective.report),
            searched_higher_is_better=better(objective.task, objective.metric),
            normalized=campaign.normalize == "best_expert",
            answered_by=str(objective.teacher) if objective.prompts else "",
        )
        for objective in campaign.objectives
    )


def constraints_of(
    campaign: Campaign, aims_by_split: Mapping[Split, Objectives]
) -> tuple[Constraint, ...]:
    """Return a campaign's constraints with their limits on every split that was scored."""
    asked = {
        split: limits(campaign, aims.references, split, aims.better)
        for split, aims in aims_by_split.items()
    }
    reports = {goal.task: goal.report for goal in campaign.objectives}
    found = []
    for position, keep in enumerate(campaign.keep):
        if isinstance(keep, KeepCost):
            one = Constraint(cost=keep.cost, at_most=keep.at_most)
        else:
            one = Constraint(keep.task, reports[keep.task], keep.at_least, keep.of)
        known = {split: asked[split][position] for split in SPLITS if split in asked}
        limits_of = {split: value for split, value in known.items() if value is not None}
        found.append(replace(one, limits=limits_of))
    return tuple(found)


def portable(name: str, folder: str | Path) -> str:
    """Return a model's local path relative to a results folder; a Hub id or a `zoo:` name as it is."""
    return os.path.relpath(name, folder) if Path(name).is_absolute() else name


def _texts(mapping: object) -> dict[str, str]:
    if not isinstance(mapping, Mapping):
        return {}
    return {str(key): str(value) for key, value in mapping.items()}

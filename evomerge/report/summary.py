"""What a leaderboard says of its campaign: objectives, budget, progress, versions and hashes.

The facts read from the store are those recorded when it was created: `versions` (package → version),
`prompts` (task → hash over every prompt) and `higher_is_better` (task → metric → bool); one that is
missing is unknown, and lm-eval's own direction of the metric is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evomerge.candidate.trial import Split
from evomerge.config import Campaign
from evomerge.objective import References, recorded_directions
from evomerge.report.paths import portable
from evomerge.report.rows import Goal

if TYPE_CHECKING:
    from evomerge.store import Store


@dataclass(frozen=True)
class Summary:
    """A campaign in short.

    Attributes:
        name: The campaign's.
        mode: `mean` or `pareto`.
        base: The base model as the campaign names it.
        experts: Name → model, as the campaign names them.
        goals: The objectives.
        items: Split → items a task.
        trials: Trials in the budget; None: without a limit.
        complete: Trials with scores.
        failed: Trials without.
        pruned: Trials given up before their last item.
        normalize: `none`, or whose values the mean takes shares of.
        costs: Cost that is an objective → its weight.
        ended: What ended the search, such as `trials` or `hours`; None: nothing yet, or it is not recorded.
        versions: Package → version, as recorded.
        prompts: Task → hash over every prompt, as recorded.
        chosen: What chose the winner, a clause; empty before there is one.
        holdout_readings: How many winners, one after the other, were scored on holdout.
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

    @property
    def done(self) -> int:
        """Trials with an outcome of any kind."""
        return self.complete + self.pruned + self.failed

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {**asdict(self), "goals": [goal.to_json() for goal in self.goals]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Summary:
        """Read back what `to_json` wrote."""
        goals = tuple(Goal(**goal) for goal in data["goals"])
        return cls(**{**data, "goals": goals})


def summarise(store: Store) -> Summary:
    """Sum up a finished or running campaign."""
    campaign, facts = store.campaign, store.facts
    states = [trial.state for trial in store.trials()]
    return Summary(
        name=campaign.name,
        mode=campaign.mode,
        base=portable(campaign.models.base, store.folder),
        experts={
            expert.name: portable(expert.model, store.folder) for expert in campaign.models.experts
        },
        goals=goals_of(campaign, facts),
        items={
            "search": campaign.items.search,
            "select": campaign.items.select,
            "holdout": campaign.items.holdout,
        },
        trials=campaign.search.trials,
        ended=store.ended,
        complete=states.count("complete"),
        failed=states.count("failed"),
        pruned=states.count("pruned"),
        normalize=campaign.normalize,
        costs={cost.cost: cost.weight for cost in campaign.costs},
        versions=_texts(facts.get("versions")),
        prompts=_texts(facts.get("prompts")),
        chosen="" if store.winner is None else store.winner.how,
        holdout_readings=store.holdout_readings,
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
        )
        for objective in campaign.objectives
    )


def measured_goals(goals: Sequence[Goal], references: References) -> tuple[Goal, ...]:
    """Return the objectives with what their values are shares of on one split, where they are any."""
    return tuple(_measured(goal, references) if goal.normalized else goal for goal in goals)


def _measured(goal: Goal, references: References) -> Goal:
    best = references.best("best_expert", goal.task, goal.report, higher=goal.higher_is_better)
    searched = references.best(
        "best_expert", goal.task, goal.metric, higher=goal.searched_higher_is_better
    )
    return replace(
        goal,
        best=None if best is None else best.values[goal.report].value,
        searched_best=None if searched is None else searched.values[goal.metric].value,
        reference=best,
        searched_reference=searched,
    )


def _texts(mapping: object) -> dict[str, str]:
    if not isinstance(mapping, Mapping):
        return {}
    return {str(key): str(value) for key, value in mapping.items()}

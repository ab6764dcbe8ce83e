"""What a leaderboard says of its campaign: objectives, budget, progress, versions and hashes.

The facts read from the store are those recorded when it was created: `versions` (package → version),
`prompts` (task → hash over every prompt) and `higher_is_better` (task → metric → bool); one that is
missing is unknown, and higher is taken to be better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from evomerge.campaign import Campaign
from evomerge.report.paths import portable
from evomerge.report.rows import Goal
from evomerge.trial import Split

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
        trials: Trials in the budget.
        complete: Trials with scores.
        failed: Trials without.
        versions: Package → version, as recorded.
        prompts: Task → hash over every prompt, as recorded.
    """

    name: str
    mode: str
    base: str
    experts: Mapping[str, str]
    goals: tuple[Goal, ...]
    items: Mapping[Split, int]
    trials: int
    complete: int
    failed: int
    versions: Mapping[str, str]
    prompts: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {**asdict(self), "goals": [asdict(goal) for goal in self.goals]}

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
        complete=states.count("complete"),
        failed=states.count("failed"),
        versions=_texts(facts.get("versions")),
        prompts=_texts(facts.get("prompts")),
    )


def goals_of(campaign: Campaign, facts: Mapping[str, Any]) -> tuple[Goal, ...]:
    """Return a campaign's objectives with the directions recorded in `facts`."""
    directions = facts.get("higher_is_better") or {}
    goals = []
    for objective in campaign.objectives:
        known = directions.get(objective.task, {})
        goals.append(
            Goal(
                task=objective.task,
                metric=objective.metric,
                report=objective.report,
                weight=objective.weight,
                higher_is_better=bool(known.get(objective.report, True)),
                searched_higher_is_better=bool(known.get(objective.metric, True)),
            )
        )
    return tuple(goals)


def _texts(mapping: object) -> dict[str, str]:
    if not isinstance(mapping, Mapping):
        return {}
    return {str(key): str(value) for key, value in mapping.items()}

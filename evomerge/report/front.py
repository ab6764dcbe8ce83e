"""The Pareto front: merges that no other merge beats in every objective and cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from evomerge import candidate as recipes
from evomerge.candidate.trial import Split
from evomerge.objective import Objectives, feasible

if TYPE_CHECKING:
    from evomerge.store import Store

SCHEMA = 1


def front_json(store: Store) -> str:
    """Write the front of a Pareto campaign: the trials that no other beats on the search items.

    A finished campaign's finalists carry their values on `select` too. Any member is built by
    `evomerge merge DIR --trial N OUT_DIR`.

    Returns:
        JSON: `schema`, `campaign`, `objectives` (name and direction), and `members` (trial, name,
        `values` split → objective → value, recipe), best mean first.
    """
    campaign = store.campaign
    evaluations = store.evaluations()
    aims_by_split: dict[Split, Objectives] = {
        "search": Objectives.of(campaign, store.facts, evaluations, "search"),
        "select": Objectives.of(campaign, store.facts, evaluations, "select"),
    }
    aims = aims_by_split["search"]
    names = [goal.task for goal in campaign.objectives] + [cost.cost for cost in campaign.costs]
    selected = {one.number: one.outcome for one in evaluations if one.split == "select"}
    trials = [
        (trial, trial.values, aims.violations(trial.outcome))
        for trial in store.trials()
        if trial.state == "complete" and trial.values is not None and trial.outcome is not None
    ]
    members: list[dict[str, Any]] = []
    for row, front in aims.order([v for _, v, _ in trials], [missing for *_, missing in trials]):
        trial, values, missing = trials[row]
        if front > 0 or not feasible(missing):
            break
        shown = {"search": dict(zip(names, values, strict=True))}
        outcome = selected.get(trial.number)
        if outcome is not None and outcome.failure is None:
            again = aims_by_split["select"].values(outcome, trial.candidate)
            shown["select"] = dict(zip(names, again, strict=True))
        members.append(
            {
                "trial": trial.number,
                "name": trial.entry.name,
                "values": shown,
                "recipe": recipes.dumps(trial.candidate),
            }
        )
    objectives = [
        {"name": name, "direction": direction}
        for name, direction in zip(names, aims.directions, strict=True)
    ]
    data = {"schema": SCHEMA, "campaign": campaign.name, "objectives": objectives}
    return json.dumps({**data, "members": members}, indent=2, ensure_ascii=False) + "\n"

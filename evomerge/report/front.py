"""The Pareto front of a campaign: trials that no other trial beats in every objective and cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

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
    campaign, evaluations = store.campaign, store.evaluations()
    aims = Objectives.of(campaign, store.facts, evaluations, "search")
    select = Objectives.of(campaign, store.facts, evaluations, "select")
    names = ["mean"] if campaign.mode == "tradeoff" else [goal.task for goal in campaign.objectives]
    names += [cost.cost for cost in campaign.costs]
    selected = {one.number: one.outcome for one in evaluations if one.split == "select"}
    trials = [
        (trial, trial.values, aims.violations(trial.outcome, aims.weighed(trial)))
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
            again = select.values(outcome, trial.candidate)
            shown["select"] = dict(zip(names, again, strict=True))
        recipe = trial.candidate.file()
        member = {"trial": trial.number, "name": trial.entry.name, "values": shown}
        members.append({**member, "recipe": recipe})
    data = {
        "schema": SCHEMA,
        "campaign": campaign.name,
        "objectives": [
            {"name": name, "direction": direction}
            for name, direction in zip(names, aims.directions, strict=True)
        ],
        "members": members,
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"

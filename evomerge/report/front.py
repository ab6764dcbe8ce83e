"""The Pareto front of a campaign: trials that no other trial beats in every objective and cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evomerge.candidate import Candidate
from evomerge.candidate.trial import Outcome, Split
from evomerge.config import Campaign
from evomerge.objective import Objectives, feasible, metric_on

if TYPE_CHECKING:
    from evomerge.store import Store

_Scored = tuple[int, Candidate, Outcome]

SCHEMA = 3
"""2: members of the front on `select`, too, and `front`: where each is one. 3: `splits` of objectives."""


def front_json(store: Store) -> str:
    """Write the front of a campaign: the trials that no other beats on the search items, or on `select`.

    On `select` the finalists are compared: nothing was learnt there, so what descents gained by the items
    that they read does not hide other kinds. Any member is built by `evomerge merge DIR --trial N OUT_DIR`.

    Returns:
        JSON: `schema`, `campaign`, `objectives` (name, and `splits`: split → `metric`, of which the searched
        and the reported one may differ, and `direction`), and `members` (trial, name, `front`:
        on which splits it is one, `values` split → objective → value, recipe), those of `select` first, best
        mean first.
    """
    campaign, evaluations = store.campaign, store.evaluations()
    names = value_names(campaign)
    trials = {trial.number: trial for trial in store.trials()}
    scored: dict[Split, list[_Scored]] = {"select": [], "search": []}
    for one in evaluations:
        if one.split == "select" and one.number in trials and one.outcome.failure is None:
            scored["select"].append((one.number, one.candidate, one.outcome))
    for trial in trials.values():
        if trial.state == "complete" and trial.outcome is not None:
            scored["search"].append((trial.number, trial.candidate, trial.outcome))
    values: dict[int, dict[Split, dict[str, float]]] = {}
    fronts: dict[int, list[Split]] = {}
    objectives: list[dict[str, Any]] = [{"name": name, "splits": {}} for name in names]
    for split, rows in scored.items():
        aims = Objectives.of(campaign, store.facts, evaluations, split)
        metrics = _metrics(campaign, split)
        for objective, metric, direction in zip(objectives, metrics, aims.directions, strict=True):
            objective["splits"][split] = {"metric": metric, "direction": direction}
        found = [aims.values(outcome, candidate) for _, candidate, outcome in rows]
        for (number, *_), own in zip(rows, found, strict=True):
            values.setdefault(number, {})[split] = dict(zip(names, own, strict=True))
        missing = [aims.violations(outcome, candidate) for _, candidate, outcome in rows]
        for row in on_front(aims, found, missing):
            fronts.setdefault(rows[row][0], []).append(split)
    data = {
        "schema": SCHEMA,
        "campaign": campaign.name,
        "objectives": objectives,
        "members": [
            {
                "trial": number,
                "name": trials[number].entry.name,
                "front": on,
                "values": {split: values[number][split] for split in reversed(values[number])},
                "recipe": trials[number].candidate.file(),
            }
            for number, on in fronts.items()
        ],
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _metrics(campaign: Campaign, split: Split) -> list[str | None]:
    """Return the metric of each value on a split; None: it is a mean of several, or a cost."""
    of_costs = [None] * len(campaign.costs)
    if campaign.mode == "tradeoff":
        return [None, *of_costs]
    return [*(metric_on(goal, split) for goal in campaign.objectives), *of_costs]


def value_names(campaign: Campaign) -> list[str]:
    """Return what the values of a front are called, in their order."""
    names = ["mean"] if campaign.mode == "tradeoff" else [goal.task for goal in campaign.objectives]
    return names + [cost.cost for cost in campaign.costs]


def on_front(
    aims: Objectives, values: Sequence[Sequence[float]], missing: Sequence[Sequence[float]]
) -> list[int]:
    """Return the rows that no other beats and that meet every constraint, the best mean first.

    Args:
        aims: Of the campaign.
        values: Of each row, as `Objectives.values` returns them.
        missing: Of each row, as `Objectives.violations` returns them.
    """
    ranked = aims.order(values, missing)
    return [row for row, front in ranked if front == 0 and feasible(missing[row])]

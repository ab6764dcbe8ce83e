"""Rows as plain dicts and lists, and back: the `rows` of `leaderboard.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evomerge import candidate as recipes
from evomerge.candidate.trial import Cost
from evomerge.report.rows import Row, SplitScores, Value


def row_to_json(row: Row) -> dict[str, Any]:
    """Return the row's values; its recipe as the text of a recipe file, its items not at all."""
    data = {
        "key": row.key,
        "name": row.name,
        "kind": row.kind,
        "trial": row.trial,
        "recipe": recipes.dumps(row.recipe),
        "splits": {split: _scores_to_json(scores) for split, scores in row.splits.items()},
        "cost": asdict(row.cost),
    }
    return data if row.front is None else {**data, "front": row.front}


def row_from_json(data: Mapping[str, Any]) -> Row:
    """Read back what `row_to_json` wrote."""
    return Row(
        name=data["name"],
        kind=data["kind"],
        trial=data["trial"],
        recipe=recipes.loads(data["recipe"]),
        splits={split: _scores_from_json(scores) for split, scores in data["splits"].items()},
        cost=Cost(**data["cost"]),
        front=data.get("front"),
        key=data["key"],
    )


def _scores_to_json(scores: SplitScores) -> dict[str, Any]:
    data: dict[str, Any] = {
        "objective": None if scores.objective is None else _ends(scores.objective),
        "tasks": {
            task: {metric: asdict(value) for metric, value in metrics.items()}
            for task, metrics in scores.tasks.items()
        },
    }
    if scores.searched is not None:
        data["searched"] = _ends(scores.searched)
    if scores.failure is not None:
        data["failure"] = scores.failure
    if scores.costs:
        data["costs"] = dict(scores.costs)
    if scores.net is not None:
        data["net"] = scores.net
    if scores.violations:
        data["violations"] = [one if math.isfinite(one) else None for one in scores.violations]
    if scores.estimated:
        data["estimated"] = True
    return data


def _ends(value: Value) -> dict[str, Any]:
    return {"value": value.value, "low": value.low, "high": value.high, "n": value.n}


def _scores_from_json(data: Mapping[str, Any]) -> SplitScores:
    searched = data.get("searched")
    return SplitScores(
        objective=None if data["objective"] is None else Value(**data["objective"]),
        searched=None if searched is None else Value(**searched),
        tasks={
            task: {metric: Value(**value) for metric, value in metrics.items()}
            for task, metrics in data["tasks"].items()
        },
        failure=data.get("failure"),
        costs=data.get("costs", {}),
        net=data.get("net"),
        violations=tuple(
            math.inf if one is None else float(one) for one in data.get("violations", ())
        ),
        estimated=data.get("estimated", False),
    )

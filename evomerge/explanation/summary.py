"""An explanation in a paragraph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from evomerge.explanation.explanation import (
    Conflict,
    Contribution,
    Explanation,
    ItemChanges,
    TestedGain,
)
from evomerge.report.grid import difference, number, short_names


def summary(found: Explanation) -> str:
    """Return what the numbers of an explanation say, as sentences."""
    return " ".join(_sentences(found))


def largest(parts: Sequence[Contribution], task: str) -> Contribution | None:
    """Return the part whose loss costs most on a task; None where none adds anything."""
    scored = [(gain.test.difference, one) for one in parts if (gain := one.tasks.get(task))]
    top = max(scored, key=lambda pair: pair[0], default=None)
    return None if top is None or top[0] <= 0 else top[1]


def _sentences(found: Explanation) -> Iterator[str]:
    mean = found.mean
    scored = "" if mean is None else f", with a mean of {number(mean.value)} on the select items"
    yield f"The winner is {found.winner} ({found.label}){scored}."
    if found.experts:
        yield from _owed(
            found.experts, dict(zip(found.tasks, short_names(found.tasks), strict=True))
        )
    if found.groups:
        yield from _groups(found.groups)
    for one in found.changes:
        yield _changes(one)
    if found.conflict is not None:
        yield from _conflict(found.conflict)
    if found.random is not None and found.random.mean is not None:
        value = number(found.random.mean.value)
        yield f"With random task vectors of the same norms the same numbers score {value}."


def _owed(experts: Sequence[Contribution], tasks: Mapping[str, str]) -> Iterator[str]:
    clauses = []
    for task, name in tasks.items():
        top = largest(experts, task)
        gain = None if top is None else top.tasks[task]
        if top is None or gain is None:
            clauses.append(f"{name} owes nothing to any single one")
            continue
        clauses.append(f"{name} owes most to the expert {top.name} ({_gain(gain)}{_chance(gain)})")
    yield f"Of the tasks, {'; '.join(clauses)}."
    harmful = [
        f"{one.name} costs {name} {_gain(gain)}"
        for one in experts
        for task, name in tasks.items()
        if (gain := one.tasks.get(task)) and gain.is_significant and gain.test.difference < 0
    ]
    if harmful:
        yield f"But {'; '.join(harmful)}."
    idle = [one.name for one in experts if one.unchanged]
    if idle:
        yield f"It is the same model without {' and '.join(idle)}."
    failing = [f"{one.name} ({one.failure})" for one in experts if one.failure]
    if failing:
        yield f"It has no scores at all without {'; '.join(failing)}."


def _groups(groups: Sequence[Contribution]) -> Iterator[str]:
    scored = [one for one in groups if one.mean is not None]
    top = max(scored, key=lambda one: one.mean.test.difference if one.mean else 0.0, default=None)
    if top is not None and top.mean is not None and top.mean.test.difference > 0:
        gain = f"{_gain(top.mean)} on the mean{_chance(top.mean)}"
        yield f"The base's weights in one group cost most in {top.name} ({gain})."


def _changes(one: ItemChanges) -> str:
    gained, lost = sum(one.gained.values()), sum(one.lost.values())
    return (
        f"Against the {one.part} ({one.against}) it gains {gained} and loses {lost} of "
        f"{sum(one.items.values())} {one.split} items."
    )


def _conflict(conflict: Conflict) -> Iterator[str]:
    pairs = list(combinations(range(len(conflict.experts)), 2))
    if len(conflict.distances) > 1:
        far, layer, (i, j) = max(
            (states[i][j], layer, (i, j))
            for layer, states in enumerate(conflict.distances)
            for i, j in pairs
        )
        where = "the embeddings" if layer == 0 else f"layer {layer - 1}"
        yield (
            f"The experts {conflict.experts[i]} and {conflict.experts[j]} conflict most: behind {where} "
            f"their hidden states of the same prompts are {far:.2f} of their length apart."
        )
    whole = conflict.task_vectors[-1] if conflict.task_vectors else None
    known = [
        (value, pair)
        for pair in pairs
        if whole is not None and (value := whole.cosines[pair[0]][pair[1]]) is not None
    ]
    if whole is not None and known:
        (low, _), (high, (i, j)) = min(known), max(known)
        if len(known) == 1:
            yield f"The cosine of their task vectors is {high:.2f}."
            return
        yield (
            f"Cosines of task vectors lie between {low:.2f} and {high:.2f} "
            f"({conflict.experts[i]} and {conflict.experts[j]})."
        )


def _chance(gain: TestedGain) -> str:
    return "" if gain.is_significant else ", which may be chance"


def _gain(gain: TestedGain) -> str:
    test = gain.test
    return f"{difference(test.difference)} [{difference(test.low)}, {difference(test.high)}]"

"""Outcomes as JSON, and back exactly as they were; per-item values apart, to be read when they are needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from sys import intern
from typing import Any

import numpy as np

from evomerge.candidate import Arrays, no_arrays
from evomerge.candidate.cost import Cost
from evomerge.candidate.timing import Timing
from evomerge.candidate.trial import Estimate, Failure, FailureKind, Outcome, Pruned, TaskScores
from evomerge.errors import ResultsError
from evomerge.kinds import read

Ids = Callable[[str], Sequence[str]]
"""Task → ids of its items on the split in question, as far as they are known."""
Values = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""Task → metric → one value an item."""


class StoredValues(Mapping[str, tuple[Any, ...]]):
    """Per-item values of one task by metric, read when they are asked for and not kept; pickled as a dict.

    Args:
        task: Of an outcome.
        names: The metrics.
        read: Reads the values of the outcome.
    """

    __slots__ = ("_names", "_read", "_task")

    def __init__(self, task: str, names: Sequence[str], read: Callable[[], Values]) -> None:
        self._task, self._names, self._read = task, tuple(map(intern, names)), read

    def __getitem__(self, name: str) -> tuple[Any, ...]:
        if name not in self._names:
            raise KeyError(name)
        return self._read()[self._task][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(
        self,
    ) -> tuple[type[dict[str, tuple[Any, ...]]], tuple[dict[str, tuple[Any, ...]]]]:
        return dict, (dict(self),)


def outcome_to_json(outcome: Outcome, ids: Ids) -> dict[str, Any]:
    """Return JSON values of an outcome, but for the per-item values: of these the names of the metrics.

    Args:
        outcome: What came of a job.
        ids: Known ids, which are not written again.
    """
    scores = {
        task: {
            "items": _items_to_json(one.items, ids(task)),
            "metrics": list(one.metrics),
            "values": {name: [each.value, each.stderr] for name, each in one.values.items()},
            "truncated": one.truncated,
        }
        | ({"answers": one.answers} if one.answers else {})
        for task, one in outcome.scores.items()
    }
    found = {
        "scores": scores,
        "failure": outcome.failure and asdict(outcome.failure),
        "cost": asdict(outcome.cost),
        "worker": outcome.worker,
        "pruned": outcome.pruned and asdict(outcome.pruned),
    }
    if outcome.candidate is not None:
        found["candidate"] = outcome.candidate.text()
    if outcome.timing is not None:
        found["timing"] = asdict(outcome.timing)
    return found | ({"routes": outcome.routes, "read": outcome.read} if outcome.routes else {})


def values_to_json(outcome: Outcome) -> dict[str, Any]:
    """Return JSON values of an outcome's per-item values: task → metric → values.

    Raises:
        ResultsError: A metric's values are of a type that cannot be stored.
    """
    return {
        task: {name: _values_to_json(values) for name, values in one.metrics.items()}
        for task, one in outcome.scores.items()
    }


def values_from_json(data: Mapping[str, Any]) -> Values:
    """Return the values of `values_to_json`."""
    return {
        task: {name: _values_from_json(values) for name, values in metrics.items()}
        for task, metrics in data.items()
    }


def outcome_from_json(
    data: Mapping[str, Any], ids: Ids, values: Callable[[], Values], arrays: Arrays = no_arrays
) -> Outcome:
    """Return the outcome of `outcome_to_json`.

    Args:
        data: What that returned.
        ids: Known ids.
        values: Reads the per-item values.
        arrays: Gives what its candidate names by digest.
    """
    scores = {
        intern(task): TaskScores(
            _items_from_json(one["items"], ids(task)),
            StoredValues(intern(task), one["metrics"], values),
            {intern(name): Estimate(*each) for name, each in one["values"].items()},
            one["truncated"],
            tuple(one.get("answers", ())),
        )
        for task, one in data["scores"].items()
    }
    failure, pruned = data["failure"], data["pruned"]
    return Outcome(
        scores,
        failure and Failure(FailureKind(failure["kind"]), failure["reason"], failure["trace"]),
        Cost(**data["cost"]),
        data["worker"],
        pruned and Pruned(**pruned),
        read(data["candidate"], arrays) if "candidate" in data else None,
        {task: tuple(each) for task, each in data.get("routes", {}).items()},
        {task: tuple(each) for task, each in data.get("read", {}).items()},
        Timing(**data["timing"]) if "timing" in data else None,
    )


def _items_to_json(items: Sequence[str], known: Sequence[str]) -> list[int] | list[str] | None:
    """Return None for all known ids in their order, positions for some, or else the ids."""
    if tuple(items) == tuple(known):
        return None
    place = {one: index for index, one in enumerate(known)}
    if all(one in place for one in items):
        return [place[one] for one in items]
    return list(items)


def _items_from_json(items: Sequence[int | str] | None, known: Sequence[str]) -> tuple[str, ...]:
    if items is None:
        return tuple(known)
    return tuple(known[one] if isinstance(one, int) else one for one in items)


def _values_to_json(values: Sequence[Any]) -> Any:  # noqa: ANN401 - JSON is any
    """Return one value an item: numbers, or what lm-eval hands to an aggregation.

    NumPy scalars become the Python numbers that they equal.
    """
    if set(map(type, values)) <= {float}:  # the common case
        return list(values)
    return [_tagged(value) for value in values]


def _values_from_json(values: Sequence[Any]) -> tuple[Any, ...]:
    if set(map(type, values)) <= {float}:
        return tuple(values)
    return tuple(_untagged(value) for value in values)


def _tagged(value: Any) -> Any:  # noqa: ANN401 - whatever a metric returns
    """Return JSON values in which what JSON lacks is an object of one key: the type's name."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_tagged(item) for item in value]}
    if isinstance(value, set | frozenset):
        return {type(value).__name__: sorted((_tagged(item) for item in value), key=json.dumps)}
    if isinstance(value, Mapping):
        return {"dict": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return {"array": [value.dtype.str, list(value.shape), value.ravel().tolist()]}
    raise ResultsError(
        f"a metric's value of type {type(value).__name__} cannot be stored; expected numbers, text, or "
        "tuples, lists, dicts, sets or NumPy arrays of them"
    )


def _untagged(value: Any) -> Any:  # noqa: ANN401 - whatever a metric returns
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "array":
        dtype, shape, numbers = content
        return np.array(numbers, dtype=dtype).reshape(shape)
    if tag == "dict":
        return {_untagged(key): _untagged(item) for key, item in content}
    build = {"tuple": tuple, "set": set, "frozenset": frozenset}[tag]
    return build(_untagged(item) for item in content)

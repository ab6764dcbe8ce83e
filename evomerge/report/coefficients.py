"""The numbers of a merge by expert, group of layers and component; rows of tensors as distributions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from evomerge.candidate import Candidate, Merge, Mixture
from evomerge.candidate.merge import at, component_of
from evomerge.config.model_names import model_labels
from evomerge.report.intervals import Floats

ALL = "all"
WEIGHT = "weight"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Place = tuple[int, int, int]
"""Expert, group of layers, component."""

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
_FIRST = re.compile(r"embed|(^|\.)(wte|wpe)(\.|$)")


@dataclass(frozen=True)
class Coefficient:
    """One parameter of a merge.

    Attributes:
        parameter: Such as `weight`.
        experts: Their names; `all` of a parameter that they share.
        layers: Groups of layers, such as `0-4`; `all` where it does not differ by them.
        components: Of tensors, the last `rest`; `all` where it does not differ by them.
        values: `[experts, layers, components]`.
        rows: Where rows of tensors differ: place → `QUANTILES` of their values, `[5]`.
    """

    parameter: str
    experts: tuple[str, ...]
    layers: tuple[str, ...]
    components: tuple[str, ...]
    values: Floats
    rows: Mapping[Place, Floats] = field(default_factory=dict)


def coefficients_of(candidate: Candidate) -> tuple[Coefficient, ...]:
    """Return the numbers of a merge, or of the shared part of a mixture; of other kinds none."""
    merge = candidate.shared if isinstance(candidate, Mixture) else candidate
    if not isinstance(merge, Merge):
        return ()
    called = model_labels(merge.experts)
    experts = tuple(called[model] for model in merge.experts)
    layers = tuple("{}-{}".format(*group) for group in merge.groups) or (ALL,)
    found = []
    for name, own in merge.own.items():
        # [groups, components, experts] → [experts, groups, components]
        values = np.array([at(own, group) for group in range(len(layers))], dtype=np.float64)
        values = np.moveaxis(values, -1, 0)
        rows = _rows(merge, values) if name == WEIGHT else {}
        if rows and values.shape[2] == 1:
            values = np.repeat(values, len(_components(merge)), axis=2)
        found.append(_coefficient(name, experts, layers, merge, values, rows))
    for name, shared in merge.shared.items():
        values = np.array([[at(shared, group) for group in range(len(layers))]], dtype=np.float64)
        found.append(_coefficient(name, (ALL,), layers, merge, values))
    return tuple(found)


def _coefficient(
    name: str,
    experts: tuple[str, ...],
    layers: tuple[str, ...],
    merge: Merge,
    values: Floats,
    rows: Mapping[Place, Floats] | None = None,
) -> Coefficient:
    components = (ALL,) if values.shape[2] == 1 else _components(merge)
    return Coefficient(name, experts, layers, components, values, rows or {})


def _components(merge: Merge) -> tuple[str, ...]:
    return (*merge.components, "rest") if merge.components else (ALL,)


def _rows(merge: Merge, weights: Floats) -> dict[Place, Floats]:
    """Return the quantiles of each group's weights plus what rows add to them.

    Args:
        merge: With `coefficients`; without, there is nothing to return.
        weights: `[experts, groups, components]`, an axis of components of length 1 where they are alike.
    """
    if merge.coefficients is None:
        return {}
    found: dict[Place, list[Floats]] = defaultdict(list)
    for tensor, table in merge.coefficients.tables.items():
        component = component_of(merge.components, tensor)
        group = _group(merge, tensor)
        for expert, added in enumerate(table.astype(np.float64)):
            weight = at(weights[expert, group], component)
            found[expert, group, component].append(weight + added)
    return {place: np.quantile(np.concatenate(added), QUANTILES) for place, added in found.items()}


def _group(merge: Merge, tensor: str) -> int:
    """Return the group of layers of a tensor; embeddings go with the first, norm and head with the last."""
    number = _LAYER.search(tensor)
    if number is None:
        return 0 if _FIRST.search(tensor) or not merge.groups else len(merge.groups) - 1
    layer = int(number.group())
    groups = (place for place, (start, stop) in enumerate(merge.groups) if start <= layer < stop)
    return next(groups, 0)

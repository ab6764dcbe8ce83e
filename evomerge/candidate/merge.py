"""Candidates of the kind `merge`: averaged weights, as numbers by layer group, component and expert."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from evomerge.candidate.candidate import Arrays, Candidate, Cell, no_arrays, number_row
from evomerge.candidate.coefficients import Coefficients
from evomerge.candidate.mergekit_yaml import dumps
from evomerge.candidate.recipe import (
    Conditional,
    Recipe,
    Scalar,
    Setting,
    Slice,
    Source,
    Vocabulary,
)

T = TypeVar("T")
Row = tuple[float, ...]
Own = tuple[tuple[Row, ...], ...]
"""Numbers of each expert, [groups][components][experts]."""
Shared = tuple[Row, ...]
"""Numbers of all experts together, [groups][components]."""


@dataclass(frozen=True)
class Merge(Candidate):
    """One merged model, as a point of a search space describes it.

    An axis of groups or components along which the numbers of a parameter do not differ has length 1.

    Attributes:
        method: Name of a merge method, such as `ties`.
        experts: The models that have numbers of their own, as a folder, a Hub id or `MODEL+ADAPTER`.
        base: The common ancestor.
        merges_base: The base is an input, too; otherwise it only says which vocabulary comes first.
        groups: Layer groups, [start, stop) each, in order; none: the numbers hold for all layers.
        components: Substrings of tensors' names; a tensor belongs to the first that its name contains, and
            what is left is one component more. None: the numbers hold for all tensors.
        own: Parameter → its numbers for each expert.
        shared: Parameter → its numbers for all experts.
        fixed: Parameter → its value everywhere.
        dtype: Of the merged weights (the maths runs in float32 and rounds once); None: the base's own.
        vocabulary: How vocabularies are matched; None: unlike vocabularies are an error.
        seed: Keys the random masks; ignored where a method draws none.
        coefficients: What single tensors and rows add to `weight`, experts in the order of `experts`.
        statistics: As of `Recipe`; in a campaign the name of a file in its results folder.
    """

    kind: ClassVar[str] = "merge"

    method: str
    experts: tuple[str, ...]
    base: str | None = None
    merges_base: bool = True
    groups: tuple[tuple[int, int], ...] = ()
    components: tuple[str, ...] = ()
    own: Mapping[str, Own] = field(default_factory=dict)
    shared: Mapping[str, Shared] = field(default_factory=dict)
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    dtype: str | None = None
    vocabulary: Vocabulary | None = None
    seed: int = 0
    coefficients: Coefficients | None = None
    statistics: str | None = None

    def model_names(self) -> tuple[str, ...]:
        """Return every model, the base first, each once."""
        base = () if self.base is None else (self.base,)
        return tuple(dict.fromkeys((*base, *self.experts)))

    def inputs(self) -> tuple[str, ...]:
        """Return the models that are merged, in mergekit's order: a base that is not listed comes last."""
        if self.base is None or not self.merges_base:
            return self.experts
        return (self.base, *self.experts) if self.groups else (*self.experts, self.base)

    def renamed(self, rename: Callable[[str], str]) -> Merge:
        """Return the same merge with each model's name replaced."""
        return replace(
            self,
            experts=tuple(map(rename, self.experts)),
            base=None if self.base is None else rename(self.base),
            vocabulary=None if self.vocabulary is None else self.vocabulary.renamed(rename),
        )

    def text(self) -> str:
        """Return it as one line of JSON, floats in full; of `coefficients` the digest."""
        digest = None if self.coefficients is None else self.coefficients.digest
        fields = {"kind": self.kind, **vars(self), "coefficients": digest}
        if self.statistics is None:  # as before there were any
            del fields["statistics"]
        return json.dumps(fields, default=vars)

    @property
    def methods(self) -> tuple[str, ...]:
        """Its method."""
        return (self.method,)

    def arrays(self) -> Mapping[str, bytes]:
        """Return the bytes of `coefficients` by their digest."""
        found = self.coefficients
        return {} if found is None else {found.digest: found.content}

    @classmethod
    def read(cls, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Merge:
        """Return the merge of the fields of its `text`, without the kind."""
        fields = dict(data)
        digest = fields["coefficients"]
        fields["coefficients"] = None if digest is None else Coefficients.read(arrays(digest))
        for name in ("experts", "components"):
            fields[name] = tuple(fields[name])
        fields["groups"] = tuples(fields["groups"])
        for name in ("own", "shared"):
            fields[name] = {key: tuples(table) for key, table in fields[name].items()}
        vocabulary = fields["vocabulary"]
        fields["vocabulary"] = None if vocabulary is None else Vocabulary(**vocabulary)
        return cls(**fields)

    def file(self) -> str:
        """Return it in mergekit's YAML."""
        return dumps(self.recipe())

    def label(self) -> str:
        """Return the method."""
        return self.method

    def numbers(self) -> list[dict[str, Cell]]:
        """Return each number with the model, layers, tensors and parameter that it stands for.

        `all` is what holds for every model, layer or tensor.
        """
        found = [number_row("all", "all", "all", name, value) for name, value in self.fixed.items()]
        for group in range(max(1, len(self.groups))):
            layers = "{}-{}".format(*self.groups[group]) if self.groups else "all"
            for i, model in enumerate(self.experts):
                for name, table in self.own.items():
                    values = [row[i] for row in at(table, group)]
                    found += [number_row(model, layers, *one) for one in self._cells(name, values)]
            for name, rows in self.shared.items():
                found += [
                    number_row("all", layers, *one) for one in self._cells(name, at(rows, group))
                ]
        if self.coefficients is not None:
            more = f"+ {self.coefficients.count} by tensor and row"
            found.append(number_row("all", "all", "each its own", "weight", more))
        return found

    def recipe(self) -> Recipe:
        """Return it in mergekit's form: a slice a group of layers, filters for the components."""
        if self.groups:
            return self._recipe((), tuple(map(self._slice, range(len(self.groups)))))
        sources = (Source(model, None, self._own(0, i)) for i, model in enumerate(self.experts))
        return self._recipe(tuple(sources), ())

    def _recipe(self, models: tuple[Source, ...], slices: tuple[Slice, ...]) -> Recipe:
        shared = {} if self.groups else self._shared(0)
        return Recipe(
            method=self.method,
            models=models,
            slices=slices,
            base_model=self.base,
            parameters={**self.fixed, **shared},
            dtype=self.dtype,
            vocabulary=self.vocabulary,
            seed=self.seed,
            coefficients=self.coefficients,
            statistics=self.statistics,
        )

    def _slice(self, group: int) -> Slice:
        layers = self.groups[group]
        base = [Source(self.base, layers)] if self.base is not None and self.merges_base else []
        experts = [
            Source(model, layers, self._own(group, i)) for i, model in enumerate(self.experts)
        ]
        return Slice((*base, *experts), None, self._shared(group))

    def _own(self, group: int, expert: int) -> dict[str, Setting]:
        return {
            name: self._setting([row[expert] for row in at(table, group)])
            for name, table in self.own.items()
        }

    def _shared(self, group: int) -> dict[str, Setting]:
        return {name: self._setting(at(table, group)) for name, table in self.shared.items()}

    def _cells(self, name: str, values: Sequence[float]) -> Iterator[tuple[str, str, Cell]]:
        tensors = ("all",) if len(values) == 1 else (*self.components, "rest")
        return ((one, name, value) for one, value in zip(tensors, values, strict=True))

    def _setting(self, values: Sequence[float]) -> Setting:
        if len(values) == 1:
            return values[0]
        return tuple(map(Conditional, values, (*self.components, None)))


def at(axis: Sequence[T], index: int) -> T:
    """Return the entry of an axis that may have length 1, where all are alike."""
    return axis[index if len(axis) > 1 else 0]


def component_of(components: Sequence[str], tensor: str) -> int:
    """Return which component a tensor belongs to: the first whose text its name contains, else the rest."""
    places = (place for place, text in enumerate(components) if text in tensor)
    return next(places, len(components))


def tuples(value: Any) -> Any:  # noqa: ANN401 - lists of any depth
    """Return nested lists as nested tuples."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value

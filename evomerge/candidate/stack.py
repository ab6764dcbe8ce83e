"""Candidates of the kind `stack`: a path through the layers of several models, as one deeper model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from evomerge.candidate.candidate import Arrays, Candidate, Cell, no_arrays
from evomerge.candidate.merge import Merge
from evomerge.candidate.mergekit_yaml import dumps_all
from evomerge.candidate.recipe import Conditional, Recipe, Setting, Slice, Source

if TYPE_CHECKING:
    from evomerge.candidate.size import Size

BRANCH_OUTPUTS = ("o_proj", "down_proj")
"""In the names of the tensors that write into the residual stream, of the models that can be scaled."""


class PathStep(NamedTuple):
    """One layer of a path.

    Attributes:
        member: Whose layer.
        layer: Which, from 0.
        scale: What the residual stream is multiplied by before this layer reads it.
    """

    member: str
    layer: int
    scale: float = 1.0


class Run(NamedTuple):
    """Layers of one member that follow each other.

    Attributes:
        member: Whose layers.
        start: The first.
        stop: One more than the last.
        scale: Product of the scales of all steps so far.
    """

    member: str
    start: int
    stop: int
    scale: float


@dataclass(frozen=True)
class Stack(Candidate):
    """Layers of several models behind each other (the data-flow space of Akiba et al. 2024, 2403.13187).

    Embeddings come from the member of the first layer, final norm and head from that of the last.

    A scale s_k multiplies the residual stream before step k. It is folded into the weights: a block that
    reads the stream through a norm only does not see it, h → s h + f(h) = s (h + f(h) / s), so that what
    layer k adds is divided by s_1 … s_k, and the final norm absorbs the product.

    Attributes:
        base: What messages, configuration and tokenizer go by.
        members: Name → model; a parent as it is, or a merge.
        path: The layers in order.
    """

    kind: ClassVar[str] = "stack"

    base: str
    members: Mapping[str, Merge]
    path: tuple[PathStep, ...]

    def model_names(self) -> tuple[str, ...]:
        """Return every model, the base first, each once."""
        names = (name for member in self.members.values() for name in member.model_names())
        return tuple(dict.fromkeys((self.base, *names)))

    @property
    def methods(self) -> tuple[str, ...]:
        """The merge methods of its members."""
        return tuple(name for one in self.members.values() for name in one.methods)

    def renamed(self, rename: Callable[[str], str]) -> Stack:
        """Return the same stack with each model's name replaced."""
        members = {name: member.renamed(rename) for name, member in self.members.items()}
        return replace(self, base=rename(self.base), members=members)

    def with_base_for(self, member: str) -> Stack:
        """Return it with the base's layers in the place of a member's; itself where it has none of them."""
        if all(step.member != member for step in self.path):
            return self
        base = replace(_AS_IT_IS, experts=(self.base,), dtype=self.members[member].dtype)
        known = (name for name, one in self.members.items() if one == base)
        name = next(known, None)
        if name is None:
            name = "base"
            while name in self.members:
                name += "_"
        path = tuple(
            step._replace(member=name) if step.member == member else step for step in self.path
        )
        members = {**self.members, name: base}
        used = {step.member for step in path}
        return replace(self, members={n: m for n, m in members.items() if n in used}, path=path)

    def text(self) -> str:
        """Return it as one line of JSON, floats in full; a step as a list."""
        members = {name: json.loads(member.text()) for name, member in self.members.items()}
        return json.dumps({"kind": self.kind, **vars(self), "members": members})

    @classmethod
    def read(cls, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Stack:
        """Return the stack of the fields of its `text`, without the kind."""
        members = {}
        for name, fields in data["members"].items():
            members[name] = Merge.read({k: v for k, v in fields.items() if k != "kind"}, arrays)
        return cls(data["base"], members, tuple(PathStep(*step) for step in data["path"]))

    def arrays(self) -> Mapping[str, bytes]:
        """Return the arrays of all members."""
        found: dict[str, bytes] = {}
        for member in self.members.values():
            found |= member.arrays()
        return found

    def file(self) -> str:
        """Return it in mergekit's YAML: slices; where members are merges, a document for each of them."""
        return dumps_all(self.recipe(), self.merges())

    def label(self) -> str:
        """Return the kind and the number of layers."""
        return f"{self.kind} of {len(self.path)}"

    def numbers(self) -> list[dict[str, Cell]]:
        """Return where each run of layers stands and the scale of its input; members' numbers behind it."""
        found: list[dict[str, Cell]] = []
        place, before = 0, 1.0
        for run in self.runs():
            stop = place + run.stop - run.start
            found.append(
                {
                    "model": self._models(run.member)[-1],
                    "layers": f"{run.start}-{run.stop}",
                    "tensors": f"layers {place}-{stop}",
                    "parameter": "scale",
                    "value": run.scale / before,
                }
            )
            place, before = stop, run.scale
        for member in self.merges():
            found += self.members[member].numbers()
        return found

    def size(self, base: Size) -> float:
        """Return how many weights it has, as a share of the base's."""
        layers = sum(base.layers[step.layer] for step in self.path)
        return (layers + base.rest) / base.total

    def runs(self) -> Iterator[Run]:
        """Give the path as runs of layers that follow each other in one member, unscaled in between."""
        scales = accumulate((step.scale for step in self.path), mul)
        run: Run | None = None
        for step, scale in zip(self.path, scales, strict=True):
            goes_on = run is not None and (run.member, run.stop) == step[:2] and step.scale == 1
            if run is not None and goes_on:
                run = run._replace(stop=run.stop + 1)
                continue
            if run is not None:
                yield run
            run = Run(step.member, step.layer, step.layer + 1, scale)
        if run is not None:
            yield run

    def merges(self) -> dict[str, Recipe]:
        """Return the members on the path that are merges, not parents as they are."""
        used = dict.fromkeys(step.member for step in self.path)
        return {
            name: self.members[name].recipe() for name in used if not is_parent(self.members[name])
        }

    def recipe(self) -> Recipe:
        """Return the slices, in which a member that is a merge goes by its name."""
        made = self.merges()
        first = next(iter(self.members.values()), None)
        has_vocabulary = any(member.vocabulary is not None for member in self.members.values())
        return Recipe(
            method="passthrough",
            slices=tuple(self._slice(run, made) for run in self.runs()),
            # A vocabulary of its own is that of the members, which then say what is built.
            base_model=None if has_vocabulary else self.base,
            dtype=None if first is None else first.dtype,
        )

    def _slice(self, run: Run, made: Mapping[str, Recipe]) -> Slice:
        model = run.member if run.member in made else self._models(run.member)[-1]
        parameters: dict[str, Setting] = {}
        if run.scale != 1:
            parameters["scale"] = tuple(Conditional(1 / run.scale, one) for one in BRANCH_OUTPUTS)
        return Slice((Source(model, (run.start, run.stop), parameters),))

    def _models(self, member: str) -> tuple[str, ...]:
        model = self.members[member]
        return model.experts if is_parent(model) else (member,)


def is_parent(member: Merge) -> bool:
    """Tell whether a merge is a single model as it is."""
    return replace(member, experts=(), dtype=None) == _AS_IT_IS and len(member.experts) == 1


_AS_IT_IS = Merge("passthrough", ())

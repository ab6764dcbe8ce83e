"""Plain tensors as the inputs of a merge method."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch

from evomerge.errors import MergeError
from evomerge.merge.masks import largest, largest_by, mask_key, row_ranks, uniform
from evomerge.merge.methods.low_rank import Factors
from evomerge.merge.methods.method import Method, Value, Values
from evomerge.merge.methods.tensors import difference, l1_norm


class PlainInputs:
    """Plain tensors as a method sees them (`methods.Inputs`); random numbers go by an input's position.

    Args:
        tensors: One an input.
        base: Which of them is the base; None: the method does not tell it apart.
        shared: Values that hold for all inputs.
        own: Values of each input.
        seed: Of random numbers.
        added: Input → what is added to its weight by row, `[rows, 1, ...]`.
        by_row: Whether gradients by the weights of single rows are wanted, too.
        importances: Input → what its task vector's magnitudes count.
        moments: Input → second moments of its activations.

    Attributes:
        keeps: Whether there is room for what merge and gradients share.
        shape: Of the tensors.
        dtype: Of the maths; at first the tensors' own.
        factors: Input → what makes it of the base (without one, of the first).
    """

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        base: int | None,
        shared: Values,
        own: Sequence[Values],
        seed: int = 0,
        added: Mapping[int, torch.Tensor] | None = None,
        *,
        by_row: bool = False,
        importances: Mapping[int, torch.Tensor] | None = None,
        moments: Mapping[int, torch.Tensor] | None = None,
    ) -> None:
        self._importances, self._moments = importances or {}, moments or {}
        self.name, self.numel = "w", tensors[0].numel()
        self.shape, self.dtype = tuple(tensors[0].shape), tensors[0].dtype
        self.models = tuple(f"m{index}" for index in range(len(tensors)))
        self.base = base
        self.others = tuple(index for index in range(len(tensors)) if index != base)
        self.shared, self.own = shared, tuple(own)
        self.by_row = by_row
        self._tensors, self._seed, self._added = tensors, seed, added or {}
        self.keeps = False
        self._kept: tuple[torch.Tensor, ...] = ()
        self.factors: Mapping[int, Factors] = {}

    def tensor(self, index: int) -> torch.Tensor:
        """Return an input."""
        return self._tensors[index].to(self.dtype)

    def weight(self, index: int) -> float | torch.Tensor:
        """Return the weight of an input, by row where something is added to it."""
        own, added = float(self.own[index]["weight"]), self._added.get(index)
        return own if added is None else added + own

    def delta(self, index: int) -> torch.Tensor:
        """Return an input minus the base."""
        assert self.base is not None
        return difference(self._tensors[index], self._tensors[self.base], self.dtype)

    def low_rank(self, index: int) -> Factors | None:
        """Return the factors of an input, which are given; None: it has none."""
        return self.factors.get(index)

    def origin(self) -> torch.Tensor:
        """Return what factors are added to."""
        return self.tensor(self.base or 0)

    def norm(self, index: int) -> torch.Tensor:
        """Return the L1 norm of a task vector."""
        return l1_norm(self.delta(index))

    def largest(
        self, index: int, count: int, skipped: int = 0, *, by_importance: bool = False
    ) -> torch.Tensor:
        """Return a task vector's largest entries."""
        delta, importance = self.delta(index), self.importance(index)
        flat = delta.reshape(-1)
        if importance is None or not by_importance:
            return largest(flat, count, skipped=skipped).view_as(delta)
        scores = (delta * importance).abs_().view(-1)
        return largest_by(flat, scores, count, skipped=skipped).view_as(delta)

    def ranks(self, index: int, *, by_importance: bool = False) -> torch.Tensor:
        """Return the places of a task vector's entries by magnitude, row by row."""
        importance = self.importance(index) if by_importance else None
        delta = self.delta(index)
        return row_ranks(delta if importance is None else delta * importance)

    def importance(self, index: int) -> torch.Tensor | None:
        """Return what a task vector's magnitudes count."""
        return self._importances.get(index)

    def moment(self, index: int, *, merged: bool = False) -> torch.Tensor:
        """Return second moments of an input's activations."""
        if index not in self._moments:
            raise MergeError(f"there are no second moments of {self.models[index]}")
        return self._moments[index]

    def fixed(self, what: str, build: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what depends on the tensors alone; it is not kept."""
        return build()

    def derived(
        self, what: str, build: Callable[[], torch.Tensor], variant: Hashable = None
    ) -> torch.Tensor:
        """Return what depends on the tensors and a variant; it is not kept."""
        return build()

    def once(
        self, count: int, build: Callable[[], tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, ...] | None:
        """Return what is built for the merge and its gradients, if anything is to be kept."""
        if self.keeps and not self._kept:
            self._kept = build()
            assert len(self._kept) == count
        return self._kept or None

    def uniform(self, index: int, first: int | None = None) -> torch.Tensor:
        """Return one number in [0, 1) an entry, or the first of them."""
        tensor = self._tensors[index]
        found = uniform(mask_key(self._seed, index, "w"), tensor.numel())
        return found.view_as(tensor) if first is None else found[:first]


def plain_inputs(
    method: Method,
    tensors: Sequence[torch.Tensor],
    own: Sequence[Mapping[str, Value]],
    shared: Values,
    base: int | None = 0,
    seed: int = 0,
    added: Mapping[int, torch.Tensor] | None = None,
    *,
    by_row: bool = False,
    importances: Mapping[int, torch.Tensor] | None = None,
    moments: Mapping[int, torch.Tensor] | None = None,
) -> PlainInputs:
    """Return inputs of a method from plain tensors; parameters not given take their defaults."""
    given = {k: spec.default for k, spec in method.parameters.items() if spec.default is not None}
    specs = method.parameters
    ours = {name: value for name, value in given.items() if not specs[name].per_source}
    each = {name: value for name, value in given.items() if specs[name].per_source}
    place = base if method.uses_base else None
    return PlainInputs(
        tensors,
        place,
        ours | dict(shared),
        [each | dict(values) for values in own],
        seed,
        added,
        by_row=by_row,
        importances=importances,
        moments=moments,
    )

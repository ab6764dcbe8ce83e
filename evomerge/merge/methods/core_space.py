"""Core space (arXiv 2509.17786): LoRA experts merged as small matrices in bases that all of them share.

Of the experts' factors B A the left singular vectors U of all B side by side and the right ones V of all A
below each other span everything that the experts change, so nothing is lost in Mᵢ = Uᵀ Bᵢ Aᵢ V, which has at
most as many rows and columns as the ranks sum to. A method merges the M instead of the task vectors; the
result is the base plus U M Vᵀ. A tensor that an expert changes otherwise, such as a head that was trained in
full, is merged as without.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from evomerge.errors import MergeError
from evomerge.merge.methods.method import (
    SUM,
    Effect,
    Inputs,
    Method,
    NumberGradients,
    Parameter,
    Values,
    unless,
)

if TYPE_CHECKING:
    import torch

    from evomerge.merge.methods.low_rank import Factors

CORE_SPACE = "core_space"
PARAMETER = Parameter(
    "boolean",
    "merge LoRA experts as core matrices in bases that they share (arXiv 2509.17786); adapters only",
    default=False,
    beyond_mergekit=True,
)
Merge = Callable[[Inputs], "torch.Tensor"]
Gradients = Callable[[Inputs, "torch.Tensor"], NumberGradients]


def with_core_space(method: Method) -> Method:
    """Return a method of task vectors that takes `core_space`, too."""
    return replace(
        method,
        merge=partial(_merge, method.merge),
        gradients=None if method.gradients is None else partial(_gradients, method.gradients),
        total=unless(CORE_SPACE, method.total),
        parameters={**method.parameters, CORE_SPACE: PARAMETER},
        effect=partial(_effect, method),
    )


class CoreInputs:
    """Core matrices as a method sees them (`methods.Inputs`), on the CPU; the base's is 0.

    Args:
        inputs: The inputs whose task vectors they are.
        factors: Of each of the `others`.
    """

    def __init__(self, inputs: Inputs, factors: list[Factors]) -> None:
        import torch

        from evomerge.merge.methods import algebra

        self._inputs = inputs
        self.name, self.models = inputs.name, inputs.models
        self.base, self.others = inputs.base, inputs.others
        self.shared, self.own, self.by_row = inputs.shared, inputs.own, False
        changed = [one for one in factors if one.rank]
        self.left = inputs.derived(
            "core left",
            lambda: algebra.svd(torch.cat([one.left.double() for one in changed], 1))[0],
        )
        self.right = inputs.derived(
            "core right", lambda: algebra.svd(torch.cat([one.right.double() for one in changed]))[2]
        )
        self._cores = inputs.derived("cores", lambda: self._projected(factors))
        self.shape, self.numel = tuple(self._cores[0].shape), self._cores[0].numel()
        self.dtype = inputs.dtype

    def _projected(self, factors: list[Factors]) -> torch.Tensor:
        """Return the core matrices in the dtype of the maths, `[others, rows, columns]`."""
        import torch

        from evomerge.merge.methods.algebra import product

        found = [
            one.scale * product(product(self.left.T, one.left), product(one.right, self.right.T))
            for one in factors
        ]
        return torch.stack(found).to(self._inputs.dtype)

    def tensor(self, index: int) -> torch.Tensor:
        """Return a core matrix."""
        if index == self.base:
            return self._cores.new_zeros(self.shape)
        return self._cores[self.others.index(index)]

    def weight(self, index: int) -> float | torch.Tensor:
        """Return an input's weight, one number."""
        weight = self._inputs.weight(index)
        if isinstance(weight, float | int):
            return weight
        raise _by_row(self.name)

    def delta(self, index: int) -> torch.Tensor:
        """Return a core matrix."""
        return self.tensor(index)

    def low_rank(self, index: int) -> None:
        """Return no factors: core matrices are small."""

    def origin(self) -> torch.Tensor:
        """Return zeros."""
        assert self.base is not None  # `_core` has checked it
        return self.tensor(self.base)

    def norm(self, index: int) -> torch.Tensor:
        """Return the L1 norm of a core matrix."""
        from evomerge.merge.methods.tensors import l1_norm

        return l1_norm(self.tensor(index))

    def largest(
        self, index: int, count: int, skipped: int = 0, *, by_importance: bool = False
    ) -> torch.Tensor:
        """Return a core matrix with all but `count` magnitudes set to 0."""
        from evomerge.merge.masks import largest

        self._refuse("importance", by_importance)
        core = self.tensor(index)
        return largest(core.reshape(-1), count, skipped=skipped).view_as(core)

    def ranks(self, index: int, *, by_importance: bool = False) -> torch.Tensor:
        """Return the places of a core matrix's entries by rising magnitude, row by row."""
        from evomerge.merge.masks import row_ranks

        self._refuse("importance", by_importance)
        return row_ranks(self.tensor(index))

    def importance(self, index: int) -> None:
        """Refuse: it is of the columns of the tensor."""
        self._refuse("importance")

    def moment(self, index: int, *, merged: bool = False) -> torch.Tensor:
        """Refuse: it is of the columns of the tensor."""
        self._refuse("merged_features" if merged else "activations")
        raise AssertionError

    def fixed(self, what: str, build: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what depends on nothing but the core matrices."""
        return self._inputs.fixed(f"core {what}", build)

    def derived(
        self, what: str, build: Callable[[], torch.Tensor], variant: Hashable = None
    ) -> torch.Tensor:
        """Return what is computed from the core matrices."""
        return self._inputs.derived(f"core {what}", build, variant)

    def once(
        self, count: int, build: Callable[[], tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, ...] | None:
        """Keep nothing for gradients: it is as soon computed again."""
        return None

    def uniform(self, index: int, first: int | None = None) -> torch.Tensor:
        """Return the first of the tensor's random numbers."""
        found = self._inputs.uniform(index, self.numel if first is None else first).cpu()
        return found.view(self.shape) if first is None else found

    def _refuse(self, name: str, asked: bool = True) -> None:
        if asked:
            raise MergeError(
                f"{self.name}: core_space has no {name} of entries; leave one of them out"
            )


def _effect(method: Method, shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the effect of another merge, unless it is a plain sum, which is the same there."""
    found = method.effect(shared, own, base)
    return (
        replace(found, rule=(CORE_SPACE, found.rule))
        if shared[CORE_SPACE] and found.rule != SUM
        else found
    )


def _merge(full: Merge, inputs: Inputs) -> torch.Tensor:
    core = _core(inputs)
    if core is None:
        return full(inputs)
    import torch

    from evomerge.merge.methods.low_rank import product
    from evomerge.merge.methods.tensors import summable

    merged, base = full(core), inputs.origin()
    left = product(core.left, merged.double(), torch.float64, summable(base[:0]).device)
    return product(left, core.right, base.dtype, base.device).add_(base)


def _gradients(full: Gradients, inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    core = _core(inputs)
    if core is None:
        return full(inputs, gradient)
    if inputs.by_row:
        raise _by_row(inputs.name)
    left, right = core.left.to(gradient), core.right.to(gradient)
    return full(core, (left.T @ gradient @ right.T).cpu())


def _core(inputs: Inputs) -> CoreInputs | None:
    """Return the core matrices; None: none are asked for, or the tensor has none."""
    if not inputs.shared[CORE_SPACE]:
        return None
    if inputs.base is None:
        raise MergeError(f"{inputs.name}: core_space needs a base_model")
    found = [inputs.low_rank(index) for index in inputs.others]
    factors = [one for one in found if one is not None]
    if len(factors) < len(found) or not any(one.rank for one in factors):
        return None
    return CoreInputs(inputs, factors)


def _by_row(name: str) -> MergeError:
    return MergeError(f"{name}: core_space has no weights by row; search them by group only")

"""What a merge method is, and what it sees of one output tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch

if TYPE_CHECKING:
    from evomerge.merge.methods.effect import EffectOf

Value = bool | float
Values = Mapping[str, Value]


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a method.

    Attributes:
        kind: A number or a boolean.
        help: What it does and which values are sane; one line.
        required: It has no default.
        default: Its value where none is given; None: the method does without.
        low: Smallest legal number; None: no bound.
        high: Largest legal number; None: no bound.
        per_source: Each model has its own; otherwise one value holds for all.
        differentiable: The merged tensor changes smoothly with it, and the method's `gradients` tell how.
    """

    kind: Literal["number", "boolean"]
    help: str
    required: bool = False
    default: Value | None = None
    low: float | None = None
    high: float | None = None
    per_source: bool = False
    differentiable: bool = False


class Group(Protocol):
    """The inputs of one output tensor, in the order of the recipe, and their parameters.

    Every tensor is in the dtype of the maths (float32; float64 for a float64 merge) and may be shared or
    memory-mapped: a method never writes into it.

    Attributes:
        name: Of the output tensor, for messages.
        models: Names of the inputs.
        base: Which input is the base; None where the recipe has none.
        others: All inputs but the base.
        shared: Value of each parameter that holds for all inputs.
        own: Per input, value of each of its own parameters; the base's may lack some.
    """

    name: str
    models: tuple[str, ...]
    base: int | None
    others: tuple[int, ...]
    shared: Values
    own: tuple[Values, ...]

    def tensor(self, index: int) -> torch.Tensor:
        """Return an input."""
        ...

    def delta(self, index: int) -> torch.Tensor:
        """Return the task vector of an input: it minus the base."""
        ...

    def norm(self, index: int) -> torch.Tensor:
        """Return the L1 norm of the task vector of an input; float64, no dimensions."""
        ...

    def largest(self, index: int, count: int) -> torch.Tensor:
        """Return the task vector with all but its `count` largest magnitudes set to 0 (ties: first)."""
        ...

    def uniform(self, index: int) -> torch.Tensor:
        """Return numbers in [0, 1), one an element, that only seed, input and tensor decide."""
        ...


@dataclass(frozen=True)
class NumberGradients:
    """The gradient of a loss by the numbers behind one tensor: ⟨gradient, ∂tensor/∂number⟩ for each.

    Attributes:
        own: Parameter → one gradient an input; 0 for an input that has no such number (the base).
        shared: Parameter → gradient, for parameters that hold for all inputs.
    """

    own: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A way to merge, as a pure function of one tensor's inputs.

    Attributes:
        name: As in a recipe.
        merge: Inputs → merged tensor; raises MergeError where the maths has no answer.
        parameters: Name → what it takes.
        gradients: Inputs, and the gradient of a loss by the merged tensor (shaped like it, in the dtype of
            the maths) → gradients of the loss by every number that the tensor changes smoothly with: weights
            and factors, also where they are 0; not densities and booleans. None: it has none.
        needs_base: A base model is required.
        uses_base: The base is told apart from the other models; otherwise it is one of them.
        min_models: Fewest models, the base not counted where it is told apart.
        max_models: Most models, counted likewise; None: any number.
        reads_deltas: It reads task vectors; otherwise the models themselves.
        elects: It reads all task vectors twice, to elect signs.
        temporaries: How many tensors of the merged one's size its maths needs at once, task vectors apart.
        derived_bytes: What may be kept of each number of a task vector besides: its place in the order of
            magnitudes, its random number.
        effect: Shared values, own values and place of the base → which numbers count, in a form that is the
            same for settings of the same result; None: all of them.
        ignored: Parameters of mergekit's that change nothing here and are accepted.
    """

    name: str
    merge: Callable[[Group], torch.Tensor]
    parameters: Mapping[str, ParameterSpec]
    gradients: Callable[[Group, torch.Tensor], NumberGradients] | None = None
    needs_base: bool = False
    uses_base: bool = False
    min_models: int = 1
    max_models: int | None = None
    reads_deltas: bool = False
    elects: bool = False
    temporaries: int = 4
    derived_bytes: int = 0
    effect: EffectOf | None = None
    ignored: tuple[str, ...] = ("int8_mask",)

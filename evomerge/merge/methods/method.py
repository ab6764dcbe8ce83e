"""What a merge method is, what it sees of one output tensor, and when two settings of it are one merge.

A method's file declares its parameters beside its functions and imports torch only inside them, so that names
and parameters are answered before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from evomerge.merge.methods.low_rank import Factors

Value = bool | float
Values = Mapping[str, Value]
SUM = "sum"
DECIMALS = 9
"""Of the numbers that are compared: float32 tells no finer ones apart."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        kind: A number, a whole number or a boolean. Only numbers have ranges and go linearly over layers.
        help: What it does and which values are sane; one line.
        required: It has no default.
        default: Its value where none is given; None: the method does without.
        low: Smallest legal number; None: no bound.
        high: Largest legal number; None: no bound.
        per_source: Each model has its own; otherwise one value holds for all.
        differentiable: The merged tensor changes smoothly with it, and the method's `gradients` tell how.
        reads: Of a boolean: where it is true, the method reads statistics of the experts' activations, their
            mean squares (`Inputs.importance`) or all second moments (`Inputs.moment`), their own or `merged`.
        beyond_mergekit: mergekit does not know it, and where it is true would build another merge.
    """

    kind: Literal["number", "integer", "boolean"]
    help: str
    required: bool = False
    default: Value | None = None
    low: float | None = None
    high: float | None = None
    per_source: bool = False
    differentiable: bool = False
    reads: Literal["importance", "moment", "merged"] | None = None
    beyond_mergekit: bool = False

    def __post_init__(self) -> None:
        if self.reads is not None and (self.kind != "boolean" or self.per_source):
            raise ValueError("reads is of a boolean that holds for all models")


class Inputs(Protocol):
    """The inputs of one output tensor, in the order of the recipe, and their parameters.

    Every tensor is in the dtype of the maths (float32; float64 for a float64 merge) and may be shared or
    memory-mapped: a method never writes into it.

    Attributes:
        name: Of the output tensor, for messages.
        numel: How many numbers the tensor has.
        models: Names of the inputs.
        base: Which input is the base; None where the method does not tell it apart.
        others: All inputs but the base.
        shared: Value of each parameter that holds for all inputs.
        own: Per input, value of each of its own parameters; the base's may lack some.
        by_row: Whether gradients by the weights of single rows are wanted, too.
    """

    name: str
    numel: int
    models: tuple[str, ...]
    base: int | None
    others: tuple[int, ...]
    shared: Values
    own: tuple[Values, ...]
    by_row: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the output tensor and of every input."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the maths, and of what a method returns."""
        ...

    def tensor(self, index: int) -> torch.Tensor:
        """Return an input."""
        ...

    def weight(self, index: int) -> float | torch.Tensor:
        """Return an input's `weight`: of the tensor, or `[rows, 1, ...]` (`[1, 1, ...]`) of its rows."""
        ...

    def delta(self, index: int) -> torch.Tensor:
        """Return the task vector of an input: it minus the base."""
        ...

    def low_rank(self, index: int) -> Factors | None:
        """Return what makes an input of `origin`, as factors (of rank 0: nothing); None: it has full rank.

        Of low rank are inputs that LoRA adapters make of the base, or of a model that all have in common.
        """
        ...

    def origin(self) -> torch.Tensor:
        """Return the base; without one, the tensor that all inputs of low rank are made of."""
        ...

    def norm(self, index: int) -> torch.Tensor:
        """Return the L1 norm of the task vector of an input; float64, no dimensions."""
        ...

    def largest(
        self, index: int, count: int, skipped: int = 0, *, by_importance: bool = False
    ) -> torch.Tensor:
        """Return the task vector with all but `count` magnitudes set to 0 (ties: first).

        They are the largest but for the `skipped` largest of all; `by_importance`: by magnitude times
        `importance`, where there is any.
        """
        ...

    def ranks(self, index: int, *, by_importance: bool = False) -> torch.Tensor:
        """Return the place of each entry of the task vector by rising magnitude, from 0 (ties: first).

        Each row is ranked by itself (an entry of the first axis; a vector is one row); int32.
        `by_importance`: as of `largest`.
        """
        ...

    def importance(self, index: int) -> torch.Tensor | None:
        """Return what the magnitudes of a task vector count, at least 0; None: that is not known.

        `[1, columns]`: the root mean square of what entered each column of this linear layer in that expert
        on its search prompts; or what a file of the user's says, of the tensor's shape, `[1, columns]` or
        `[rows, 1]`.
        """
        ...

    def moment(self, index: int, *, merged: bool = False) -> torch.Tensor:
        """Return the mean of x xT over the vectors that entered this linear layer in an input.

        Float32 `[columns, columns]`, over the tokens of its search prompts.

        Args:
            index: Of the input.
            merged: What enters where the layers before are merged, in place of its own.

        Raises:
            MergeError: No statistics are given, or they have none of this tensor.
        """
        ...

    def fixed(self, what: str, build: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return a few numbers that depend on nothing but the inputs' tensors, built once for all merges.

        Args:
            what: Tells them from others of the same tensors.
            build: Computes them.
        """
        ...

    def derived(
        self, what: str, build: Callable[[], torch.Tensor], variant: Hashable = None
    ) -> torch.Tensor:
        """Return a tensor that is computed from the inputs' tensors; kept for later merges if there is room.

        Args:
            what: Tells it from others of the same tensors.
            build: Computes it.
            variant: What else it depends on; of several variants the last one is kept.
        """
        ...

    def once(
        self, count: int, build: Callable[[], tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, ...] | None:
        """Return `count` tensors like the merged one that a merge and all its gradients share, built once.

        None: no gradients are to follow, or there is no room.
        """
        ...

    def uniform(self, index: int, first: int | None = None) -> torch.Tensor:
        """Return numbers in [0, 1), one an element, that only seed, input and tensor decide.

        Args:
            index: Of the input.
            first: How many of them, `[first]`; None: all, in the shape of the tensor.
        """
        ...


@dataclass(frozen=True)
class NumberGradients:
    """The gradient of a loss by the numbers behind one tensor: ⟨gradient, ∂tensor/∂number⟩ for each.

    Attributes:
        own: Parameter → one gradient an input; 0 for an input that has no such number (the base).
        shared: Parameter → gradient, for parameters that hold for all inputs.
        rows: By the `weight` of each row, float64 `[inputs, rows]`, where that is wanted; its sum over rows
            stands in `own`.
    """

    own: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)
    rows: torch.Tensor | None = None


@dataclass(frozen=True)
class Effect:
    """A merge of one tensor in a form that is the same for all settings that mean the same.

    Attributes:
        rule: How the inputs are joined; `SUM`: Σ factor · input.
        parts: Input → its numbers, of those that have a part in the result; of a `SUM` its factor.
        masked: Whether random masks are drawn.
    """

    rule: Hashable
    parts: Mapping[int, Hashable] = field(default_factory=dict)
    masked: bool = False


def unless(
    switch: str, total: Callable[[Inputs], Sum | None] | None
) -> Callable[[Inputs], Sum | None] | None:
    """Return a method's `total` for where a boolean parameter that changes the maths is off."""
    return None if total is None else partial(_unless, switch, total)


def _unless(switch: str, total: Callable[[Inputs], Sum | None], inputs: Inputs) -> Sum | None:
    return None if inputs.shared[switch] else total(inputs)


def summed(factors: Mapping[int, float]) -> Effect:
    """Return the effect of Σ factor · input; a factor of 0 leaves its input out."""
    near = {index: rounded(factor) for index, factor in factors.items()}
    return Effect(SUM, {index: factor for index, factor in near.items() if factor})


def as_written(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the effect of a method in which every number counts."""
    parts = {index: (index == base, numbers(values)) for index, values in enumerate(own)}
    return Effect(numbers(shared), parts)


def numbers(values: Values) -> Hashable:
    """Return values as one value that can be compared."""
    return tuple(sorted((name, rounded(value)) for name, value in values.items()))


def rounded(value: Value) -> Value:
    """Round a number to what counts, a negative zero to zero."""
    return value if isinstance(value, bool) else round(value, DECIMALS) + 0.0


@dataclass(frozen=True)
class Kept:
    """Which entries of a task vector are kept; the others are 0.

    Attributes:
        count: So many of the largest magnitudes, of equals the first; None: all.
        skipped: How many of the largest are left out before counting.
        density: Those whose random number is below it; None: all.
        by_rank: Those whose random number is below the first number + the second · their rank: by rising
            magnitude in their row, from 0, each product and sum rounded to float32; None: all.
        rescale: They are given the L1 norm of the whole task vector.
    """

    count: int | None = None
    skipped: int = 0
    density: float | None = None
    by_rank: tuple[float, float] | None = None
    rescale: bool = False


@dataclass(frozen=True)
class Term:
    """One input of a `Sum`: its place, its factor, and what is kept of its task vector."""

    index: int
    weight: float
    kept: Kept = Kept()


@dataclass(frozen=True)
class Sum:
    """A merged tensor as base + factor · Σ weight · kept task vector / divisor, entry by entry.

    Attributes:
        terms: One at least, in the order in which they are added.
        base: What task vectors are relative to; None: the terms are models, and nothing is added to them.
        elect: Sum only entries that agree with the elected sign.
        divisor: Of the sum; None: the agreeing weights.
        factor: Of the sum.
    """

    terms: tuple[Term, ...]
    base: int | None
    elect: bool = False
    divisor: float | None = 1.0
    factor: float = 1.0

    def shows_all(self, inputs: int) -> bool:
        """Tell whether NaN or infinity in any of so many inputs would be in the merged tensor, too."""
        read = {term.index for term in self.terms} | ({self.base} - {None})
        return len(read) == inputs and not (self.elect or self.drops)

    @cached_property
    def drops(self) -> bool:
        """Whether anything but all entries is kept of a task vector."""
        return any(term.kept != Kept() for term in self.terms)


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
        rows: Its weights may differ by row (`Inputs.weight`), and `gradients` tells those of each row where
            `Inputs.by_row`.
        temporaries: How many float32 tensors of the merged one's size merge and gradients take at once at
            most, the result among them, what is kept between merges not; beside one task vector, or all that
            are held while signs are elected. Inputs are converted each time that they are read.
        recomputing: How many more where task vectors are too large to be held.
        derived_bytes: What may be kept of each number of a task vector besides: its place in the order of
            magnitudes, its random number, the derivative by its weight.
        one_pass_bytes: What of that is kept where it is merged in one pass on a CPU (on a GPU: nothing);
            None: it never is.
        one_pass_on_gpus: Whether a GPU does so, too.
        matrix_bytes: Rows, columns and number of experts → what merge and gradients of a linear layer's
            matrix take of the host's memory at the peak; None: what `temporaries` says.
        total: Inputs → the same merge as a sum, which is computed in one pass where that is possible; None:
            it is none, as where weights differ by row.
        effect: Shared values, own values and place of the base → which numbers count, in a form that is the
            same for settings of the same result.
        ignored: Parameters of mergekit's that change nothing here and are accepted.
        beyond_mergekit: Whether mergekit lacks it.
    """

    name: str
    merge: Callable[[Inputs], torch.Tensor]
    parameters: Mapping[str, Parameter]
    gradients: Callable[[Inputs, torch.Tensor], NumberGradients] | None = None
    needs_base: bool = False
    uses_base: bool = False
    min_models: int = 1
    max_models: int | None = None
    reads_deltas: bool = False
    elects: bool = False
    rows: bool = False
    temporaries: int = 4
    recomputing: int = 0
    derived_bytes: int = 0
    one_pass_bytes: int | None = None
    one_pass_on_gpus: bool = True
    matrix_bytes: Callable[[int, int, int], int] | None = None
    total: Callable[[Inputs], Sum | None] | None = None
    effect: Callable[[Values, Sequence[Values], int | None], Effect] = as_written
    ignored: tuple[str, ...] = ("int8_mask",)
    beyond_mergekit: bool = False

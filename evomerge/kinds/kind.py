"""What a kind of candidates is: all that a campaign must know to search it.

A kind imports torch, transformers and optuna inside its methods only: the driver asks for kinds before it
needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evomerge.candidate import Arrays, Candidate, Coefficients, no_arrays
from evomerge.errors import MergeError

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution
    from torch import nn

    from evomerge import config
    from evomerge.candidate.merge import Own
    from evomerge.candidate.tables import Array
    from evomerge.candidate.trial import Gradients
    from evomerge.merge.checkpoint import Checkpoint
    from evomerge.merge.live import LiveModel
    from evomerge.space import Baseline, Family, Space

Point = Mapping[str, float]
NumberTables = tuple["Mapping[str, Own]", "Mapping[str, Array]"]
"""Gradients as in `Gradients.numbers` and in `Gradients.rows`."""


class SearchSpace(Protocol):
    """Where candidates of one kind are searched: a rectangle of numbers, all of them in every trial."""

    @property
    def distributions(self) -> Mapping[str, FloatDistribution]:
        """Dimension → its range, in a fixed order."""

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The dimensions that have a gradient."""
        return ()

    @property
    def choices(self) -> Space | None:
        """The space of merges whose points choose a method or experts; None: all numbers always count."""
        return None

    def candidate(self, params: Point, coefficients: Coefficients | None = None) -> Candidate:
        """Return the candidate of a point; `coefficients` as in `Merge`, where `takes_rows`."""

    @property
    def takes_rows(self) -> bool:
        """Whether weights may differ by tensor and row."""
        return False

    def gradient(self, params: Point, gradients: Gradients) -> dict[str, float]:
        """Return the gradient of a loss by each dimension of `differentiable`, from that by its numbers."""
        return {}

    def baselines(self) -> tuple[Baseline, ...]:
        """Return parents and naive merges, each with its point where it lies in this space."""

    def taken_over(self, campaign: config.Campaign, params: Point) -> dict[str, float] | None:
        """Return the point most like one of an earlier campaign; None where there is none."""
        return None


class Builder(Protocol):
    """Builds the candidates of one kind on one worker; opened once there."""

    def build(self, candidate: Any) -> nn.Module:  # noqa: ANN401 - of the builder's kind
        """Return the model of a candidate, until the next one is built.

        Raises:
            UserError: The candidate is wrong.
            MergeError: It cannot be built.
        """

    def gradients(
        self,
        candidate: Any,  # noqa: ANN401 - of the builder's kind
        recompute: Callable[[nn.Module], bool],
        *,
        rows: bool = False,
    ) -> AbstractContextManager[tuple[nn.Module, Callable[[], NumberTables]]]:
        """Build a candidate, and record the gradients of losses by its numbers.

        Args:
            candidate: Of this kind.
            recompute: Whether layers are recomputed in the backward pass of a module to save memory.
            rows: Whether those by the weights of single rows are wanted, too.

        Returns:
            Within the context: the module, and what returns the gradients of all losses that were
            differentiated so far.

        Raises:
            MergeError: There are none.
        """
        raise MergeError(f"{candidate.kind} has no gradients; choose a sampler that needs none")


class Kind(Protocol):
    """One kind of candidates.

    Attributes:
        keys: What it takes of the campaign's `space`, besides `kind`.
    """

    keys: frozenset[str]

    def check(self, settings: config.SpaceSettings) -> None:
        """Check what needs no model. Raises CampaignError."""

    def space(self, settings: config.SpaceSettings, family: Family, seed: int) -> SearchSpace:
        """Lay out the dimensions.

        Args:
            settings: The campaign's `space`.
            family: The models.
            seed: For whatever is drawn at random when a candidate is built.

        Raises:
            CampaignError: The settings do not fit the models.
        """

    def read(self, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Candidate:
        """Return the candidate of the fields of its `text`; `arrays` gives what it names by digest."""

    def opened(self, live: LiveModel) -> Builder:
        """Return the builder of a worker.

        Args:
            live: The resident models, and one module that merges are written into.
        """

    def content(
        self,
        candidate: Any,  # noqa: ANN401 - of this kind
        checkpoints: Mapping[str, Checkpoint],
    ) -> Hashable:
        """Return a value that is equal for candidates of the same weights, as far as can be told."""
        return str(candidate.text())

    def save(self, candidate: Any, out: Path | str, **options: Any) -> None:  # noqa: ANN401
        """Write a candidate as a folder; options and errors are those of `merge.saving.save`."""

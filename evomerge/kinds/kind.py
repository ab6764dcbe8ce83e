"""What a kind of candidates is: all that a campaign must know to search it.

A kind imports torch, transformers and optuna inside its methods only: the driver asks for kinds before it
needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from evomerge.candidate import Arrays, Candidate, Coefficients, Merge, no_arrays
from evomerge.candidate.ablation import Ablations
from evomerge.errors import MergeError

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution
    from torch import nn

    from evomerge import config
    from evomerge.candidate.merge import Own
    from evomerge.candidate.tables import Array
    from evomerge.candidate.trial import Gradients, Split, Values
    from evomerge.merge.checkpoint import Checkpoint
    from evomerge.merge.live import LiveModel
    from evomerge.merge.methods import Parameter
    from evomerge.space import Baseline, Family, Needs, Regions

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
    def regions(self) -> Regions | None:
        """Where other numbers count; None: all numbers always do."""
        return None

    @property
    def needs(self) -> Needs:
        """What candidates need beyond what merges need."""
        from evomerge.space.needs import Needs

        return Needs()

    def candidate(
        self,
        params: Point,
        coefficients: Coefficients | None = None,
        best: Merge | None = None,
    ) -> Candidate:
        """Return the candidate of a point.

        Args:
            params: A value for each of `distributions`.
            coefficients: As in `Merge`, where `takes_rows`.
            best: The best of the merges, parents among them, that the campaign has scored so far, for
                candidates that are made over it; None: none is known.
        """

    @property
    def takes_rows(self) -> bool:
        """Whether weights may differ by tensor and row."""
        return False

    def gradient(self, params: Point, gradients: Gradients) -> dict[str, float]:
        """Return the gradient of a loss by each dimension of `differentiable`, from that by its numbers."""
        return {}

    def baselines(self) -> tuple[Baseline, ...]:
        """Return parents and naive merges, each with its point where it lies in this space."""

    def first(self) -> tuple[Point, ...]:
        """Return points that a search tries before its sampler's."""
        return ()

    def taken_over(self, campaign: config.Campaign, params: Point) -> dict[str, float] | None:
        """Return the point most like one of an earlier campaign; None where there is none."""
        return None


class ItemPrompts(Protocol):
    """The prompts of a campaign's items, as the models read them."""

    def tokens(self, split: Split) -> Mapping[str, Sequence[tuple[int, ...]]]:
        """Return of each task's items, in the order of `Items.ids`, what stands before the answer.

        The prompt of a task that generates; the context that the choices have in common; of a text that
        is only read the token that it begins behind.
        """


@dataclass(frozen=True)
class Assignment:
    """Items of a split that one member of a candidate answers.

    Attributes:
        member: Its name among the candidate's `scored_members`.
        candidate: The member.
        positions: Task → which of its items, by position among `Items.ids`, ascending.
    """

    member: str
    candidate: Merge
    positions: Mapping[str, tuple[int, ...]]


class Builder(Protocol):
    """Builds the candidates of one kind on one worker; opened once there."""

    def fitted(
        self,
        candidate: Any,  # noqa: ANN401 - of the builder's kind
        known: Mapping[str, Values],
    ) -> Candidate:
        """Return a candidate with what it learns from the prompts of the search items.

        One that has learnt is returned as it is, so that what is stored, saved and loaded is what was
        scored.

        Args:
            candidate: Of this kind.
            known: As of `Job`.

        Raises:
            MergeError: It cannot learn, for want of scores or prompts.
        """
        found: Candidate = candidate
        return found

    def parts(
        self,
        candidate: Any,  # noqa: ANN401 - of the builder's kind
        split: Split,
    ) -> Sequence[Assignment] | None:
        """Return which member answers which items of a split, each item once; None: `build` answers all."""
        return None

    def route(self, candidate: Any, prompts: Sequence[Sequence[int]]) -> None:  # noqa: ANN401
        """Do with prompts what is done before members answer them, where there are `parts`, to be timed."""
        return

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
        parameters: What it takes under `parameters`, besides those of merge methods.
        own_form: What is saved is not a checkpoint of a class of transformers; its folder says how it is
            opened.
    """

    keys: frozenset[str]
    parameters: Mapping[str, Parameter] = MappingProxyType({})
    own_form: bool = False

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

    def check_base(self, settings: config.SpaceSettings, base: Checkpoint) -> None:
        """Check what can be told of the base once it is open; the experts are like it. Raises UserError."""
        return

    def read(self, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Candidate:
        """Return the candidate of the fields of its `text`; `arrays` gives what it names by digest."""

    def opened(self, live: LiveModel, prompts: ItemPrompts | None = None) -> Builder:
        """Return the builder of a worker.

        Args:
            live: The resident models, and one module that merges are written into.
            prompts: Of the campaign's items; None where nothing is scored, or no prompts are known.
        """

    def content(
        self,
        candidate: Any,  # noqa: ANN401 - of this kind
        checkpoints: Mapping[str, Checkpoint],
    ) -> Hashable:
        """Return a value that is equal for candidates of the same weights, as far as can be told."""
        return str(candidate.text())

    def ablations(
        self,
        candidate: Any,  # noqa: ANN401 - of this kind
        checkpoints: Mapping[str, Checkpoint],
    ) -> Ablations:
        """Return what can be left out of a candidate, to see what each part adds.

        Args:
            candidate: Of this kind, with what it has learnt.
            checkpoints: Every model that it names.
        """
        return Ablations(
            notes=(f"What is left of a {candidate.kind} without a part is not defined.",)
        )

    def save(self, candidate: Any, out: Path | str, **options: Any) -> None:  # noqa: ANN401
        """Write a candidate as a folder; options and errors are those of `merge.saving.save`."""

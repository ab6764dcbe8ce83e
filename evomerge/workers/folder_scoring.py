"""Candidates as folders, scored by a backend of lm-eval's; and what both ways of scoring share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from transformers import PreTrainedTokenizerBase

from evomerge.candidate import Candidate
from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.states import StatesJob
from evomerge.candidate.timing import Timing
from evomerge.candidate.trial import GradientJob, Job, Target, TargetJob
from evomerge.candidate.writing import WriteJob
from evomerge.errors import TaskError
from evomerge.kinds import kind_of
from evomerge.kinds.kind import NumberTables
from evomerge.merge.models import open_models
from evomerge.scoring import Losses, Scored, Texts, open_backend
from evomerge.tasks import Items, load_items
from evomerge.workers.scratch import in_memory
from evomerge.workers.setup import WorkerSetup

GPU_MEMORY = 0.9
"""Share of a GPU that vLLM takes by default, as if it had the GPU to itself."""
Score = Callable[[Job], Iterator[Scored]]  # cumulative: one by block in a race, else a single one
Differentiated = tuple[Losses, NumberTables]
Distances = list[list[list[float]]]
Activations = tuple[ActivationsFound, int]
"""What was found, and how many prompts were read."""


@dataclass(frozen=True)
class BuiltCandidate:
    """A candidate that can be scored."""

    score: Score
    candidate: Candidate  # with what it has learnt
    races: bool = False  # whether it is scored block by block
    routes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # as of `Outcome`
    read: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # as of `Outcome`
    timing: Callable[[], Timing] | None = None  # times what was built last


class FolderScoring:
    """Candidates as folders, which a backend of lm-eval's loads, and scores in one go."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        models = open_models(
            setup.models,
            setup.vocabulary,
            trust_remote_code=setup.trust_remote_code,
            allow_pickle=setup.allow_pickle,
        )
        self._scorer = open_backend(
            str(setup.backend),
            items_of(setup, models.tokenizer),
            setup.backend_arguments,
            defaults=backend_defaults(setup),
        )

    def texts(self, jobs: Sequence[Job]) -> dict[int, Texts]:
        """Return nothing: a backend of lm-eval's writes once it has loaded a candidate."""
        return {}

    @contextmanager
    def built(self, job: Job, texts: Texts | None) -> Iterator[BuiltCandidate]:
        """Save a candidate, so that it can be scored."""
        candidate = job.entry.candidate
        if job.noise is not None:
            raise TaskError(f"{job.entry.name}: random task vectors need the resident scorer")
        with in_memory() as folder:
            kind_of(candidate).save(
                candidate,
                folder / "model",
                device=self._setup.device,
                dtype=self._setup.dtype,
                trust_remote_code=self._setup.trust_remote_code,
                allow_pickle=self._setup.allow_pickle,
            )
            yield BuiltCandidate(
                lambda job: iter([self._scorer.score(folder / "model", job.split, job.metrics)]),
                candidate,
            )

    @contextmanager
    def differentiable(
        self, candidate: Candidate, *, rows: bool
    ) -> Iterator[Callable[[GradientJob], Differentiated]]:
        """Refuse."""
        yield no_gradients

    @contextmanager
    def listening(
        self, candidate: Candidate
    ) -> Iterator[Callable[[TargetJob], tuple[Target | None, ...]]]:
        """Refuse."""
        yield no_gradients

    @contextmanager
    def writing(self, candidate: Candidate) -> Iterator[Callable[[WriteJob], list[str]]]:
        """Refuse."""
        yield no_texts

    @contextmanager
    def sensing(self) -> Iterator[Callable[[ActivationsJob], Activations]]:
        """Refuse."""
        yield no_activations

    @contextmanager
    def reading(self) -> Iterator[Callable[[StatesJob], tuple[Distances, int]]]:
        """Refuse."""
        yield no_states


def no_activations(job: ActivationsJob) -> NoReturn:
    """Refuse. Raises TaskError."""
    raise TaskError(f"{job.name} need the resident scorer, not a backend of lm-eval's")


def no_states(job: StatesJob) -> NoReturn:
    """Refuse. Raises TaskError."""
    raise TaskError(
        f"{job.name}: hidden states need the resident scorer, not a backend of lm-eval's"
    )


def no_texts(job: WriteJob) -> NoReturn:
    """Refuse. Raises TaskError."""
    raise TaskError(f"{job.name}: texts need the resident scorer, not a backend of lm-eval's")


def no_gradients(job: GradientJob | TargetJob) -> NoReturn:
    """Refuse. Raises TaskError."""
    raise TaskError(
        f"{job.name}: gradients and teachers need the resident scorer, not a backend of lm-eval's; leave "
        "scorer.backend out, or choose a sampler that needs none"
    )


def backend_defaults(setup: WorkerSetup) -> dict[str, Any]:
    """Return what a model type of lm-eval's is given where the campaign's `scorer.args` say nothing."""
    found: dict[str, Any] = {"device": setup.device}
    if setup.trust_remote_code:
        found["trust_remote_code"] = True
    if setup.device != "cpu" and setup.sharing.device > 1:
        found["gpu_memory_utilization"] = GPU_MEMORY / setup.sharing.device
    return found


def items_of(setup: WorkerSetup, tokenizer: PreTrainedTokenizerBase) -> Items:
    """Load the items that a worker scores on."""
    return load_items(
        setup.requests,
        tokenizer=tokenizer,
        tasks_path=setup.tasks_path,
        plan=setup.plan,
        prompt=setup.prompt,
        allow_unsafe_code=setup.allow_unsafe_code,
        trust_remote_code=setup.trust_remote_code,
    )

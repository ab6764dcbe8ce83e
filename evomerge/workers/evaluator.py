"""One worker's models and items, joined: Candidate → Outcome."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from evomerge.merge import LiveModel, load_tokenizer, save
from evomerge.recipe import Recipe
from evomerge.score import BackendScorer, Items, Scored, Scorer, load_items, scratch_folder
from evomerge.trial import Cost, FailureKind, Job, Outcome, Split
from evomerge.workers.assignment import Assignment
from evomerge.workers.failures import CANDIDATE_ERRORS, failure_of

Score = Callable[[Split, Mapping[str, tuple[str, ...]]], Scored]


class Evaluator:
    """Resident models and one live model, or a backend of lm-eval's; items tokenised once.

    Raises:
        UserError: A model, task, item set or backend of the assignment cannot be used.
    """

    def __init__(self, assignment: Assignment) -> None:
        if assignment.threads is not None:
            torch.set_num_threads(assignment.threads)
        self._scoring: _Resident | _Folders = (
            _Resident(assignment) if assignment.backend is None else _Folders(assignment)
        )
        self._name = f"{socket.gethostname()}/{os.getpid()}"

    def evaluate(self, job: Job) -> Outcome:
        """Build a candidate and score it; whatever goes wrong with it becomes a typed failure."""
        clock = _Clock()
        step = FailureKind.MERGE
        try:
            with self._scoring.built(job.candidate.recipe) as score:
                clock.merged()
                step = FailureKind.TASK
                scored = score(job.split, job.metrics)
        except CANDIDATE_ERRORS as error:
            failure = failure_of(error, step)
            if failure.kind is FailureKind.OUT_OF_MEMORY and torch.cuda.is_available():
                torch.cuda.empty_cache()
            return Outcome(failure=failure, cost=clock.cost(), worker=self._name)
        cost = clock.cost(scored.items, scored.generated_tokens)
        return Outcome(scored.tasks, None, cost, self._name)


class _Resident:
    """Candidates in the live weights."""

    def __init__(self, assignment: Assignment) -> None:
        self._model = LiveModel(
            assignment.models,
            dtype=assignment.dtype,
            device=assignment.device,
            trust_remote_code=assignment.trust_remote_code,
            allow_pickle=assignment.allow_pickle,
        )
        self._scorer = Scorer(
            self._model.module,
            self._model.tokenizer,
            _items(assignment, self._model.tokenizer),
            batch_tokens=assignment.batch_tokens,
        )

    @contextmanager
    def built(self, recipe: Recipe) -> Iterator[Score]:
        self._model.write(recipe)
        yield self._scorer.score


class _Folders:
    """Candidates as folders, which a backend of lm-eval's loads."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        tokenizer = load_tokenizer(
            assignment.models[0], trust_remote_code=assignment.trust_remote_code
        )
        self._scorer = BackendScorer(
            _items(assignment, tokenizer), str(assignment.backend), assignment.backend_arguments
        )

    @contextmanager
    def built(self, recipe: Recipe) -> Iterator[Score]:
        with scratch_folder() as folder:
            save(
                recipe,
                folder / "model",
                device=self._assignment.device,
                dtype=self._assignment.dtype,
                trust_remote_code=self._assignment.trust_remote_code,
                allow_pickle=self._assignment.allow_pickle,
            )
            yield partial(self._scorer.score, folder / "model")


def _items(assignment: Assignment, tokenizer: PreTrainedTokenizerBase) -> Items:
    return load_items(
        assignment.requests,
        tokenizer=tokenizer,
        tasks_path=assignment.tasks_path,
        plan=assignment.plan,
        prompt=assignment.prompt,
        allow_unsafe_code=assignment.allow_unsafe_code,
        trust_remote_code=assignment.trust_remote_code,
    )


@dataclass
class _Clock:
    start: float = field(default_factory=time.perf_counter)
    merge_seconds: float | None = None

    def merged(self) -> None:
        self.merge_seconds = time.perf_counter() - self.start

    def cost(self, items: int = 0, generated_tokens: int = 0) -> Cost:
        total = time.perf_counter() - self.start
        merge = total if self.merge_seconds is None else self.merge_seconds
        return Cost(merge, total - merge, items, generated_tokens)

"""One worker's models and items, joined: Candidate → Outcome."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field

import torch

from evomerge.merge import LiveModel
from evomerge.score import Scorer, load_items
from evomerge.trial import Cost, FailureKind, Job, Outcome
from evomerge.workers.assignment import Assignment
from evomerge.workers.failures import CANDIDATE_ERRORS, failure_of


class Evaluator:
    """Resident models, one live model, items tokenised once.

    Raises:
        UserError: A model, task or item set of the assignment cannot be used.
    """

    def __init__(self, assignment: Assignment) -> None:
        if assignment.threads is not None:
            torch.set_num_threads(assignment.threads)
        self._model = LiveModel(
            assignment.models,
            dtype=assignment.dtype,
            device=assignment.device,
            trust_remote_code=assignment.trust_remote_code,
            allow_pickle=assignment.allow_pickle,
        )
        items = load_items(
            assignment.requests,
            tokenizer=self._model.tokenizer,
            tasks_path=assignment.tasks_path,
            plan=assignment.plan,
            prompt=assignment.prompt,
            trust_remote_code=assignment.trust_remote_code,
        )
        self._scorer = Scorer(
            self._model.module,
            self._model.tokenizer,
            items,
            batch_tokens=assignment.batch_tokens,
        )
        self._name = f"{socket.gethostname()}/{os.getpid()}"

    def evaluate(self, job: Job) -> Outcome:
        """Build a candidate and score it; whatever goes wrong with it becomes a typed failure."""
        clock = _Clock()
        step = FailureKind.MERGE
        try:
            self._model.write(job.candidate.recipe)
            clock.merged()
            step = FailureKind.TASK
            scored = self._scorer.score(job.split, job.metrics)
        except CANDIDATE_ERRORS as error:
            failure = failure_of(error, step)
            if failure.kind is FailureKind.OUT_OF_MEMORY and torch.cuda.is_available():
                torch.cuda.empty_cache()
            return Outcome(failure=failure, cost=clock.cost(), worker=self._name)
        cost = clock.cost(scored.items, scored.generated_tokens)
        return Outcome(scored.tasks, None, cost, self._name)


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

"""One worker's models and items, joined: Job → Outcome, GradientJob → Gradients, TargetJob → TargetsFound."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from evomerge.candidate import Candidate
from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.merge import Own, tuples
from evomerge.candidate.states import StatesFound, StatesJob
from evomerge.candidate.timing import Timing
from evomerge.candidate.trial import (
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Job,
    Jobs,
    Outcome,
    Outcomes,
    Pruned,
    Race,
    Target,
    TargetJob,
    TargetsFound,
    without_answers,
)
from evomerge.candidate.writing import WriteJob, Written
from evomerge.errors import ModelError
from evomerge.inference import NotFinite
from evomerge.inference.states import distances, mean_states
from evomerge.kinds import Assignment, Builder, kind_of
from evomerge.merge.activations import activations
from evomerge.merge.live import LiveModel
from evomerge.merge.statistics import look_in
from evomerge.merge.user_methods import use
from evomerge.racing import blocks, give_up
from evomerge.scoring import (
    MemberPart,
    Scored,
    Scorer,
    Texts,
    VllmScorer,
    backend_type,
    open_backend,
)
from evomerge.workers.clock import Clock
from evomerge.workers.failures import CANDIDATE_ERRORS, failure_of
from evomerge.workers.folder_scoring import (
    Activations,
    BuiltCandidate,
    Differentiated,
    Distances,
    FolderScoring,
    backend_defaults,
    items_of,
    no_activations,
    no_gradients,
    no_states,
    no_texts,
)
from evomerge.workers.members import known_scores, routes_of, tokens_read
from evomerge.workers.memory_plan import keep_to_share, plan_memory_here
from evomerge.workers.setup import WorkerSetup
from evomerge.workers.timing import Prompts, timing
from evomerge.workers.together import end_to_end
from evomerge.workers.vllm_adapters import CandidateAdapters
from evomerge.workers.vllm_weights import serve

RESIDENT = "resident"
Built = TypeVar("Built")
Found = TypeVar("Found")


class Evaluator:
    """Resident models and one live model, or a backend of lm-eval's; items tokenised once.

    Raises:
        UserError: A model, task, item set or backend of the setup cannot be used.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        use(setup.method_file)
        look_in(setup.results)
        takes = backend_type(setup.backend or RESIDENT).takes
        self._scoring: _Resident | FolderScoring = (
            _Resident(setup) if takes == "module" else FolderScoring(setup)
        )
        self._name = f"{socket.gethostname()}/{os.getpid()}"

    def evaluate(self, job: Job) -> Outcome:
        """Build a candidate and score it; whatever goes wrong with it becomes a typed failure."""
        return self.together(Jobs((job,))).each[0]

    def together(self, jobs: Jobs) -> Outcomes:
        """Evaluate candidates one after another; what can be written for all at once is written before."""
        texts, clock = _attempt(nullcontext(jobs.each), self._scoring.texts)
        if isinstance(texts, Failure):
            if len(jobs.each) > 1:
                return Outcomes(tuple(map(self.evaluate, jobs.each)))
            return Outcomes((Outcome(failure=texts, cost=clock.cost(), worker=self._name),))
        seconds = clock.cost().score_seconds
        found = [self._evaluated(job, texts.get(place)) for place, job in enumerate(jobs.each)]
        if texts:
            shares = {place: sum(map(len, own.values())) for place, own in texts.items()}
            found = end_to_end(found, clock.began, seconds, shares)
        return Outcomes(tuple(found))

    def _evaluated(self, job: Job, texts: Texts | None) -> Outcome:
        found, clock = _attempt(
            self._scoring.built(job, texts),
            lambda built: (built, *_run(built.score(job), job.race if built.races else None)),
        )
        if isinstance(found, Failure):
            return Outcome(failure=found, cost=clock.cost(), worker=self._name)
        built, scored, pruned = found
        cost = clock.cost(scored.items, scored.generated_tokens)
        learnt = None if built.candidate is job.entry.candidate else built.candidate
        timed: Timing | Failure | None = None
        if job.timed and built.timing is not None:
            timed, _ = _attempt(nullcontext(built.timing), lambda timing: timing())
        told = built.routes, built.read, None if isinstance(timed, Failure) else timed
        scores = scored.tasks if job.answers else without_answers(scored.tasks)
        return Outcome(scores, None, cost, self._name, pruned, learnt, *told)

    def gradient(self, job: GradientJob) -> Gradients:
        """Build a recipe and take the gradient of its loss; failures are typed as `evaluate` types them."""
        differentiable = self._scoring.differentiable(job.candidate, rows=job.rows)
        found, clock = _attempt(differentiable, lambda differentiate: differentiate(job))
        if isinstance(found, Failure):
            return Gradients(failure=found, cost=clock.cost(), worker=self._name)
        losses, (numbers, rows) = found
        cost = clock.cost(losses.items)
        return Gradients(losses.total, losses.tasks, numbers, None, cost, self._name, rows)

    def targets(self, job: TargetJob) -> TargetsFound:
        """Build a teacher and let it speak; failures are typed as `evaluate` types them."""
        found, clock = _attempt(self._scoring.listening(job.candidate), lambda listen: listen(job))
        if isinstance(found, Failure):
            return TargetsFound((), found, clock.cost(), self._name)
        return TargetsFound(found, None, clock.cost(len(found)), self._name)

    def states(self, job: StatesJob) -> StatesFound:
        """Let models read the same prompts; failures are typed as `evaluate` types them."""
        found, clock = _attempt(self._scoring.reading(), lambda compare: compare(job))
        if isinstance(found, Failure):
            return StatesFound(failure=found, cost=clock.cost(), worker=self._name)
        distances, prompts = found
        items = prompts * len(job.models)
        return StatesFound(tuples(distances), prompts, None, clock.cost(items), self._name)

    def activations(self, job: ActivationsJob) -> ActivationsFound:
        """Let a model read prompts; failures are typed as `evaluate` types them."""
        found, clock = _attempt(self._scoring.sensing(), lambda sense: sense(job))
        if isinstance(found, Failure):
            return ActivationsFound(failure=found, cost=clock.cost(), worker=self._name)
        answer, prompts = found
        return replace(answer, cost=clock.cost(prompts), worker=self._name)

    def write(self, job: WriteJob) -> Written:
        """Build a model and let it continue prompts; failures are typed as `evaluate` types them."""
        found, clock = _attempt(self._scoring.writing(job.candidate), lambda write: write(job))
        if isinstance(found, Failure):
            return Written((), found, clock.cost(), self._name)
        return Written(tuple(found), None, clock.cost(len(found)), self._name)


def _attempt(
    building: AbstractContextManager[Built], work: Callable[[Built], Found]
) -> tuple[Found | Failure, Clock]:
    """Build a candidate and do the work; an error of either step is returned as its failure."""
    clock = Clock()
    step = FailureKind.MERGE
    try:
        with building as built:
            clock.merged()
            step = FailureKind.TASK
            return work(built), clock
    except CANDIDATE_ERRORS as error:
        failure = failure_of(error, step)
    _make_room_after(failure)
    return failure, clock


def _run(parts: Iterator[Scored], race: Race | None) -> tuple[Scored, Pruned | None]:
    """Score block after block, until all are scored or the candidate cannot win."""
    for done, scored in enumerate(parts, start=1):
        pruned = None if race is None else give_up(race, scored.tasks, done)
        if pruned is not None:
            break
    return scored, pruned


class _Resident:
    """Candidates as modules in the worker's memory."""

    def __init__(self, setup: WorkerSetup) -> None:
        keep_to_share(setup)
        self._model = LiveModel(
            setup.models,
            dtype=setup.dtype,
            device=setup.device,
            devices=setup.gpus,
            trust_remote_code=setup.trust_remote_code,
            allow_pickle=setup.allow_pickle,
            resident_bytes=0,
            vocabulary=setup.vocabulary,
            quantise=setup.quantise,
        )
        plan = plan_memory_here(self._model.checkpoints, setup)
        if setup.whole_models > 1 and not plan.fits:
            raise ModelError(
                f"candidates that hold {setup.whole_models} models at once do not fit: {plan.faults[0]}; "
                "or take fewer members"
            )
        self._model.keep(plan.memories(setup.gpus))
        own = {"batch_tokens": setup.batch_tokens, "memory": plan.passes}
        self._scorer: Any = open_backend(
            setup.backend or RESIDENT,
            items_of(setup, self._model.tokenizer),
            setup.backend_arguments,
            defaults=own | backend_defaults(setup),
        )
        self._builders: dict[str, Builder] = {}
        self._adapters: CandidateAdapters | None = None
        if isinstance(self._scorer, Scorer):
            self._scorer.engine(self._model.module)  # while its weights are the base's
        if isinstance(self._scorer, VllmScorer):
            serve(self._scorer, self._model, setup)
            if "max_loras" in setup.backend_arguments:
                self._adapters = CandidateAdapters(self._scorer, self._model, setup)

    def texts(self, jobs: Sequence[Job]) -> dict[int, Texts]:
        """Return what candidates write, by position, where vLLM writes for several at once."""
        return {} if self._adapters is None else self._adapters.texts(jobs)

    @contextmanager
    def built(self, job: Job, texts: Texts | None) -> Iterator[BuiltCandidate]:
        builder = self._builder(job.entry.candidate, job.noise)
        candidate = builder.fitted(job.entry.candidate, job.known)
        parts = builder.parts(candidate, job.split)
        if parts is None:
            module = self._model.module
            if texts is None or self._scorer.asked(module, job.split, job.metrics)[1]:
                module = builder.build(candidate)
            score = partial(self._score, module, texts)
            yield BuiltCandidate(score, candidate, self._scorer.races, timing=self._timing(module))
        else:
            members = list(candidate.scored_members)
            routes = routes_of(parts, members)
            prompts = self._scorer.prompts(self._model.module).tokens(job.split)
            read = tokens_read(routes, prompts, len(members))
            score = partial(self._score_parts, parts)
            route = partial(builder.route, candidate)
            timed = self._timing(self._model.module, route)
            yield BuiltCandidate(score, candidate, routes=routes, read=read, timing=timed)

    def _timing(
        self, module: nn.Module, route: Callable[[Prompts], None] | None = None
    ) -> Callable[[], Timing] | None:
        if not isinstance(self._scorer, Scorer):
            return None
        return partial(timing, self._scorer, self._model.module, module, route)

    def _builder(self, candidate: Candidate, noise: int | None = None) -> Builder:
        """Return what builds a candidate; of random task vectors nothing is kept for later ones."""
        prompts = None
        if isinstance(self._scorer, Scorer):
            prompts = self._scorer.prompts(self._model.module)
        if noise is not None:
            return kind_of(candidate).opened(self._model.randomised(noise), prompts)
        if candidate.kind not in self._builders:
            self._builders[candidate.kind] = kind_of(candidate).opened(self._model, prompts)
        return self._builders[candidate.kind]

    def _score(self, module: nn.Module, texts: Texts | None, job: Job) -> Iterator[Scored]:
        if texts is not None:
            with self._scorer.given(module, texts):
                yield from self._score(module, None, job)
            return
        taught = {"targets": job.targets} if job.targets else {}  # which not every backend takes
        if job.race is None:
            yield self._scorer.score(module, job.split, job.metrics, **taught)
        else:
            yield from self._scorer.score_in_blocks(
                module, job.split, job.metrics, blocks(job.race), **taught
            )

    def _score_parts(self, parts: Sequence[Assignment], job: Job) -> Iterator[Scored]:
        """Score each member on its items; what is known of a member on the whole split is taken over."""
        members = [
            MemberPart(
                partial(self._builder(part.candidate, job.noise).build, part.candidate),
                part.positions,
                known_scores(job, part),
            )
            for part in parts
        ]
        yield self._scorer.score_parts(members, job.split, job.metrics, targets=job.targets)

    @contextmanager
    def differentiable(
        self, candidate: Candidate, *, rows: bool
    ) -> Iterator[Callable[[GradientJob], Differentiated]]:
        if not self._scorer.gradients:
            yield no_gradients
            return
        loss = self._scorer.loss
        recorded = self._builder(candidate).gradients(candidate, loss.recompute, rows=rows)
        with recorded as (module, gradients):

            def differentiate(job: GradientJob) -> Differentiated:
                losses = loss.run(
                    module,
                    job.items,
                    job.shares,
                    targets=job.targets,
                    gold_shares=job.gold_shares,
                )
                numbers, rows = gradients()
                _check_finite(numbers)
                return losses, (numbers, rows)

            yield differentiate

    @contextmanager
    def listening(
        self, candidate: Candidate
    ) -> Iterator[Callable[[TargetJob], tuple[Target | None, ...]]]:
        if not self._scorer.gradients:
            yield no_gradients
            return
        module = self._builder(candidate).build(candidate)
        yield lambda job: self._scorer.loss.targets(
            module, job.task, job.split, mistaken=job.mistaken
        )

    @contextmanager
    def writing(self, candidate: Candidate) -> Iterator[Callable[[WriteJob], list[str]]]:
        if not isinstance(self._scorer, Scorer):
            yield no_texts
            return
        module, scorer = self._builder(candidate).build(candidate), self._scorer
        yield lambda job: scorer.write(module, job.prompts, job.max_tokens, job.until)

    @contextmanager
    def reading(self) -> Iterator[Callable[[StatesJob], tuple[Distances, int]]]:
        yield self._compared if isinstance(self._scorer, Scorer) else no_states

    def _compared(self, job: StatesJob) -> tuple[Distances, int]:
        """Return distances as of `StatesFound`, and how many prompts were read."""
        prompts = self._scorer.prompts(self._model.module).tokens(job.split)
        read = [tokens for own in prompts.values() for tokens in own[: job.limit]]
        modules = (self._builder(one).build(one) for one in job.models.values())
        found: Distances = distances([mean_states(module, read) for module in modules]).tolist()
        return found, len(read)

    @contextmanager
    def sensing(self) -> Iterator[Callable[[ActivationsJob], Activations]]:
        yield self._sensed if isinstance(self._scorer, Scorer) else no_activations

    def _sensed(self, job: ActivationsJob) -> Activations:
        """Return what enters the linear layers whose weights are tensors of the models' files."""
        prompts = self._scorer.prompts(self._model.module).tokens(job.split)
        read = [
            [tokens for task in one.tasks or prompts for tokens in prompts[task]]
            for one in job.experts or (job,)
        ]
        return activations(self._model, job, read), sum(map(len, read))


def _make_room_after(failure: Failure) -> None:
    """Give a device's cached memory back; once the exception, which holds tensors, is gone."""
    if failure.kind is FailureKind.OUT_OF_MEMORY and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _check_finite(numbers: Mapping[str, Own]) -> None:
    for name, table in numbers.items():
        if not np.isfinite(table).all():
            raise NotFinite(f"the gradients by {name} are NaN or infinite")

"""Measures what an explanation needs and the results folder does not hold yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import xxhash

from evomerge.candidate import Candidate, Merge
from evomerge.candidate.ablation import Ablations
from evomerge.candidate.merge import Own, tuples
from evomerge.candidate.states import StatesFound, StatesJob
from evomerge.candidate.trial import Entry, GradientJob, Gradients, Job, Outcome, Split
from evomerge.errors import EvomergeError
from evomerge.kinds import kind_of
from evomerge.merge.methods import method
from evomerge.merge.task_vectors import TaskVectorConflicts, task_vectors
from evomerge.preflight.check import Preflight
from evomerge.progress import Display, Pace
from evomerge.run import setup_of
from evomerge.scoring import gold_count, is_resident
from evomerge.search.bench import Bench
from evomerge.store import Store
from evomerge.store.findings import digest
from evomerge.workers import open_pool
from evomerge.workers.pool import Answer, Work, in_turn

SPLIT: Split = "select"
"""Whose items ablations are scored on: no search saw them."""
SEED = 0
"""Of random task vectors."""
PROMPTS = 64
"""Most prompts of a task whose hidden states are compared."""
WEIGHT = "weight"


class WinnerMeasurement:
    """The winner and what is measured of it; nothing is measured twice.

    Args:
        store: Of the finished campaign, open to write.
        ready: The campaign with the experts that there are now.
        display: Shows progress.

    Attributes:
        winner: The winner.
        whole: What it scored on the select items.
        ablations: What is left of it without each part.
        names: Model → what reports call it.
        notes: Why something was not measured; sentences.
    """

    def __init__(self, store: Store, ready: Preflight, display: Display) -> None:
        assert store.winner is not None
        self._store, self._ready, self._display = store, ready, display
        self.winner = store.winner.entry
        self.notes: list[str] = []
        candidate, family = self.winner.candidate, ready.family.family
        self.names = {model: name for name, model in family.experts.items()} | {family.base: "base"}
        whole = store.evaluation(self.winner.key, SPLIT)
        if whole is None or whole.failure is not None:
            raise EvomergeError(f"{store.folder}: the winner has no scores on the {SPLIT} items")
        self.whole: Outcome = whole
        self.ablations: Ablations = kind_of(candidate).ablations(
            candidate, ready.family.checkpoints
        )

    def outcome(self, candidate: Candidate, noise: int | None = None) -> Outcome | None:
        """Return what a model scored on the select items; None: that is not known yet."""
        if noise is None and candidate == self.winner.candidate:
            return self.whole
        found = self._store.findings.outcome(candidate, SPLIT, noise)
        if found is None or found.failure is not None:
            return found
        goals = self._ready.campaign.objectives
        known = {task: scores.metrics.keys() for task, scores in found.scores.items()}
        return found if all(goal.report in known.get(goal.task, ()) for goal in goals) else None

    def run(self, *, random: bool) -> None:
        """Measure all that is not known yet, each finding recorded at once.

        Args:
            random: Score the winner's numbers on random task vectors, too.
        """
        scored = self._ablated() + (self._as_noise() if random else [])
        others: list[Work] = [*self._gradient_jobs(), *self._states_jobs()]
        if not scored and not others:
            return
        setup = replace(setup_of(self._ready), one_pass=False)  # gradients are asked for
        pool = open_pool(setup, self._ready.campaign.workers)
        try:
            bench = Bench(self._store, self._ready.campaign, self._ready.items, pool, self._display)
            metrics, told = bench.wanted(SPLIT)
            jobs = [Job(one, SPLIT, metrics, targets=told, noise=noise) for one, noise in scored]
            if jobs:
                bench.run("ablations", jobs, self._store.findings.record)
            if others:
                pace = Pace(self._display, "gradients and hidden states", len(others))
                for job, answer in in_turn(pool, others):
                    pace.step(failed=not self._keep(job, answer))
        finally:
            pool.close(force=True)

    def gradients(self) -> dict[str, tuple[float, Own]]:
        """Return task → loss and gradients by the weights; without those that are not known."""
        found = {}
        for goal in self._ready.campaign.objectives:
            kept = self._store.findings.get(self._gradient_key(goal.task))
            if kept is not None:
                found[goal.task] = kept["loss"], tuples(kept["weights"])
        return found

    def states(self) -> tuple[tuple[tuple[tuple[float, ...], ...], ...], int]:
        """Return distances of hidden states, as of `StatesFound`, and the number of prompts."""
        kept = self._store.findings.get(self._states_key)
        return ((), 0) if kept is None else (tuples(kept["distances"]), kept["prompts"])

    def task_vectors(self) -> tuple[TaskVectorConflicts, ...]:
        """Return how the experts' task vectors lie to each other; computed here, once."""
        key = f"task vectors of {self._models}"
        kept = self._store.findings.get(key)
        if kept is None:
            family = self._ready.family
            experts = [family.checkpoints[model] for model in family.family.experts.values()]
            rows = family.base.vocabulary_tensors
            matched = () if family.vocabulary is None else (rows.embedding, *rows.heads)
            found = task_vectors(family.base, experts, matched)
            self._store.findings.keep(key, {"parts": [asdict(one) for one in found]})
            return found
        return tuple(
            TaskVectorConflicts(**{name: tuples(value) for name, value in part.items()})
            for part in kept["parts"]
        )

    def _ablated(self) -> list[tuple[Entry, int | None]]:
        parts = (*self.ablations.experts, *self.ablations.groups)
        found: list[tuple[Entry, int | None]] = []
        for one in parts:
            if self.outcome(one.candidate) is None:
                group = f"layers {one.layers}, tensors {one.tensors}"
                name = self.names.get(one.expert, one.expert) or group
                found.append((Entry(f"without {name}", one.candidate), None))
        return found

    def _as_noise(self) -> list[tuple[Entry, int | None]]:
        if not is_resident(self._ready.campaign.scorer.backend):
            self.notes.append("Random task vectors need the resident scorer.")
            return []
        if self.outcome(self.winner.candidate, SEED) is not None:
            return []
        return [(Entry("random task vectors", self.winner.candidate), SEED)]

    def _gradient_jobs(self) -> list[GradientJob]:
        candidate = self.winner.candidate
        chosen = method(candidate.method) if isinstance(candidate, Merge) else None
        if chosen is None or chosen.gradients is None or WEIGHT not in chosen.parameters:
            what = f"kind {candidate.kind}" if chosen is None else f"method {chosen.name}"
            self.notes.append(f"The {what} has no gradient by weights, so no effect is predicted.")
            return []
        if not is_resident(self._ready.campaign.scorer.backend):
            self.notes.append("Gradients and hidden states need the resident scorer.")
            return []
        if self._ready.campaign.scorer.quantise is not None:
            self.notes.append("Quantised weights have no gradients, so no effect is predicted.")
            return []
        jobs = []
        for goal in self._ready.campaign.objectives:
            count = gold_count(self._ready.items, goal.task)
            if count and self._store.findings.get(self._gradient_key(goal.task)) is None:
                items = {goal.task: tuple(range(count))}
                jobs.append(
                    GradientJob(f"gradient on {goal.task}", candidate, items, {goal.task: 1.0})
                )
        return jobs

    def _states_jobs(self) -> list[StatesJob]:
        experts = {
            row.name: row.candidate for row in self._ready.space.baselines() if row.role == "expert"
        }
        resident = is_resident(self._ready.campaign.scorer.backend)
        known = self._store.findings.get(self._states_key) is not None
        if known or not resident or len(experts) < 2:
            return []
        return [StatesJob("hidden states of the experts", experts, SPLIT, PROMPTS)]

    def _keep(self, job: Work, answer: Answer) -> bool:
        """Record a finding; tell whether there is one."""
        assert not isinstance(answer, Outcome)
        if answer.failure is not None:
            name = getattr(job, "name", "")
            self.notes.append(f"Not known: {name} ({answer.failure.reason}).")
            return False
        if isinstance(answer, StatesFound):
            content: dict[str, Any] = {"distances": answer.distances, "prompts": answer.prompts}
            self._store.findings.keep(self._states_key, content)
        if isinstance(answer, Gradients):
            (task,) = answer.losses
            content = {"loss": answer.loss, "weights": answer.numbers[WEIGHT]}
            self._store.findings.keep(self._gradient_key(task), content)
        return True

    def _gradient_key(self, task: str) -> str:
        return f"gradient of {digest(self.winner.candidate)} on {task}"

    @property
    def _states_key(self) -> str:
        return f"states of {self._models} on {SPLIT}"

    @cached_property
    def _models(self) -> str:
        """What tells the experts from others: names, and what their files hold."""
        hashes: Mapping[str, str] = self._ready.family.hashes
        return xxhash.xxh3_128_hexdigest(json.dumps(list(hashes.items())).encode())

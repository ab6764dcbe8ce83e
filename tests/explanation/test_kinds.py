"""Winners of every kind are explained, as far as it applies to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import evomerge
from evomerge.candidate import Candidate, Merge, Mixture, PathStep, Stack
from evomerge.candidate.ensemble import Ensemble, Mix, Router, RouterFit
from evomerge.candidate.gates import Gates
from evomerge.candidate.trial import Entry, Job
from evomerge.preflight.check import preflight
from evomerge.run import setup_of
from evomerge.space.baselines import BASE
from evomerge.store import Store
from evomerge.workers.evaluator import Evaluator

Members = dict[str, Merge]
HIDDEN, LAYERS = 96, 4
"""Of the zoo's models."""


def put(folder: Path, make: Callable[[str, Members], Candidate]) -> None:
    """Score a candidate of a campaign's models, and make it the winner."""
    with Store.open(folder, write=True) as store:
        ready = preflight(store.campaign)
        rows = [row for row in ready.space.baselines() if row.role != "baseline"]
        members = {row.name: row.candidate for row in rows if isinstance(row.candidate, Merge)}
        base = members[BASE].experts[0]
        entry = Entry("made by hand", make(base, members), role="finalist")
        metrics = {goal.task: (goal.report,) for goal in store.campaign.objectives}
        job = Job(entry, "select", metrics, answers=True)
        outcome = Evaluator(setup_of(ready)).evaluate(job)
        assert outcome.failure is None, outcome.failure
        store.record(job, outcome)
        store.choose(entry, "by hand")


def experts(members: Members) -> Members:
    return {name: one for name, one in members.items() if name != BASE}


def mixed(base: str, members: Members) -> Candidate:
    return Ensemble(base, members, mix=Mix({"facts": 0.6, "translation": 0.5, BASE: 0.0}, top_k=2))


def routed(base: str, members: Members) -> Candidate:
    """Whoever comes first answers all, so that only its absence changes anything."""
    own = experts(members)
    by_member = {"errors": np.ones((2, 1)), "lambdas": np.ones((2, 1))}
    coefficients = np.zeros((2, HIDDEN + 1))
    coefficients[0, -1] = 1.0
    tables = {"mean": np.zeros((1, HIDDEN)), "scale": np.ones((1, HIDDEN)), **by_member}
    found = {n: t.astype(np.float32) for n, t in {**tables, "coefficients": coefficients}.items()}
    return Ensemble(base, own, Router(2), fit=RouterFit(found))


def mixture(base: str, members: Members) -> Candidate:
    gates = {layer: np.zeros((2, HIDDEN), np.float32) for layer in range(LAYERS)}
    return Mixture(base, members[BASE], experts(members), top_k=2, fit=Gates.of(gates))


def stack(base: str, members: Members) -> Candidate:
    path = [PathStep("facts", n) for n in range(3)] + [PathStep("translation", 3)]
    return Stack(base, experts(members), tuple(path))


def alone(base: str, members: Members) -> Candidate:
    return members["facts"]


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (mixed, ["base", "facts", "translation"]),
        (routed, ["facts", "translation"]),
        (mixture, ["facts", "translation"]),
        (stack, ["facts", "translation"]),
        (alone, []),
    ],
)
def test_a_winner_of_any_kind_is_explained(
    make: Callable[[str, Members], Candidate], parts: list[str], results: Path
) -> None:
    put(results, make)
    found = evomerge.explain(results, random=True)
    assert [one.expert for one in found.experts] == parts
    assert bool(found.how) == bool(parts)
    assert found.groups == ()
    assert any("group" in note or "takes no weights" in note for note in found.notes)
    assert found.sensitivity is None
    assert any("no gradient by weights" in note for note in found.notes)
    assert all(one.failure == "" for one in found.experts)
    assert found.random is not None
    assert found.random.failure == ""
    assert found.conflict is not None
    assert found.conflict.distances
    gains = {one.expert: one.tasks for one in found.experts}
    if make is mixed:
        idle = gains["base"]
        assert all(gain is not None and gain.test.difference == 0 for gain in idle.values())
    if make is routed:
        first, other = gains["facts"]["zoo_facts"], gains["translation"]["zoo_facts"]
        assert first is not None
        assert other is not None
        assert first.test.difference > 0.3
        assert other.test.difference == 0


def test_an_expert_that_joined_and_its_task_are_explained_too(results: Path) -> None:
    evomerge.add(results, "zoo:tools", task="zoo_tools")
    found = evomerge.explain(results)
    assert found.tasks == ("zoo_facts", "zoo_translation", "zoo_tools")
    parts = {one.expert: one for one in found.experts}
    gain = parts["tools"].tasks["zoo_tools"]
    assert gain is not None
    assert gain.test.n == 24
    assert "best" in parts, "the merge, which answers some of it, too"
    assert found.conflict is not None
    assert found.conflict.experts == ("facts", "translation", "tools")

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from evomerge.candidate import Merge
from evomerge.candidate.trial import FailureKind
from evomerge.workers import WorkerSetup
from evomerge.workers.evaluator import Evaluator
from tests.workers.letters import gradient_job, job, target_job


def test_a_teacher_speaks_and_is_learnt_from(setup: WorkerSetup, evaluator: Evaluator) -> None:
    before = evaluator.evaluate(job(setup, 0.4)).scores
    found = evaluator.targets(replace(target_job(setup), mistaken=True))
    assert found.failure is None
    assert found.cost.items == len(found.targets) == len(before["letters"].items)
    assert min(found.cost.merge_seconds, found.cost.score_seconds) > 0
    assert found.worker.endswith(f"/{os.getpid()}")
    right = before["letters"].metrics["acc"]
    heard = evaluator.targets(target_job(setup)).targets
    assert [target is not None for target in heard] == [value == 1 for value in right]
    own = {"letters": [found.targets[position] for position in (0, 3, 7)]}
    step = replace(gradient_job(setup), targets=own)
    at_the_teacher = evaluator.gradient(step)
    assert at_the_teacher.loss == pytest.approx(0, abs=1e-4)
    away = evaluator.gradient(replace(step, candidate=job(setup, 0.8).entry.candidate))
    assert away.loss > 1e-3
    assert (
        np.abs(away.numbers["weight"]).max() > 10 * np.abs(at_the_teacher.numbers["weight"]).max()
    )
    asked = replace(
        job(setup, 0.8),
        metrics={"letters": ("teacher_divergence",)},
        targets={"letters": found.targets},
    )
    values = evaluator.evaluate(asked).scores["letters"].metrics["teacher_divergence"]
    assert sum(values[position] for position in (0, 3, 7)) / 3 == pytest.approx(away.loss, rel=1e-4)
    half = evaluator.gradient(replace(step, gold_shares={"letters": 0.5}))
    assert half.loss == pytest.approx(evaluator.gradient(gradient_job(setup)).loss / 2, rel=1e-3)


def test_failures_of_teachers_are_typed(
    setup: WorkerSetup, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = Evaluator(replace(setup, backend="hf", backend_arguments={"device": "cpu"}))
    found = {
        "method": evaluator.targets(target_job(setup, method="no_such_method")),
        "task": evaluator.targets(replace(target_job(setup), task="other")),
        "backend": folders.targets(target_job(setup)),
    }
    model = evaluator._scoring._model
    with monkeypatch.context() as patch:

        def overflow(_: Merge) -> None:
            next(model.module.parameters()).fill_(float("nan"))

        patch.setattr(model, "write", overflow)
        found["nan"] = evaluator.targets(target_job(setup))
    assert {name: each.failure and each.failure.kind for name, each in found.items()} == {
        "method": FailureKind.MERGE,
        "task": FailureKind.TASK,
        "nan": FailureKind.NOT_FINITE,
        "backend": FailureKind.TASK,
    }
    assert not any(each.targets for each in found.values())
    assert found["backend"].failure is not None
    assert found["backend"].failure.reason.startswith(
        "the teacher of letters: gradients and teachers need the resident scorer"
    )

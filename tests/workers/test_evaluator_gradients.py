from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from evomerge.candidate.trial import FailureKind
from evomerge.merge.gradients import GradientTape
from evomerge.workers import WorkerSetup
from evomerge.workers.evaluator import Evaluator
from tests.workers.letters import gradient_job, job


def test_a_gradient_job_is_answered(setup: WorkerSetup, evaluator: Evaluator) -> None:
    before = evaluator.evaluate(job(setup, 0.4)).scores
    gradients = evaluator.gradient(gradient_job(setup))
    assert gradients.failure is None
    assert gradients.loss == pytest.approx(gradients.losses["letters"])
    assert gradients.cost.items == 3
    assert min(gradients.cost.merge_seconds, gradients.cost.score_seconds) > 0
    assert gradients.worker.endswith(f"/{os.getpid()}")
    assert np.shape(gradients.numbers["weight"]) == (1, 1, 3)
    assert evaluator.gradient(gradient_job(setup)).numbers == gradients.numbers
    assert evaluator.evaluate(job(setup, 0.4)).scores == before


def test_the_loss_is_that_of_the_scores(setup: WorkerSetup, evaluator: Evaluator) -> None:
    asked = replace(job(setup, 0.4), metrics={"letters": ("gold_probability",)})
    values = evaluator.evaluate(asked).scores["letters"].metrics["gold_probability"]
    expected = -sum(math.log(values[position]) for position in (0, 3, 7)) / 3
    assert evaluator.gradient(gradient_job(setup)).loss == pytest.approx(expected, rel=1e-5)


def test_failures_of_gradients_are_typed(
    setup: WorkerSetup, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = evaluator.gradient(gradient_job(setup))
    resident = evaluator._scoring
    found = {"method": evaluator.gradient(gradient_job(setup, method="no_such_method"))}
    found["item"] = evaluator.gradient(replace(gradient_job(setup), items={"letters": (99,)}))
    found["nan"] = evaluator.gradient(gradient_job(setup, 1e30))
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("no room")

        patch.setattr(resident._scorer.loss, "run", full)
        found["memory"] = evaluator.gradient(gradient_job(setup))
    with monkeypatch.context() as patch:
        infinite = {"weight": (((float("inf"),),),)}
        patch.setattr(GradientTape, "by_number", lambda *_: infinite)
        found["overflow"] = evaluator.gradient(gradient_job(setup))
    assert {name: each.failure and each.failure.kind for name, each in found.items()} == {
        "method": FailureKind.MERGE,
        "item": FailureKind.TASK,
        "nan": FailureKind.NOT_FINITE,
        "memory": FailureKind.OUT_OF_MEMORY,
        "overflow": FailureKind.NOT_FINITE,
    }
    assert not any(each.numbers for each in found.values())
    assert evaluator.gradient(gradient_job(setup)).numbers == good.numbers


def test_a_backend_of_lm_evals_has_no_gradients(setup: WorkerSetup) -> None:
    other = replace(setup, backend="hf", backend_arguments={"device": "cpu"})
    failure = Evaluator(other).gradient(gradient_job(setup)).failure
    assert failure is not None
    assert failure.kind is FailureKind.TASK
    assert "gradients and teachers need the resident scorer" in failure.reason

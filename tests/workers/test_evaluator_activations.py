"""Statistics of activations, as a worker takes them of one model."""

from __future__ import annotations

import numpy as np

from evomerge.candidate import Merge
from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.inference.activations import moments_by_tensor
from evomerge.merge.activations import moments_in_merge
from evomerge.workers import WorkerSetup
from evomerge.workers.evaluator import Evaluator
from evomerge.workers.pool import SerialPool, failed


def asked(setup: WorkerSetup, *tasks: str, moments: bool = False) -> ActivationsJob:
    expert = Merge("passthrough", (setup.models[1],), dtype="float32")
    return ActivationsJob("statistics of the expert", expert, tasks, moments)


def test_they_are_of_the_model_that_is_asked_for(setup: WorkerSetup, evaluator: Evaluator) -> None:
    base = Merge("passthrough", (setup.models[0],), dtype="float32")
    other = evaluator.activations(ActivationsJob("of the base", base))
    found = evaluator.activations(asked(setup, moments=True))
    assert found.failure is None
    assert found.cost.items == 8
    scoring = evaluator._scoring
    prompts = scoring._scorer.prompts(scoring._model.module).tokens("search")["letters"]  # type: ignore[union-attr]
    squares, moments = moments_by_tensor(scoring._model.module, prompts, full=True)  # type: ignore[union-attr]
    assert found.squares.keys() == squares.keys() == other.squares.keys()
    for name, one in squares.items():
        assert np.array_equal(found.squares[name], one.numpy())
        assert np.array_equal(found.moments[name], moments[name].numpy())
    assert any(not np.array_equal(found.squares[n], one) for n, one in other.squares.items())
    assert not other.moments


def test_tasks_may_be_named(setup: WorkerSetup, evaluator: Evaluator) -> None:
    named, every = (
        evaluator.activations(asked(setup, "letters")),
        evaluator.activations(asked(setup)),
    )
    assert all(np.array_equal(named.squares[name], one) for name, one in every.squares.items())


def test_layers_are_read_in_a_merge_by_each_expert_with_its_own_prompts(
    setup: WorkerSetup, evaluator: Evaluator
) -> None:
    merge = Merge("regmean", setup.models[1:], setup.models[0], fixed={"weight": 1.0})
    experts = tuple(
        ActivationsJob(name, Merge("passthrough", (name,)), ("letters",) if number else ())
        for number, name in enumerate(setup.models[1:])
    )
    found = evaluator.activations(ActivationsJob("together", merge, experts=experts))
    assert found.failure is None
    assert found.cost.items == 8 * len(experts)
    scoring = evaluator._scoring
    prompts = scoring._scorer.prompts(scoring._model.module).tokens("search")["letters"]  # type: ignore[union-attr]
    alone = [one.candidate for one in experts]
    expected = moments_in_merge(scoring._model, merge, alone, [prompts] * len(experts))  # type: ignore[union-attr]
    for own, other in zip(found.merged, expected, strict=True):
        assert own.keys() == other.keys() == evaluator.activations(asked(setup)).squares.keys()
        assert all(np.array_equal(one, other[name]) for name, one in own.items())


def test_an_unknown_model_is_a_failure(evaluator: Evaluator) -> None:
    job = ActivationsJob("x", Merge("passthrough", ("/nowhere",)))
    found = evaluator.activations(job)
    assert found.failure is not None
    assert "/nowhere" in found.failure.reason
    given_up = failed(job, found.failure)
    assert isinstance(given_up, ActivationsFound)
    assert given_up.failure is found.failure


def test_pools_hand_them_back(setup: WorkerSetup, evaluator: Evaluator) -> None:
    pool = SerialPool(lambda: evaluator)
    pool.submit(asked(setup))
    _, found = pool.next()
    assert isinstance(found, ActivationsFound)
    assert found.squares

"""Hidden states and random task vectors, as workers compare and score them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.candidate import Merge
from evomerge.candidate.states import StatesFound, StatesJob
from evomerge.workers import WorkerSetup
from evomerge.workers.evaluator import Evaluator
from evomerge.workers.pool import SerialPool
from tests.workers.letters import job


def states_job(setup: WorkerSetup, limit: int = 64) -> StatesJob:
    models = {
        f"expert{n}": Merge("passthrough", (name,), dtype="float32")
        for n, name in enumerate(setup.models[1:])
    }
    return StatesJob("hidden states", models, "search", limit)


def test_distances_are_those_of_the_models_by_themselves(
    setup: WorkerSetup, evaluator: Evaluator
) -> None:
    found = evaluator.states(states_job(setup))
    assert found.failure is None
    assert (found.prompts, found.cost.items) == (8, 24)
    assert [len(found.distances), len(found.distances[0])] == [5, 3]
    prompts = evaluator._scoring._scorer.prompts(evaluator._scoring._model.module)  # type: ignore[union-attr]
    pooled = []
    for name in setup.models[1:3]:
        module = AutoModelForCausalLM.from_pretrained(name, dtype="float32").eval()
        rows = []
        for tokens in prompts.tokens("search")["letters"]:
            with torch.no_grad():
                states = module(torch.tensor([tokens]), output_hidden_states=True).hidden_states
            rows.append(torch.stack([one[0].mean(0) for one in states]))
        pooled.append(torch.stack(rows))
    apart = (pooled[0] - pooled[1]).norm(dim=2).sum(0)
    lengths = sum(one.norm(dim=2).sum(0) for one in pooled) / 2
    for layer, expected in enumerate((apart / lengths).tolist()):
        assert found.distances[layer][0][1] == pytest.approx(expected, rel=1e-3)
        assert found.distances[layer][0][0] == 0


def test_of_each_task_so_many_prompts_are_read(setup: WorkerSetup, evaluator: Evaluator) -> None:
    assert evaluator.states(states_job(setup, 3)).prompts == 3


def test_an_unknown_model_is_a_failure(setup: WorkerSetup, evaluator: Evaluator) -> None:
    asked = StatesJob("states", {"x": Merge("passthrough", ("/nowhere",))}, "search", 2)
    found = evaluator.states(asked)
    assert found.failure is not None
    assert "/nowhere" in found.failure.reason


def test_pools_hand_states_back(setup: WorkerSetup, evaluator: Evaluator) -> None:
    pool = SerialPool(lambda: evaluator)
    pool.submit(states_job(setup, 1))
    _, found = pool.next()
    assert isinstance(found, StatesFound)
    assert found.prompts == 1


def test_noise_takes_the_place_of_task_vectors_of_one_job_only(
    setup: WorkerSetup, evaluator: Evaluator
) -> None:
    asked = job(setup, 0.9)
    plain = evaluator.evaluate(asked)
    noise = evaluator.evaluate(replace(asked, noise=0))
    assert noise.failure is None
    assert noise.scores != plain.scores
    assert evaluator.evaluate(replace(asked, noise=0)).scores == noise.scores
    assert evaluator.evaluate(replace(asked, noise=1)).scores != noise.scores
    assert evaluator.evaluate(asked).scores == plain.scores
    nothing = job(setup, 0.0)
    assert (
        evaluator.evaluate(replace(nothing, noise=0)).scores == evaluator.evaluate(nothing).scores
    )

"""A worker whose models are spread over several devices scores as one with a single device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge import zoo
from evomerge.candidate import Merge
from evomerge.candidate.activations import ActivationsJob
from evomerge.candidate.ensemble import Ensemble, Mix
from evomerge.candidate.states import StatesJob
from evomerge.candidate.trial import Entry, GradientJob, Job
from evomerge.combine.mixed import MixedMembers
from evomerge.inference.engine import Engine
from evomerge.merge.live import LiveModel
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import WorkerSetup
from evomerge.workers.evaluator import Evaluator
from tests.pseudo_devices import DEVICE, pseudo_devices

TASKS = Path(__file__).parents[2] / "benchmarks" / "tasks"
METRICS = {
    "zoo_facts": ("exact_match", "gold_loglikelihood"),  # generated, and read
    "zoo_translation": ("exact_match",),
    "zoo_tools_mc": ("acc", "gold_probability"),
}
MODELS = tuple(str(zoo.resolve(f"zoo:{name}")) for name in ("base", "facts", "tools"))


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[Evaluator, Evaluator]]:
    setup = WorkerSetup(
        models=MODELS,
        dtype="float32",
        requests=tuple(TaskRequest(task, num_fewshot=2) for task in METRICS),
        tasks_path=str(TASKS),
        plan=SplitPlan({"search": 12}),
        prompt=PromptStyle(),
        threads=1,
        methods=("task_arithmetic",),
    )
    with pytest.MonkeyPatch.context() as patch, pseudo_devices(patch):
        yield Evaluator(setup), Evaluator(replace(setup, device=DEVICE, gpus=3))


def merge(weight: float) -> Merge:
    base, *experts = MODELS
    own = {"weight": (((weight, 0.5),),)}
    return Merge("task_arithmetic", tuple(experts), base, own=own, dtype="float32")


def test_scores_are_the_same(workers: tuple[Evaluator, Evaluator]) -> None:
    for trial, weight in enumerate((0.4, 0.9)):  # the second one has drafts to verify
        entry = Entry(f"trial {trial}", merge(weight), trial)
        one, several = (each.evaluate(Job(entry, "search", METRICS)) for each in workers)
        assert several.failure is None
        for task, metrics in METRICS.items():
            for metric in metrics:
                found = several.scores[task].metrics[metric]
                assert found == pytest.approx(one.scores[task].metrics[metric], abs=1e-5), metric


def test_gradients_are_the_same(workers: tuple[Evaluator, Evaluator]) -> None:
    items, shares = dict.fromkeys(METRICS, (0, 3, 7)), dict.fromkeys(METRICS, 1 / 3)
    job = GradientJob("descent 0, step 0", merge(0.6), items, shares, rows=True)
    one, several = (each.gradient(job) for each in workers)
    assert several.failure is None
    assert several.loss == pytest.approx(one.loss, rel=1e-6)
    assert np.allclose(several.numbers["weight"], one.numbers["weight"], rtol=1e-4)
    assert several.rows.keys() == one.rows.keys() != set()


def test_states_and_activations_are_the_same(workers: tuple[Evaluator, Evaluator]) -> None:
    job = StatesJob("states", {"a": merge(0.1), "b": merge(0.9)}, "search", limit=4)
    one, several = (each.states(job) for each in workers)
    assert several.failure is None
    assert np.allclose(several.distances, one.distances, rtol=1e-4, atol=1e-6)
    sensed = ActivationsJob("activations", merge(0.5), ("zoo_facts",))
    found = [each.activations(sensed) for each in workers]
    assert found[1].failure is None
    assert found[0].squares.keys() == found[1].squares.keys() != set()
    for name, squares in found[0].squares.items():
        assert np.allclose(found[1].squares[name], squares, rtol=1e-4), name


def test_the_device_with_most_layers_bounds_keys_and_values(
    workers: tuple[Evaluator, Evaluator],
) -> None:
    models = [each._scoring._model for each in workers]  # type: ignore[union-attr]
    one, several = (Engine(each.module, each.tokenizer, memory=2**20).room for each in models)
    assert several.cached == 2 * one.cached  # two of four layers


def test_a_mixed_ensemble_gives_the_same_logits(workers: tuple[Evaluator, Evaluator]) -> None:
    both = Mix({"a": 0.4, "b": 0.6}, top_k=2)
    ensemble = Ensemble(MODELS[0], {"a": merge(0.1), "b": merge(0.9)}, mix=both)
    logits = []
    for device, count in (("cpu", 1), (DEVICE, 3)):
        live = LiveModel(MODELS, dtype="float32", device=device, devices=count)
        model = MixedMembers(live).build(ensemble)
        with torch.no_grad():
            tokens = torch.arange(5, 25, device=live.device)[None]
            logits.append(model(input_ids=tokens).logits.cpu())
    assert torch.equal(*logits)

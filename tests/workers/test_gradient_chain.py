"""Merge → weights → loss → gradients, against central differences of the loss in float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from evomerge.candidate import Merge
from evomerge.candidate.trial import GradientJob, Gradients
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import WorkerSetup
from evomerge.workers.evaluator import Evaluator

TASKS = {
    "letters": """
task: letters
custom_dataset: !function docs.load
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: [" a", " b", " bc"]
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "words": """
task: words
custom_dataset: !function docs.load
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: answer
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
}
DOCS = """
import json
from pathlib import Path

import datasets


def load(**_):
    docs = json.loads((Path(__file__).parent / "docs.json").read_text())
    return {"test": datasets.Dataset.from_list(docs)}
"""
STEP = 1e-6
Numbers = Sequence[float]
Build = Callable[[Any, Numbers], Merge]


@pytest.fixture(autouse=True)
def _exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' norms compute in float32 whatever they are given; differences need all digits."""

    def forward(norm: Any, states: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
        return norm.weight * (states * scale)

    for kind in (LlamaRMSNorm, Qwen2RMSNorm):
        monkeypatch.setattr(kind, "forward", forward)


@pytest.fixture(scope="module", params=["llama_family", "qwen2_family"])
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Evaluator]:
    """Llama with a head of its own; Qwen2 with biases and tied embeddings."""
    family = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "docs.py").write_text(DOCS)
    docs = [
        {"question": f"what is {n * n}?", "label": n % 3, "answer": f"it is {n}"} for n in range(8)
    ]
    (folder / "docs.json").write_text(json.dumps(docs))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text)
    setup = WorkerSetup(
        models=family.models,
        dtype="float64",
        requests=tuple(TaskRequest(name) for name in TASKS),
        tasks_path=str(folder),
        plan=SplitPlan({"search": 6}),
        prompt=PromptStyle(),
        threads=1,
    )
    return family, Evaluator(setup)


def plain(method: str, base: bool = False, **fixed: Any) -> Build:
    """One weight a model; `base`: the base is one of them."""

    def build(family: Any, numbers: Numbers) -> Merge:
        return Merge(
            method,
            family.models if base else family.experts,
            family.base,
            merges_base=not base,
            own={"weight": ((tuple(numbers),),)},
            fixed=fixed,
            dtype="float64",
        )

    return build


def by_component(family: Any, numbers: Numbers) -> Merge:
    """Two experts: a weight for attention, one for the MLP, one for all the rest."""
    return Merge(
        "task_arithmetic",
        family.experts[:2],
        family.base,
        components=("self_attn", "mlp"),
        own={"weight": (tuple(zip(numbers[:3], numbers[3:], strict=True)),)},
        dtype="float64",
    )


def by_group(family: Any, numbers: Numbers) -> Merge:
    """Two groups of layers, a weight for each of two experts in each."""
    return Merge(
        "ties",
        family.experts[:2],
        family.base,
        groups=((0, 1), (1, 4 if "llama" in family.base else 2)),
        own={"weight": ((tuple(numbers[:2]),), (tuple(numbers[2:]),))},
        fixed={"density": 0.5},
        dtype="float64",
    )


def interpolation(family: Any, numbers: Numbers) -> Merge:
    return Merge(
        "slerp", family.experts[:1], family.base, shared={"t": (tuple(numbers),)}, dtype="float64"
    )


def scaled(family: Any, numbers: Numbers) -> Merge:
    own = {"scale": ((tuple(numbers),),)}
    return Merge("passthrough", (family.base,), own=own, dtype="float64")


def factor(method: str) -> Build:
    def build(family: Any, numbers: Numbers) -> Merge:
        made = plain(method, density=0.6)(family, (0.4, 0.9, 0.2))
        return replace(made, shared={"lambda": (tuple(numbers),)})

    return build


def found_weights(gradients: Gradients, numbers: Numbers) -> list[float]:
    (group,) = gradients.numbers["weight"]
    return list(map(sum, zip(*group, strict=True)))


def found_components(gradients: Gradients, numbers: Numbers) -> list[float]:
    (group,) = gradients.numbers["weight"]
    return [row[expert] for expert in range(2) for row in group]


def found_groups(gradients: Gradients, numbers: Numbers) -> list[float]:
    return [one for ((*row,),) in gradients.numbers["weight"] for one in row]


def found_one(name: str) -> Callable[[Gradients, Numbers], list[float]]:
    return lambda gradients, _: [gradients.numbers[name][0][0][0]]


CASES: dict[str, tuple[Build, Numbers, Callable[[Gradients, Numbers], list[float]]]] = {
    "linear": (plain("linear", base=True), (0.4, 0.3, 0.5, 0.2), found_weights),
    "linear, a sum": (
        plain("linear", base=True, normalize=False),
        (0.4, 0.3, 0.2, 0.0),
        found_weights,
    ),
    "task_arithmetic": (plain("task_arithmetic"), (0.3, -0.4, 0.8), found_weights),
    "weight 0": (plain("task_arithmetic"), (0.0, 0.0, 0.8), found_weights),
    "task_arithmetic, normalised": (
        plain("task_arithmetic", normalize=True, **{"lambda": 0.7}),
        (0.3, 0.4, 0.8),
        found_weights,
    ),
    "components": (by_component, (0.3, 0.5, 0.1, 0.9, 0.0, 0.4), found_components),
    "dare_linear": (plain("dare_linear", density=0.4), (0.3, 0.4, 0.8), found_weights),
    "dare_linear, normalised": (
        plain("dare_linear", density=0.4, normalize=True),
        (0.3, 0.4, 0.8),
        found_weights,
    ),
    "ties": (plain("ties", density=0.5), (0.3, 0.4, 0.8), found_weights),
    "ties, a sum": (plain("ties", density=0.5, normalize=False), (0.3, 0.4, 0.8), found_weights),
    "ties, sliced": (by_group, (0.3, 0.4, 0.8, 0.5), found_groups),
    "dare_ties": (plain("dare_ties", density=0.5), (0.3, 0.4, 0.8), found_weights),
    "dare_ties, normalised": (
        plain("dare_ties", density=0.5, normalize=True, rescale=False),
        (0.3, 0.4, 0.8),
        found_weights,
    ),
    "lambda": (factor("dare_linear"), (0.7,), found_one("lambda")),
    "lambda of ties": (factor("ties"), (1.2,), found_one("lambda")),
    "slerp": (interpolation, (0.35,), found_one("t")),
    "passthrough": (scaled, (0.9,), found_one("scale")),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_central_differences(
    name: str, subject: tuple[Any, Evaluator]
) -> None:
    build, numbers, found = CASES[name]
    family, evaluator = subject

    def gradient(at: Numbers) -> Gradients:
        items = {"letters": (0, 2, 5), "words": (1, 3)}
        gradients = evaluator.gradient(
            GradientJob("here", build(family, at), items, {"letters": 0.6, "words": 0.4})
        )
        assert gradients.failure is None
        return gradients

    expected = []
    for index in range(len(numbers)):
        losses = []
        for step in (STEP, -STEP):
            moved = list(numbers)
            moved[index] += step
            losses.append(gradient(moved).loss)
        expected.append((losses[0] - losses[1]) / (2 * STEP))
    assert found(gradient(numbers), numbers) == pytest.approx(expected, rel=1e-5)
    assert max(map(abs, expected)) > 1e-3


def test_gradients_lead_downhill(subject: tuple[Any, Evaluator]) -> None:
    family, evaluator = subject
    items = {"letters": tuple(range(6)), "words": tuple(range(6))}
    job = GradientJob("start", plain("task_arithmetic")(family, (0.3,) * 3), items, {})
    job = replace(job, shares={"letters": 0.5, "words": 0.5})
    here = evaluator.gradient(job)
    gradients = found_weights(here, (0.3,) * 3)
    moved = [0.3 - 0.01 * gradient for gradient in gradients]
    there = evaluator.gradient(replace(job, candidate=plain("task_arithmetic")(family, moved)))
    predicted = -0.01 * sum(gradient**2 for gradient in gradients)
    assert there.loss - here.loss == pytest.approx(predicted, rel=0.1)
    assert there.loss < here.loss

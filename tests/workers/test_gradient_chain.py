"""Recipe → weights → loss → gradients, against central differences of the loss in float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from evomerge.candidate import Conditional, Recipe, Slice, Source
from evomerge.candidate.trial import GradientJob, Gradients
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import Assignment
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
Build = Callable[[Any, Numbers], Recipe]


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
    assignment = Assignment(
        models=family.models,
        dtype="float64",
        requests=tuple(TaskRequest(name) for name in TASKS),
        tasks_path=str(folder),
        plan=SplitPlan({"search": 6}),
        prompt=PromptStyle(),
        threads=1,
    )
    return family, Evaluator(assignment)


def plain(method: str, base: bool = False, **parameters: Any) -> Build:
    """One weight a model; `base`: the base is one of them."""

    def build(family: Any, numbers: Numbers) -> Recipe:
        models = family.models if base else family.experts
        own = {k: v for k, v in parameters.items() if k == "density"}
        return Recipe(
            method,
            models=tuple(
                Source(model, parameters={"weight": weight, **own})
                for model, weight in zip(models, numbers, strict=True)
            ),
            base_model=family.base,
            parameters={k: v for k, v in parameters.items() if k != "density"},
            dtype="float64",
        )

    return build


def by_component(family: Any, numbers: Numbers) -> Recipe:
    """Two experts: a weight for attention, one for the MLP, one for all the rest."""
    sources = tuple(
        Source(
            model,
            parameters={
                "weight": (
                    Conditional(numbers[3 * index], "self_attn"),
                    Conditional(numbers[3 * index + 1], "mlp"),
                    Conditional(numbers[3 * index + 2]),
                )
            },
        )
        for index, model in enumerate(family.experts[:2])
    )
    return Recipe("task_arithmetic", models=sources, base_model=family.base, dtype="float64")


def by_slice(family: Any, numbers: Numbers) -> Recipe:
    """Two slices of layers, a weight for each of two experts in each."""
    layers = 4 if "llama" in family.base else 2
    spans = ((0, 1), (1, layers))
    return Recipe(
        "ties",
        slices=tuple(
            Slice(
                (
                    Source(family.base, span),
                    Source(family.experts[0], span, {"weight": numbers[2 * index]}),
                    Source(family.experts[1], span, {"weight": numbers[2 * index + 1]}),
                )
            )
            for index, span in enumerate(spans)
        ),
        base_model=family.base,
        parameters={"density": 0.5},
        dtype="float64",
    )


def interpolation(family: Any, numbers: Numbers) -> Recipe:
    return Recipe(
        "slerp",
        models=(Source(family.base), Source(family.experts[0])),
        base_model=family.base,
        parameters={"t": numbers[0]},
        dtype="float64",
    )


def scaled(family: Any, numbers: Numbers) -> Recipe:
    return Recipe(
        "passthrough",
        models=(Source(family.base),),
        parameters={"scale": numbers[0]},
        dtype="float64",
    )


def factor(method: str) -> Build:
    def build(family: Any, numbers: Numbers) -> Recipe:
        return plain(method, density=0.6, **{"lambda": numbers[0]})(family, (0.4, 0.9, 0.2))

    return build


def own(gradients: Gradients, name: str, source: int, matches: Callable[[str, int], bool]) -> float:
    return sum(
        each.own[name][source]
        for tensor, each in gradients.tensors.items()
        if matches(tensor, each.slice)
    )


def found_weights(gradients: Gradients, numbers: Numbers) -> list[float]:
    return [own(gradients, "weight", source, lambda *_: True) for source in range(len(numbers))]


def found_components(gradients: Gradients, numbers: Numbers) -> list[float]:
    def component(tensor: str) -> int:
        return 0 if "self_attn" in tensor else 1 if "mlp" in tensor else 2

    return [
        own(gradients, "weight", index // 3, lambda t, _, i=index: component(t) == i % 3)  # type: ignore[misc]
        for index in range(len(numbers))
    ]


def found_slices(gradients: Gradients, numbers: Numbers) -> list[float]:
    return [
        own(gradients, "weight", 1 + index % 2, lambda _, piece, i=index: piece == i // 2)  # type: ignore[misc]
        for index in range(len(numbers))
    ]


def found_scale(gradients: Gradients, numbers: Numbers) -> list[float]:
    return [own(gradients, "scale", 0, lambda *_: True)]


def found_shared(name: str) -> Callable[[Gradients, Numbers], list[float]]:
    return lambda gradients, _: [sum(each.shared[name] for each in gradients.tensors.values())]


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
    "ties, sliced": (by_slice, (0.3, 0.4, 0.8, 0.5), found_slices),
    "dare_ties": (plain("dare_ties", density=0.5), (0.3, 0.4, 0.8), found_weights),
    "dare_ties, normalised": (
        plain("dare_ties", density=0.5, normalize=True, rescale=False),
        (0.3, 0.4, 0.8),
        found_weights,
    ),
    "lambda": (factor("dare_linear"), (0.7,), found_shared("lambda")),
    "lambda of ties": (factor("ties"), (1.2,), found_shared("lambda")),
    "slerp": (interpolation, (0.35,), found_shared("t")),
    "passthrough": (scaled, (0.9,), found_scale),
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

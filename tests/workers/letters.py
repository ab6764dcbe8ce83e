"""A tiny task and an evaluator of the small family on it: the setup, and the jobs that tests ask for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry, GradientJob, Job, TargetJob
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import WorkerSetup
from evomerge.workers.evaluator import Evaluator

TASK = """
task: letters
custom_dataset: !function docs.load
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: [" a", " b"]
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
DOCS = """
import json
from pathlib import Path

import datasets


def load(**_):
    docs = json.loads((Path(__file__).parent / "docs.json").read_text())
    return {"test": datasets.Dataset.from_list(docs)}
"""


METRICS = {"letters": ("acc", "gold_loglikelihood")}


@pytest.fixture(scope="session")
def setup(tmp_path_factory: pytest.TempPathFactory, llama_family: Any) -> WorkerSetup:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "letters.yaml").write_text(TASK)
    (folder / "docs.py").write_text(DOCS)
    docs = [{"question": f"what is {n}?", "label": n % 2} for n in range(12)]
    (folder / "docs.json").write_text(json.dumps(docs))
    return WorkerSetup(
        models=llama_family.models,
        dtype="float32",
        requests=(TaskRequest("letters"),),
        tasks_path=str(folder),
        plan=SplitPlan({"search": 8, "holdout": 4}),
        prompt=PromptStyle(),
        threads=1,
    )


@pytest.fixture(scope="session")
def evaluator(setup: WorkerSetup) -> Evaluator:
    return Evaluator(setup)


def job(setup: WorkerSetup, weight: float, split: str = "search", **recipe: Any) -> Job:
    base, *experts = setup.models
    own = {"weight": ((tuple(weight for _ in experts),),)}
    merged = Merge("task_arithmetic", tuple(experts), base, own=own, dtype="float32")
    candidate = Entry("trial 0", replace(merged, **recipe), 0)
    return Job(candidate, split, METRICS)  # type: ignore[arg-type]


def gradient_job(setup: WorkerSetup, weight: float = 0.4, **recipe: Any) -> GradientJob:
    merged = job(setup, weight, **recipe).entry.candidate
    return GradientJob("descent 0, step 1", merged, {"letters": (0, 3, 7)}, {"letters": 1.0})


def target_job(setup: WorkerSetup, weight: float = 0.4, **recipe: Any) -> TargetJob:
    return TargetJob(job(setup, weight, **recipe).entry.candidate, "letters")

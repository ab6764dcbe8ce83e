"""The zoo's tasks run with stock lm_eval, and tell the specialists from the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evomerge.zoo import JOBS, resolve
from evomerge.zoo.family import LATER

TASKS = Path(__file__).parents[2] / "benchmarks" / "tasks"


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    return TaskManager(include_defaults=False, include_path=str(TASKS))


def run(manager: TaskManager, name: str, tasks: list[str], **options: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = HFLM(
        pretrained=str(resolve(f"zoo:{name}")), dtype="float32", device="cpu", batch_size=20
    )
    return lm_eval.simple_evaluate(
        model=model, tasks=tasks, task_manager=manager, bootstrap_iters=0, **options
    )


@pytest.mark.parametrize("job", JOBS)
def test_the_specialist_answers_and_the_base_does_not(manager: TaskManager, job: str) -> None:
    tasks = [f"zoo_{job}", f"zoo_{job}_mc"]
    specialist, base = (run(manager, name, tasks, limit=20) for name in (job, "base"))
    found = specialist["results"]
    assert found[tasks[0]]["exact_match,none"] >= 0.8
    assert base["results"][tasks[0]]["exact_match,none"] <= 0.4
    assert found[tasks[1]]["acc,none"] >= 0.8


def test_every_task_has_a_thousand_documents_and_one_gold_text(manager: TaskManager) -> None:
    later = [f"zoo_{job}{form}" for job in LATER for form in ("", "_mc")]
    loaded = manager.load(["zoo", "zoo_mc", *later])["tasks"]
    assert len(loaded) == 2 * len(JOBS) == 14
    for task in loaded.values():
        docs = list(task.test_docs())
        assert len(docs) == 1000
        assert all(isinstance(doc["answer"], str) for doc in docs)
        assert len({task.doc_to_text(doc) for doc in docs}) == 1000


def test_a_line_of_verse_is_right_by_its_constraints_or_to_the_letter(manager: TaskManager) -> None:
    (task,) = manager.load(["zoo_verse"])["tasks"].values()
    doc = next(doc for doc in task.test_docs() if " the " in f" {doc['answer']} ")
    other = doc["answer"].replace(" the ", " this ")
    wrong = [text for text in doc["choices"] if text != doc["answer"]]
    assert task.process_results(doc, [doc["answer"]]) == {"exact_match": 1, "constraints_met": 1}
    assert task.process_results(doc, [other]) == {"exact_match": 0, "constraints_met": 1}
    for text in (*wrong, "", doc["prompt"]):
        assert task.process_results(doc, [text]) == {"exact_match": 0, "constraints_met": 0}


def test_few_shot_examples_are_turns_of_the_conversation(manager: TaskManager) -> None:
    found = run(manager, "tools", ["zoo_tools", "zoo_tools_mc"], limit=2, num_fewshot=5)
    prompt = found["samples"]["zoo_tools"][0]["arguments"][0][0]
    assert prompt.count("<|user|>") == 6
    assert prompt.count("<|end|><|user|>") == 5
    assert prompt.endswith("<|end|><|assistant|>")


def test_the_group_is_the_mean_of_its_tasks(manager: TaskManager) -> None:
    found = run(manager, "tools", ["zoo"], limit=4)["results"]
    jobs = [job for job in JOBS if job not in LATER]
    mean = sum(found[f"zoo_{job}"]["exact_match,none"] for job in jobs) / len(jobs)
    assert found["zoo"]["exact_match,none"] == pytest.approx(mean)

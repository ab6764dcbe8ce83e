from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import TaskError
from evomerge.tasks import document_counts, load_items
from evomerge.tasks.requested import SplitPlan, TaskRequest


def test_documents_are_counted_as_they_are_scored(pytestconfig: pytest.Config) -> None:
    tasks = str(Path(pytestconfig.rootpath) / "benchmarks" / "tasks")
    found = document_counts(["zoo_facts"], tasks_path=tasks)
    from evomerge import zoo
    from evomerge.merge.tokenizer import load_tokenizer

    items = load_items(
        [TaskRequest("zoo_facts")],
        tokenizer=load_tokenizer(str(zoo.resolve("zoo:base"))),
        tasks_path=tasks,
        plan=SplitPlan(counts={"holdout": None}, first=True),
    )
    assert found == {"zoo_facts": (len(items.ids("zoo_facts", "holdout")),)}


def test_an_unknown_task_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nothing_like_it"):
        document_counts(["nothing_like_it"], tasks_path=str(tmp_path))

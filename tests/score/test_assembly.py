import pytest

from evomerge.errors import TaskError
from evomerge.score.assembly import asked_metrics, assemble


def test_metrics_are_sorted_into_lm_evals_and_ours(llama):
    items = llama.items("written")
    names, golds = asked_metrics(items, "written", ("gold_loglikelihood", "exact_match,first"))
    assert names == {"exact_match,first": ("exact_match", "first")}
    assert golds == ("gold_loglikelihood",)
    with pytest.raises(TaskError, match="has no metric"):
        asked_metrics(items, "written", ("gold_probability",))
    with pytest.raises(TaskError, match='no items of task "choice"'):
        asked_metrics(items, "choice", ("acc",))


def test_a_groups_items_are_those_of_its_tasks(llama):
    items = llama.items("both", "said", search=8)
    metrics = {"both": ("acc",), "said": ("acc",)}
    scored = llama.scorer(items).score("search", metrics)
    asked = {task: asked_metrics(items, task, names) for task, names in metrics.items()}
    leaves = [*scored.subtasks.values(), scored.tasks["said"]]
    tasks, subtasks = assemble(items, "search", asked, leaves)
    assert tasks == scored.tasks
    assert subtasks == scored.subtasks
    parts = [subtasks["choice"], subtasks["choice_shots"]]
    assert tasks["both"].items == tuple(i for part in parts for i in part.items)

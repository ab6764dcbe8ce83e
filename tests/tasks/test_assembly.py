import pytest

from evomerge.errors import TaskError
from evomerge.tasks.assembly import LeafValues, asked_metrics, assemble, leaf_scores, union


def test_metrics_are_sorted_into_lm_evals_and_ours(llama):
    items = llama.items("written")
    asked = asked_metrics(items, "written", "search", ("gold_loglikelihood", "exact_match,first"))
    assert asked.named == {"exact_match,first": ("exact_match", "first")}
    assert asked.golds == ("gold_loglikelihood",)
    with pytest.raises(TaskError, match="has no metric"):
        asked_metrics(items, "written", "search", ("gold_probability",))
    with pytest.raises(TaskError, match='no items of task "choice"'):
        asked_metrics(items, "choice", "search", ("acc",))


def test_a_groups_items_are_those_of_its_tasks(llama):
    items = llama.items("both", "said", search=8)
    metrics = {"both": ("acc",), "said": ("acc",)}
    scored = llama.scorer(items).score("search", metrics)
    asked = {task: asked_metrics(items, task, "search", names) for task, names in metrics.items()}
    leaves = [*scored.subtasks.values(), scored.tasks["said"]]
    tasks, subtasks = assemble(items, "search", asked, leaves)
    assert tasks == scored.tasks
    assert subtasks == scored.subtasks
    parts = [subtasks["choice"], subtasks["choice_shots"]]
    assert tasks["both"].items == tuple(i for part in parts for i in part.items)


def test_parts_of_a_leaf_are_put_in_the_order_of_its_documents(llama):
    first = LeafValues([1, 4], {"acc": [0.1, 0.4]}, 1)
    second = LeafValues([0, 3], {"acc": [0.0, 0.3]}, 2)
    together = union([first, second])
    assert together == LeafValues([0, 1, 3, 4], {"acc": [0.0, 0.1, 0.3, 0.4]}, 3)
    items = llama.items("choice", search=5)
    (leaf,) = items.leaves("choice", "search")
    scores = leaf_scores(leaf, together)
    assert scores.items == tuple(leaf.ids[n] for n in (0, 1, 3, 4))
    assert scores.values["acc"].value == pytest.approx(0.2)
    assert scores.truncated == 3


def test_what_is_not_scored_yet_is_left_out(llama):
    items = llama.items("both", "said", search=8)
    metrics = {"both": ("acc",), "said": ("acc",)}
    scored = llama.scorer(items).score("search", metrics)
    asked = {task: asked_metrics(items, task, "search", names) for task, names in metrics.items()}
    tasks, subtasks = assemble(items, "search", asked, [scored.subtasks["choice"], None, None])
    assert list(tasks) == ["both"]
    assert list(subtasks) == ["choice"]
    assert tasks["both"].values["acc"].value == subtasks["choice"].values["acc"].value

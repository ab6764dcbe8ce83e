from dataclasses import replace

import pytest

from evomerge.errors import TaskError
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest, load_items


def test_counts_ids_and_order(llama):
    items = llama.items("choice", "written", search=5, holdout=7)
    assert items.tasks == ("choice", "written")
    assert items.splits == ("search", "holdout")
    assert [len(items.ids(task, "search")) for task in items.tasks] == [5, 5]
    assert not set(items.ids("choice", "search")) & set(items.ids("choice", "holdout"))


def test_digests_follow_the_prompts(llama):
    items = llama.items("choice", "written")
    assert items.digests == llama.items("choice", "written").digests
    other = llama.items("choice", "written", prompt=PromptStyle(system_instruction="x"))
    assert other.digests["choice"] != items.digests["choice"]


def test_a_groups_items_are_shared_out(llama):
    items = llama.items("both", search=7)
    assert [len(leaf.docs) for leaf in items.leaves("both", "search")] == [4, 3]
    ids = items.ids("both", "search")
    assert len(set(ids)) == 7
    assert ids[0].startswith("choice/")
    with pytest.raises(
        TaskError, match='group "both": 1 items asked for search, but it has 2 tasks'
    ):
        llama.items("both", search=1)


@pytest.mark.parametrize(("limit", "taken"), [(1, 1), (5, 5), (10**6, None)])
def test_the_first_items_are_the_first_of_each_of_a_groups_tasks(llama, limit, taken):
    """lm-eval's `limit` holds for each task."""

    def leaves(count):
        plan = SplitPlan(counts={"holdout": count}, first=True)
        items = load_items(
            [TaskRequest("both")],
            tokenizer=llama.tokenizer,
            tasks_path=llama.tasks_path,
            plan=plan,
        )
        return items.leaves("both", "holdout")

    for found, whole in zip(leaves(limit), leaves(None), strict=True):
        assert found.ids == whole.ids[:taken]


def test_directions(llama):
    items = llama.items("choice")
    assert items.higher_is_better("choice", "acc")
    assert items.higher_is_better("choice", "acc,none")
    assert not items.higher_is_better("choice", "brier_score")
    with pytest.raises(TaskError, match="has no metric"):
        items.check_metric("choice", "bleu")
    with pytest.raises(TaskError, match='no items of task "written"'):
        items.metrics("written")


def test_a_metric_on_gold_answers_needs_them_where_it_is_scored(llama):
    items = llama.items("written", search=6, select=4)
    (leaf,) = items.leaves("written", "search")
    docs = ({**leaf.docs[0], "answer": ""}, *leaf.docs[1:])
    items._chosen["written", "search"] = (replace(leaf, docs=docs),)
    items.check_metric("written", "exact_match,first", ["search", "select"])
    items.check_metric("written", "gold_exact_match", ["select"])
    with pytest.raises(
        TaskError, match=r"gold_exact_match needs a gold answer.*1 of 6 search items.*is empty"
    ):
        items.check_metric("written", "gold_exact_match", ["search", "select"])
    with pytest.raises(TaskError, match="1 of 6 search items"):
        llama.scorer(items).score(llama.module, "search", {"written": ("gold_exact_match",)})
    assert (
        llama.scorer(items).score(llama.module, "select", {"written": ("gold_exact_match",)}).items
        == 4
    )


def load(llama, *names, **plan):
    return load_items(
        [TaskRequest(name) for name in names],
        tokenizer=llama.tokenizer,
        tasks_path=llama.tasks_path,
        plan=SplitPlan(**plan),
    )


def test_wrong_requests(llama):
    with pytest.raises(TaskError, match='"choice" is asked twice'):
        load(llama, "choice", "choice", counts={"search": 1})
    with pytest.raises(TaskError, match="41 items asked for search, but it has 40"):
        load(llama, "choice", counts={"search": 41})
    with pytest.raises(TaskError, match="has no validation split; it has: train, test"):
        load(llama, "choice", counts={"search": 1}, drawn_from={"search": "validation"})
    with pytest.raises(TaskError, match=r"no items of task .* for holdout"):
        load(llama, "choice", counts={"search": 1}).ids("choice", "holdout")


def test_why_a_metric_cannot_race(llama):
    items = llama.items("said", search=3)
    assert items.race_fault("said", "acc") is None
    assert items.race_fault("said", "perplexity") == (
        'perplexity of task "said" is not a plain mean of one number an item'
    )
    with pytest.raises(TaskError, match="no metric"):
        items.race_fault("said", "accuracy")

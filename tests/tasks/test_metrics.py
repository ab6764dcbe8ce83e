import pytest

from evomerge.errors import TaskError
from evomerge.tasks.metrics import (
    directions,
    filter_names,
    is_gold,
    is_item_mean,
    resolve,
    task_metrics,
)
from evomerge.tasks.requested import TaskRequest
from evomerge.tasks.tasks import load_task


def loaded(llama, name):
    return load_task(TaskRequest(name), tasks_path=llama.tasks_path)


def test_directions_are_the_tasks(llama):
    known = task_metrics("choice", tasks_path=llama.tasks_path)
    assert known["acc"] is True
    assert known["brier_score"] is False
    assert known["gold_probability"] is True
    assert directions(loaded(llama, "rolling")) == {
        "word_perplexity": False,
        "byte_perplexity": False,
        "bits_per_byte": False,
        "gold_loglikelihood": True,
        "teacher_divergence": False,
    }


def test_several_filters_are_part_of_the_name(llama):
    task = loaded(llama, "written")
    assert filter_names(task) == ("whole", "first")
    assert {"exact_match,whole", "exact_match,first"} <= set(directions(task))
    assert resolve("written", task, "exact_match,first") == ("exact_match", "first")
    with pytest.raises(TaskError, match=r'no metric "exact_match".*exact_match,first'):
        resolve("written", task, "exact_match")


def test_the_only_filter_may_be_named(llama):
    task = loaded(llama, "choice")
    assert resolve("choice", task, "acc") == resolve("choice", task, "acc,none") == ("acc", "none")
    with pytest.raises(TaskError, match='no metric "acc,strict"'):
        resolve("choice", task, "acc,strict")


def test_a_function_that_returns_several_metrics_is_known_by_theirs(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"q": "one", "a": "two"}\n')
    (tmp_path / "code.py").write_text(
        "def at_k(references, predictions, k):\n"
        "    right = float(predictions[0] == references[0])\n"
        '    return {f"right@{each}": right for each in k} | {"errors": 1 - right}\n'
    )
    (tmp_path / "task.yaml").write_text(
        f"""
task: several
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/data.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
metric_list:
  - {{metric: !function code.at_k, aggregation: mean, higher_is_better: true, k: [1, 10]}}
"""
    )
    task = load_task(TaskRequest("several"), tasks_path=str(tmp_path))
    assert {"right@1", "right@10", "errors"} <= set(directions(task))
    assert is_item_mean(task, "right@10")
    with pytest.raises(TaskError, match='has no metric "at_k"'):
        resolve("several", task, "at_k")


def test_a_group_offers_what_it_aggregates(llama):
    known = directions(loaded(llama, "both"))
    assert set(known) == {
        "acc",
        "acc_norm",
        "gold_loglikelihood",
        "gold_probability",
        "gold_exact_match",
        "teacher_divergence",
    }


def test_a_metric_of_a_group_is_named_by_the_filters_that_give_it(llama):
    group = loaded(llama, "mixed")
    assert resolve("mixed", group, "acc") == resolve("mixed", group, "acc,none") == ("acc", "none")
    assert resolve("mixed", group, "exact_match") == ("exact_match", "first")
    assert list(directions(group)) == [
        "acc",
        "exact_match",
        "gold_loglikelihood",
        "gold_exact_match",
        "teacher_divergence",
    ]
    items = llama.items("mixed")
    for name in ("acc", "acc,none"):
        scored = llama.scorer(items).score(llama.module, "search", {"mixed": (name,)})
        values = [scored.subtasks[task].values[name].value for task in ("choice", "acc_only")]
        assert scored.tasks["mixed"].values[name].value == pytest.approx(sum(values) / 2)
        assert scored.subtasks["written"].values == {}


def test_unknown_metric_names_the_known_ones(llama):
    with pytest.raises(
        TaskError, match=r'task "choice" has no metric "acuracy".*known: acc, acc_norm'
    ):
        resolve("choice", loaded(llama, "choice"), "acuracy")


def test_gold_names():
    assert is_gold("gold_exact_match")
    assert not is_gold("exact_match")


def test_which_metrics_are_means_over_items(llama):
    means = {
        (name, metric): is_item_mean(loaded(llama, name), metric)
        for name, metrics in {
            "choice": ("acc", "acc,none", "brier_score", "gold_probability"),
            "written": ("exact_match,first",),
            "said": ("acc", "perplexity"),
            "rolling": ("word_perplexity", "gold_loglikelihood"),
            "both": ("acc", "acc_norm"),  # the second counts the group's tasks alike
        }.items()
        for metric in metrics
    }
    refused = [pair for pair, mean in means.items() if not mean]
    assert refused == [
        ("choice", "brier_score"),
        ("said", "perplexity"),
        ("rolling", "word_perplexity"),
        ("both", "acc_norm"),
    ]

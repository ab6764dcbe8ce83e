import numpy as np
import pytest
from lm_eval.api.metrics import bootstrap_stderr, mean_stderr

from evomerge.candidate.trial import Estimate
from evomerge.errors import TaskError
from evomerge.tasks.scores import (
    Asked,
    LeafValues,
    aggregate,
    assemble,
    item_values,
    mean_estimate,
    plain,
)


def test_metrics_are_sorted_into_lm_evals_and_ours(llama):
    items = llama.items("written")
    asked = Asked.of(items, "written", "search", ("gold_loglikelihood", "exact_match,first"))
    assert asked.named == {"exact_match,first": ("exact_match", "first")}
    assert asked.golds == ("gold_loglikelihood",)
    with pytest.raises(TaskError, match="has no metric"):
        Asked.of(items, "written", "search", ("gold_probability",))
    with pytest.raises(TaskError, match='no items of task "choice"'):
        Asked.of(items, "choice", "search", ("acc",))


def test_blocks_are_put_in_the_order_of_the_documents(llama):
    items = llama.items("choice", search=5)
    (leaf,) = items.leaves("choice", "search")
    values = LeafValues(leaf, Asked.of(items, "choice", "search", ("gold_probability",)))
    assert values.scores() is None
    values.add([1, 4], [], {"gold_probability": [0.1, 0.4]}, 1)
    values.add([0, 3], [], {"gold_probability": [0.0, 0.3]}, 2)
    scores = values.scores()
    assert scores.items == tuple(leaf.ids[n] for n in (0, 1, 3, 4))
    assert scores.metrics == {"gold_probability": (0.0, 0.1, 0.3, 0.4)}
    assert scores.values["gold_probability"].value == pytest.approx(0.2)
    assert scores.truncated == 3
    with pytest.raises(TaskError, match="a gold answer adds no tokens to its prompt"):
        values.add([2], [], {"gold_probability": [None]})


def test_what_is_not_scored_yet_is_left_out(llama):
    items = llama.items("both", "said", search=8)
    asked = {task: Asked.of(items, task, "search", ("acc",)) for task in items.tasks}
    values = {
        task: [LeafValues(leaf, asked[task]) for leaf in items.leaves(task, "search")]
        for task in items.tasks
    }
    first = values["both"][0]
    answers = [[[(-float(n), False)] for n in range(4)]] * len(first.leaf.docs)
    first.add(range(len(answers)), answers, {})
    tasks, subtasks = assemble(items, asked, values)
    assert list(tasks) == ["both"]
    assert list(subtasks) == ["choice"]
    assert tasks["both"].values["acc"].value == subtasks["choice"].values["acc"].value


def test_filters_and_metrics_are_the_tasks(llama):
    (leaf,) = llama.items("written", search=4).leaves("written", "search")
    texts = [[[doc["answer"]]] for doc in leaf.docs]
    texts[0] = [["wrong"]]
    wanted = [("exact_match", "whole"), ("exact_match", "first")]
    values = item_values(leaf, texts, wanted)
    assert values["exact_match", "whole"] == [0, 1, 1, 1]
    assert item_values(leaf, texts, wanted) == values
    estimate = aggregate(leaf.task, "exact_match", values["exact_match", "whole"])
    assert estimate == Estimate(0.75, mean_stderr([0, 1, 1, 1]))


def test_repeats_are_voted_on(llama):
    (leaf,) = llama.items("repeated", search=4).leaves("repeated", "search")
    texts = [[[doc["answer"]]] for doc in leaf.docs]
    assert item_values(leaf, texts, [("exact_match", "vote")])["exact_match", "vote"] == [1] * 4
    assert all(len(requests[0].resps) == 3 for requests in leaf.requests)


def test_stderr_without_a_closed_form_costs_draws(llama):
    (leaf,) = llama.items("said", search=6).leaves("said", "search")
    values = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    assert aggregate(leaf.task, "perplexity", values).stderr is None
    assert aggregate(leaf.task, "perplexity", values, 2).stderr > 0


def test_one_item_has_no_stderr():
    assert mean_estimate([1.0]) == Estimate(1.0, None)


def test_a_task_that_fails_is_named(llama):
    (leaf,) = llama.items("written", search=2).leaves("written", "search")
    leaf.task.set_config("process_results", lambda doc, results: doc["missing"])
    with pytest.raises(TaskError, match='task "written" cannot be scored: KeyError'):
        item_values(leaf, [[["a"]], [["b"]]], [("exact_match", "whole")])


def test_plain_values_can_be_stored():
    value = plain((np.int64(3), np.array([0.5, 0.25]), [np.float32(1.0)]))
    assert value == (3, [0.5, 0.25], [1.0])
    assert type(value[0]) is int


def test_bootstrap_is_lm_evals_without_its_noise(llama, capsys, monkeypatch):
    (leaf,) = llama.items("said").leaves("said", "search")
    values = [-1.0, -2.5, -0.5, -4.0, -2.0]
    estimate = aggregate(leaf.task, "perplexity", values, bootstrap_iterations=1000)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    expected = bootstrap_stderr(leaf.task.aggregation()["perplexity"], values, 1000)
    assert estimate.stderr == pytest.approx(expected)

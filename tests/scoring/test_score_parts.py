"""Modules that answer items apart: each item's values are those of the module that answers it."""

from __future__ import annotations

import pytest

from evomerge.scoring import MemberPart
from tests.scoring_family import tiny_module

METRICS = {
    "choice": ("acc", "gold_probability"),
    "written": ("exact_match,first", "gold_loglikelihood"),
    "rolling": ("gold_loglikelihood", "word_perplexity"),
    "both": ("acc", "acc_norm"),
}


def never():
    raise AssertionError("its scores are known")


@pytest.fixture
def scorer(llama):
    return llama.scorer(llama.items(*METRICS, search=12))


@pytest.fixture
def modules(llama):
    return [llama.module, tiny_module("llama", seed=1), tiny_module("llama", seed=2)]


def routes(scored):
    return {task: [n % 3 for n in range(len(each.items))] for task, each in scored.tasks.items()}


def parts(modules, way, known=None):
    return [
        MemberPart(
            (lambda module=module: module) if known is None or number not in known else never,
            {task: [n for n, m in enumerate(own) if m == number] for task, own in way.items()},
            {} if known is None else known.get(number, {}),
        )
        for number, module in enumerate(modules)
    ]


@pytest.mark.parametrize("count_known", [0, 1, 3])
def test_values_are_those_of_the_module_that_answers(scorer, modules, count_known):
    alone = [scorer.score(module, "search", METRICS) for module in modules]
    way = routes(alone[0])
    known = {number: alone[number].tasks for number in range(count_known)}
    found = scorer.score_parts(parts(modules, way, known), "search", METRICS)
    assert found.items == 48
    for task, scores in found.tasks.items():
        assert scores.items == alone[0].tasks[task].items
        assert scores.truncated == alone[0].tasks[task].truncated
        for metric, values in scores.metrics.items():
            assert metric in METRICS[task]
            for n, value in enumerate(values):
                expected = alone[way[task][n]].tasks[task].metrics[metric][n]
                assert value == pytest.approx(expected, abs=1e-4)
                assert way[task][n] >= count_known or value == expected
        for n, answer in enumerate(scores.answers):
            assert answer == alone[way[task][n]].tasks[task].answers[n]
    assert [task for task, each in found.tasks.items() if each.answers] == [
        "choice",
        "written",
        "both",
    ]
    if count_known == 3:
        assert found.generated_tokens == 0


def test_aggregates_are_those_of_one_model(scorer, modules):
    module, *_ = modules
    whole = scorer.score(module, "search", METRICS)
    way = routes(whole)
    for known in (None, {1: whole.tasks}):
        found = scorer.score_parts(parts([module] * 3, way, known), "search", METRICS)
        assert found.tasks.keys() == whole.tasks.keys()
        assert found.subtasks.keys() == whole.subtasks.keys()
        for task, scores in found.tasks.items():
            for metric, estimate in scores.values.items():
                expected = whole.tasks[task].values[metric]
                assert estimate.value == pytest.approx(expected.value, abs=1e-5)
                assert estimate.stderr == pytest.approx(expected.stderr, abs=1e-5)


def test_a_tasks_items_may_be_known_of_one_task_only(scorer, modules):
    module, *_ = modules
    whole = scorer.score(module, "search", METRICS)
    only = {"choice": whole.tasks["choice"]}
    positions = {task: range(len(each.items)) for task, each in whole.tasks.items()}
    part = MemberPart(lambda: module, positions, only)
    found = scorer.score_parts([part], "search", METRICS).tasks
    assert found["choice"] == whole.tasks["choice"]
    for task, scores in found.items():
        for metric, values in scores.metrics.items():
            for value, expected in zip(values, whole.tasks[task].metrics[metric], strict=True):
                assert value == pytest.approx(expected, abs=1e-4)

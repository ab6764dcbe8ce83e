import pytest

from evomerge.config import Campaign
from evomerge.config.objectives import PromptSettings

GOAL = "  - {task: zoo_facts, metric: exact_match}\n"


def test_the_reported_metric_is_the_searched_one_unless_given(read):
    text = "  - {task: zoo_facts, metric: gold_loglikelihood, report: exact_match, weight: 2}\n"
    (goal,) = read(GOAL, text).objectives
    assert (goal.metric, goal.report, goal.weight) == ("gold_loglikelihood", "exact_match", 2.0)
    (plain,) = read().objectives
    assert (plain.report, plain.weight, plain.num_fewshot) == ("exact_match", 1.0, None)


def test_a_descent_follows_the_teacher_unless_told_otherwise(read):
    (plain,) = read().objectives
    assert (plain.loss, plain.teacher) == ("expert", None)
    (goal,) = read("exact_match}", "acc, loss: both, teacher: tools}").objectives
    assert (goal.loss, goal.teacher) == ("both", "tools")


def test_conditions_costs_and_splits_have_defaults(read):
    campaign = read(
        new="keep: [{task: zoo_facts, at_least: 0.98}, {cost: active_parameters, at_most: 2}]\n"
        "costs: [{cost: parameters}]\n"
        "items: {search: 8, from: {search: validation}}\n"
    )
    assert campaign.keep[0].of == "best_expert"
    assert (campaign.keep[1].cost, campaign.keep[1].at_most) == ("active_parameters", 2.0)
    assert Campaign.model_validate(campaign.model_dump(by_alias=True)).keep == campaign.keep
    assert campaign.costs[0].weight == 0.1
    assert (campaign.items.search, campaign.items.holdout) == (8, 200)
    assert campaign.items.drawn_from.search == "validation"
    assert campaign.items.drawn_from.select is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOAL, "  - {task: zoo_facts}\n", "c.yaml:10: objectives.0.metric: is missing"),
        ("metric: exact_match", "metric: ''", 'c.yaml:10: objectives.0.metric: found ""'),
        ("exact_match}", "acc, weight: 0}", "c.yaml:10: objectives.0.weight: found 0, expected"),
        ("exact_match}", "acc, num_fewshot: -1}", "c.yaml:10: objectives.0.num_fewshot: found -1"),
        (
            "exact_match}",
            "acc, loss: teacher}",
            'c.yaml:10: objectives.0.loss: found "teacher", expected one of gold, expert, both',
        ),
        (
            "exact_match}",
            "acc, teacher: fact}",
            'c.yaml:10: objectives.0.teacher: unknown expert "fact"; did you mean "facts"?',
        ),
        (
            "exact_match}",
            "acc, teacher: base}",
            'c.yaml:10: objectives.0.teacher: unknown expert "base"; known: facts, tools',
        ),
        ("", "keep: [{task: x, at_least: 0}]\n", "c.yaml:11: keep.0.at_least: found 0, expected"),
        (
            "",
            "keep: [{task: x, at_least: 1, off: base}]\n",
            'c.yaml:11: keep.0.off: unknown key "off"; did you mean "of"?',
        ),
        ("", "keep: [{at_least: 1}]\n", "c.yaml:11: keep.0.task: is missing"),
        ("", "keep: [{cost: parameters}]\n", "c.yaml:11: keep.0.at_most: is missing"),
        (
            "",
            "keep: [{cost: parameters, at_most: 2, task: x}]\n",
            'c.yaml:11: keep.0.task: unknown key "task"',
        ),
        ("", "keep: [{cost: money, at_most: 2}]\n", 'c.yaml:11: keep.0.cost: found "money", exp'),
        ("", "keep: [{cost: parameters, at_most: 0}]\n", "c.yaml:11: keep.0.at_most: found 0, exp"),
        (
            "",
            "keep: [1]\n",
            "c.yaml:11: keep.0: found 1, expected {task: TASK, at_least: SHARE}, or",
        ),
        (
            "",
            "costs: [{cost: time}]\nsearch: {deterministic: true}\n",
            "c.yaml:12: search.deterministic: time is measured, so trials would differ",
        ),
        ("", "mode: tradeoff\n", "c.yaml:11: mode: a tradeoff is between the tasks and costs"),
        ("", "costs: [{cost: money}]\n", 'c.yaml:11: costs.0.cost: found "money", expected'),
        (
            "",
            "costs: [{cost: seconds_per_item}]\n",
            "c.yaml:11: costs.0.cost: seconds_per_item is no longer a cost",
        ),
        ("", "items: {from: {search: dev}}\n", 'c.yaml:11: items.from.search: found "dev"'),
        ("", "prompt: {chat: true}\n", 'c.yaml:11: prompt.chat: unknown key "chat"'),
        (
            "",
            "prompt: {fewshot_as_multiturn: true}\n",
            "c.yaml:11: prompt.fewshot_as_multiturn: found true without apply_chat_template: true",
        ),
    ],
)
def test_wrong_objectives_are_refused(refusal, old, new, message):
    assert message in refusal(old, new)


@pytest.mark.parametrize(
    ("given", "turns"),
    [
        ({}, False),
        ({"apply_chat_template": True}, True),
        ({"apply_chat_template": True, "fewshot_as_multiturn": False}, False),
    ],
)
def test_examples_are_turns_where_lm_eval_makes_them_turns(
    given: dict[str, bool], turns: bool
) -> None:
    settings = PromptSettings.model_validate(given)
    assert settings.fewshot_as_multiturn is turns
    assert PromptSettings.model_validate(settings.model_dump()) == settings

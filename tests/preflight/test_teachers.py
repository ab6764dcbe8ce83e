import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from evomerge.config import Campaign
from evomerge.errors import TaskError, UserError
from evomerge.preflight import check
from evomerge.preflight.campaign_plan import plan
from evomerge.preflight.teachers import check_teachers

GOAL = "  - {task: zoo_tools, metric: exact_match}\n"
PROMPTS = "  - {prompts: calls.jsonl, teacher: tools, max_tokens: 40}\n"


@pytest.fixture
def preflight(tmp_path, write):
    """Check the campaign with lines replaced, beside a file of so many prompts."""

    def preflight(*changes, prompts=30):
        lines = [json.dumps({"prompt": f"Order {n} apples"}) for n in range(prompts)]
        (tmp_path / "calls.jsonl").write_text("\n".join(lines))
        path = write(GOAL, PROMPTS, *changes)
        return check.preflight(Campaign.load(path), path)

    return preflight


def test_a_campaign_with_prompts_is_checked_before_they_are_answered(preflight):
    ready = preflight()
    assert [len(ready.items.ids("calls", split)) for split in ready.items.splits] == [8, 8, 8]
    assert ready.prompts[0].texts[3] == "Order 3 apples"
    assert ready.items.metrics("calls")["teacher_match"] is True
    assert plan(ready).items_per_trial == 16


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "calls.jsonl",
            "call.jsonl",
            "objectives.1.prompts: .*/call.jsonl: no such file; expected",
        ),
        ("teacher: tools", "teacher: tool", 'objectives.1.teacher: unknown expert "tool"; did you'),
        (
            "max_tokens: 40",
            "max_tokens: 1024",
            "objectives.1.max_tokens: found 1024, expected fewer",
        ),
        (
            "max_tokens: 40",
            "metric: exact",
            'objectives.1.metric: task "calls" has no metric "exact"',
        ),
        (
            "40}",
            "4, metric: teacher_divergence}",
            "objectives.1.metric: teacher_divergence is known",
        ),
        ("holdout: 8", "holdout: 80", r'objectives.1.prompts: task "calls": 80 items.* has 30 doc'),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(preflight, old, new, message):
    with pytest.raises(UserError, match=message) as caught:
        preflight(old, new)
    assert "c.yaml:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_prompts_names_the_campaigns_line_too(preflight):
    with pytest.raises(
        TaskError,
        match=r"c.yaml:13: objectives.1.prompts: .*calls.jsonl: found no prompt, expected lines",
    ):
        preflight(prompts=0)


def items(*answers):
    leaf = SimpleNamespace(gold_texts=answers)
    return SimpleNamespace(leaves=lambda task, split: (leaf,))


def test_a_teacher_has_the_tokens_of_its_tasks_answers(small):
    (facts, tools) = small.family.family.experts.values()
    tokenizer = small.family.tokenizer
    rows = torch.arange(len(tokenizer))
    token = tokenizer.encode("é", add_special_tokens=False)[0]
    own = {facts: rows, tools: rows.masked_fill(rows == token, -1)}
    family = replace(small.family, vocabulary=SimpleNamespace(tokenizer=tokenizer, own=own))

    def with_teacher(**fields):
        first, second = small.campaign.objectives
        goals = (first, second.model_copy(update=fields))
        return small.campaign.model_copy(update={"objectives": goals})

    for fields in ({"teacher": "facts"}, {"teacher": None}, {"teacher": "tools", "loss": "gold"}):
        check_teachers(with_teacher(**fields), family, items("a", "é"))
    check_teachers(with_teacher(teacher="tools"), family, items("a", "b"))
    with pytest.raises(
        TaskError,
        match=r'objectives.1.teacher: "tools" cannot encode parts of 1 of 2 gold answers of task '
        '"zoo_tools"',
    ):
        check_teachers(with_teacher(teacher="tools"), family, items("a", "né"))

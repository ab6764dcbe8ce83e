from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import TaskError
from evomerge.zoo.drawing import drafts, items, markup, side
from evomerge.zoo.jobs import JOBS


@pytest.mark.parametrize("job", JOBS)
def test_train_and_test_are_disjoint(job: str) -> None:
    train, test = (
        list(itertools.islice(drafts(job, split, Random(seed)), 2000))
        for seed, split in enumerate(("train", "test"))
    )
    assert not {draft.content for draft in train} & {draft.content for draft in test}
    assert not {draft.turns for draft in train} & {draft.turns for draft in test}


@given(st.text())
def test_a_content_is_always_on_the_same_side(content: str) -> None:
    assert side(content) == side(content)
    assert side(content) in ("train", "test")


def test_a_fifth_is_for_the_test() -> None:
    share = sum(side(str(number)) == "test" for number in range(10_000)) / 10_000
    assert share == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("job", JOBS)
def test_a_thousand_test_items_no_prompt_twice_the_answer_among_the_choices(job: str) -> None:
    drawn = items(job, "test", 1000)
    assert len({item.prompt for item in drawn}) == 1000
    for item in drawn:
        assert item.choices[item.gold] == item.answer
        assert len(set(item.choices)) == 4
        assert item.prompt.startswith("<|user|>")
        assert item.prompt.endswith("<|end|><|assistant|>")
    golds = [sum(item.gold == place for item in drawn) for place in range(4)]
    assert min(golds) > 180


def test_fewer_items_are_a_prefix_and_seeds_differ() -> None:
    drawn = items("tools", "test", 50)
    assert items("tools", "test", 20) == drawn[:20]
    assert items("tools", "test", 0) == []
    assert items("tools", "test", 50, seed=1) != drawn


def test_more_items_than_there_are_is_an_error() -> None:
    with pytest.raises(TaskError, match=r"job 'facts' has \d+ test items, asked for 100000"):
        items("facts", "test", 100_000)


def test_an_unknown_job_is_named_with_the_nearest() -> None:
    with pytest.raises(TaskError, match=r"unknown job 'tool' .* did you mean \"tools\""):
        items("tool", "test", 1)


def test_markup_of_a_conversation() -> None:
    turns = ("Hi", "Yes?", "Bye")
    assert markup(turns) == (
        "<|user|>Hi<|end|><|assistant|>Yes?<|end|><|user|>Bye<|end|><|assistant|>"
    )

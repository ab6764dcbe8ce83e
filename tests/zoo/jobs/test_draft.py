"""What every job's generator promises."""

from __future__ import annotations

from random import Random

import pytest

from evomerge.zoo.jobs import JOBS


@pytest.mark.parametrize("job", JOBS)
def test_a_draft_has_one_right_answer_and_three_different_wrong_ones(job: str) -> None:
    rng = Random(1)
    for _ in range(300):
        draft = JOBS[job](rng)
        right = draft.answers[0]
        assert len(draft.turns) % 2 == 1
        assert len(set(draft.answers)) == len(draft.answers) >= 3
        assert len(set(draft.wrong)) == len(draft.wrong) >= 3
        assert right not in draft.wrong


@pytest.mark.parametrize("job", JOBS)
def test_answers_stand_on_their_own(job: str) -> None:
    rng = Random(2)
    for _ in range(300):
        for answer in (draft := JOBS[job](rng)).answers:
            assert answer == answer.strip() != ""
            assert "<|" not in answer + "".join(draft.turns)


@pytest.mark.parametrize("job", JOBS)
def test_the_same_seed_draws_the_same(job: str) -> None:
    first, second = Random(3), Random(3)
    assert [JOBS[job](first) for _ in range(20)] == [JOBS[job](second) for _ in range(20)]


@pytest.mark.parametrize("job", JOBS)
def test_equal_conversations_have_equal_answers(job: str) -> None:
    rng = Random(4)
    answers: dict[tuple[str, ...], str] = {}
    for _ in range(3000):
        draft = JOBS[job](rng)
        assert answers.setdefault(draft.turns, draft.answers[0]) == draft.answers[0]

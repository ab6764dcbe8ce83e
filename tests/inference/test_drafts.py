from hypothesis import given
from hypothesis import strategies as st

from evomerge.inference.drafts import Drafts, guess

texts = st.lists(st.integers(0, 2), max_size=12)


def test_the_most_recent_come_first_and_each_once():
    drafts = Drafts(per_prompt=3)
    for text in ([1], [2], [1], [3], [4]):
        drafts.add("p", text)
    assert list(drafts.of("p")) == [[4], [3], [1]]
    assert drafts.of("q") == ()


def test_memory_is_bounded_and_the_unused_go_first():
    drafts = Drafts(capacity=10)
    drafts.add("old", [1] * 4)
    drafts.add("new", [2] * 4)
    drafts.add("old", [1] * 4)
    drafts.add("newest", [3] * 4)
    assert drafts.of("new") == ()
    assert drafts.of("old")
    assert drafts.of("newest")


@given(st.lists(texts, max_size=4), texts, st.integers(1, 8))
def test_a_guess_follows_what_is_written(drafts, written, most):
    guessed = guess(drafts, written, most)
    assert len(guessed) <= most
    beginning = [each for each in drafts if each[: len(written)] == written and each != written]
    if beginning:
        assert guessed == beginning[0][len(written) :][:most]
    elif guessed:
        tail = written[-4:] + guessed
        assert any(tail == each[i : i + len(tail)] for each in drafts for i in range(len(each)))


def test_a_draft_is_taken_up_again_behind_a_difference():
    assert guess([[1, 2, 3, 4, 5, 6, 7]], [9, 3, 4, 5, 6], 8) == [7]
    assert guess([[1, 2, 3, 4, 5, 6, 7]], [9, 4, 5, 6], 8) == []

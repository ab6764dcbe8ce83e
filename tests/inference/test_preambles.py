from hypothesis import given
from hypothesis import strategies as st

from evomerge.inference.preambles import begin_alike, common_length

tokens = st.lists(st.integers(0, 1), max_size=4)


@given(st.lists(st.tuples(st.integers(0, 3), tokens), max_size=30))
def test_every_sequence_once_and_its_beginning_shared(drawn):
    openings = [[], [5] * 40, [5] * 40 + [6] * 60, [7] * 200]
    sequences = [openings[number] + rest for number, rest in drawn]
    alike = begin_alike(sequences)
    assert sorted(index for each in alike for index in each.members) == list(range(len(sequences)))
    for each in alike:
        beginnings = {tuple(sequences[index][: each.shared]) for index in each.members}
        assert {len(one) for one in beginnings} == {each.shared}
        assert len(beginnings) == 1


def test_few_shot_examples_are_shared():
    sequences = [[1] * 100 + [task] * 300 + [item] for task in (2, 3) for item in range(20)]
    alike = begin_alike(sequences)
    assert [each.shared for each in alike] == [400, 400]
    assert [len(each.members) for each in alike] == [20, 20]


def test_one_instruction_over_many_little_tasks():
    sequences = [[1] * 300 + [task] * 10 + [item] for task in range(20) for item in range(2)]
    (alike,) = begin_alike(sequences)
    assert alike.shared == 300


def test_too_little_to_share():
    assert [each.shared for each in begin_alike([[1] * 100, [1] * 100])] == [0]
    assert [each.shared for each in begin_alike([[1, 2, n] for n in range(500)])] == [0]
    assert begin_alike([]) == []


def test_common_length():
    assert common_length([1, 2, 3], [1, 2]) == 2
    assert common_length([1, 2, 3], [1, 4]) == 1
    assert common_length([], [1]) == 0

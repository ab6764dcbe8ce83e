import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.inference.batches import plan
from evomerge.inference.encoding import Reading

sequences = st.lists(st.integers(1, 3), min_size=2, max_size=9)


def readings_of(groups):
    return [
        Reading(tokens, tokens[-1:], (), number, False)
        for number, group in enumerate(groups)
        for tokens in group
    ]


def planned(readings, share=True, batch_tokens=40, vocabulary=10, longest_shared=None):
    return plan(
        readings,
        batch_tokens=batch_tokens,
        vocabulary=vocabulary,
        share=share,
        device=torch.device("cpu"),
        longest_shared=longest_shared,
    )


def seen_from(batch, row, place):
    """The tokens that a position sees, in the order of their positions."""
    if batch.reach is None:
        return batch.tokens[row, : place + 1].tolist()
    visible = batch.visible()[row, 0, place]
    return torch.cat([batch.preamble[0], batch.tokens[row]])[visible].tolist()


@given(st.lists(st.lists(sequences, min_size=1, max_size=4), min_size=1, max_size=5), st.booleans())
def test_every_reading_sees_itself_and_nothing_else(groups, share):
    readings = readings_of(groups)
    found = {}
    for batch in planned(readings, share):
        width = batch.tokens.shape[1]
        for row, target, reading in zip(batch.row, batch.targets, batch.reading, strict=True):
            place = int(batch.rows[row])
            found[int(reading)] = seen_from(batch, place // width, place % width)
            if batch.positions is not None:
                last = batch.positions[place // width, place % width]
                assert int(last) == len(readings[reading].tokens) - 1
            assert int(target) == readings[reading].targets[0]
    assert found == {index: reading.tokens for index, reading in enumerate(readings)}


def test_a_shared_prefix_stands_once():
    readings = [Reading([1, 2, 3, 4, last], [9], (), 0, False) for last in (5, 6, 7)]
    (batch,) = planned(readings)
    assert batch.tokens.shape == (1, 7)
    alone = planned(readings, share=False)
    assert sum(batch.tokens.numel() for batch in alone) == 15


def test_choices_of_one_token_read_one_position():
    readings = [Reading([1, 2, 3], [last], (), 0, False) for last in (5, 6, 7)]
    (batch,) = planned(readings)
    assert batch.reach is None
    assert batch.rows.tolist() == [2]
    assert sorted(batch.targets.tolist()) == [5, 6, 7]


def test_ends_are_one_more_target():
    (batch,) = planned([Reading([1, 2, 8], [8], (4, 5), 0, False)])
    assert batch.rows.tolist() == [1, 2]
    assert batch.targets.tolist() == [8, -1]
    assert [each.tolist() for each in batch.ends] == [[4, 5]]


def test_budgets_hold_and_the_longest_come_first():
    readings = [Reading([1] * length, [2], (), length, False) for length in range(1, 30)]
    batches = planned(readings)
    assert all(batch.tokens.numel() <= 40 for batch in batches)
    widths = [batch.tokens.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)
    bounded = planned(readings, batch_tokens=10**6, vocabulary=2**24)
    assert max(len(batch.rows) for batch in bounded) == 4


def test_long_readings_stand_alone_where_attention_slides():
    readings = [Reading([1] * 8 + [last], [9], (), 0, False) for last in (5, 6)]
    assert all(batch.reach is None for batch in planned(readings, longest_shared=8))
    assert planned(readings, longest_shared=9)[0].reach is not None


def test_rows_with_and_without_branches_are_kept_apart():
    readings = [Reading([1, 2, last], [9], (), 0, False) for last in (5, 6)]
    readings.append(Reading([1, 2, 3, 4], [9], (), 1, False))
    assert [batch.reach is None for batch in planned(readings)] == [True, False]


def test_answers_share_what_they_begin_with():
    readings = [
        Reading([1, 2, 3, 4, 5, 6, 7], [7, 8], (), 0, False),
        Reading([1, 2, 3, 4, 5, 9, 7], [7, 8], (), 0, False),
        Reading([1, 2, 8], [8, 8], (), 0, False),
    ]
    (batch,) = planned(readings)
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7, 9, 7, 8]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 5, 6, 2]]


@given(st.lists(sequences, min_size=1, max_size=12))
def test_few_shot_examples_are_read_once_and_seen_by_all(questions):
    opening = [4] * 300
    readings = [Reading([*opening, *q], [9], (), n, False) for n, q in enumerate(questions)]
    found = {}
    batches = planned(readings, batch_tokens=100)
    for batch in batches:
        width = batch.tokens.shape[1]
        for row, reading in zip(batch.row, batch.reading, strict=True):
            place = int(batch.rows[row])
            found[int(reading)] = seen_from(batch, place // width, place % width)
    assert found == {n: [*opening, *q] for n, q in enumerate(questions)}
    if len(questions) > 1:
        assert all(batch.preamble is batches[0].preamble for batch in batches)
        assert batches[0].preamble.shape[1] >= 300

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from evomerge.candidate.trial import Target
from evomerge.search.teachers import from_bytes, of_items, to_bytes

GENERATOR = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape).astype(np.float16)


def likeliest(positions: int) -> Target:
    tokens = GENERATOR.integers(0, 1000, (positions, 4)).astype(np.int32)
    return Target(numbers(positions, 4), tokens, numbers(positions))


@pytest.mark.parametrize(
    "targets",
    [
        [likeliest(3), None, likeliest(1)],
        [Target(numbers(2, 7)), None, Target(numbers(5, 7))],
        [Target(numbers(1, 4)), Target(numbers(1, 2))],  # multiple choice
        [None, None],
        [Target(numbers(1, 4)), likeliest(3), None, Target(numbers(1, 2)), likeliest(1)],  # a group
        [likeliest(2), Target(numbers(1, 4))],
    ],
)
def test_targets_come_back_exactly(targets: list[Target | None]) -> None:
    found = from_bytes(to_bytes(targets))
    assert [one is None for one in found] == [one is None for one in targets]
    for one, other in zip(found, targets, strict=True):
        if one is None or other is None:
            continue
        for part in ("logprobs", "tokens", "rest"):
            mine, theirs = getattr(one, part), getattr(other, part)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)


def test_targets_kept_before_items_said_whether_they_have_tokens_are_read() -> None:
    for targets in ([likeliest(3), None, likeliest(1)], [None, Target(numbers(1, 4))]):
        kept = load(to_bytes(targets))
        del kept["named"]
        for one, other in zip(from_bytes(save(kept)), targets, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                np.testing.assert_array_equal(one.logprobs, other.logprobs)
                assert (one.tokens is None) == (other.tokens is None)


def test_targets_of_chosen_items_are_in_their_order() -> None:
    known = [likeliest(1), None, likeliest(2)]
    assert of_items({"a": known}, {"a": (0, 2), "b": (1,)}) == {"a": [known[0], known[2]]}

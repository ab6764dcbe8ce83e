from hypothesis import given
from hypothesis import strategies as st

from evomerge.space import codes


def test_each_choice_is_a_dimension():
    assert codes.names(["ties"], [], False) == []
    assert codes.names(["ties", "linear"], ["a", "b"], True) == [
        "method/ties", "method/linear", "use/a", "use/b", "mask_seed",
    ]  # fmt: skip


def test_the_highest_score_chooses_the_first_of_equals():
    assert codes.chosen(["x"], {}) == "x"
    assert codes.chosen(["x", "y"], {"method/x": 0.2, "method/y": 0.3}) == "y"
    assert codes.chosen(["x", "y"], {"method/x": 0.3, "method/y": 0.3}) == "x"
    assert codes.chosen(["x", "y", "z"], codes.choosing(["x", "y", "z"], "y")) == "y"
    assert codes.choosing(["x"], "x") == {}


def test_an_expert_takes_part_from_one_half_on_and_one_at_least_does():
    def part(*values):
        return codes.taking_part("abc", {f"use/{e}": v for e, v in zip("abc", values, strict=True)})

    assert part(0.5, 0.499, 1.0).tolist() == [1.0, 0.0, 1.0]
    assert part(0.1, 0.4, 0.2).tolist() == [0.0, 1.0, 0.0]
    assert part(0.0, 0.0, 0.0).tolist() == [1.0, 0.0, 0.0]


@given(st.integers(0, 2**20), st.floats(0, 1))
def test_a_mask_seed_depends_on_the_campaigns_seed_and_one_of_65536(seed, share):
    found = codes.seed_of_masks(seed, share)
    assert found % 2**32 == seed
    assert found >> 32 == min(int(share * 65536), 65535)


def test_at_0_the_seed_is_the_campaigns():
    assert codes.seed_of_masks(7, 0.0) == 7
    assert len({codes.seed_of_masks(7, k / 65536) for k in range(65536)}) == 65536

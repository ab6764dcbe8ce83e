from evomerge.space import choices


def test_each_choice_is_a_dimension():
    assert choices.names(["ties"], []) == []
    assert choices.names(["ties", "linear"], ["a", "b"]) == [
        "method/ties", "method/linear", "use/a", "use/b",
    ]  # fmt: skip


def test_the_highest_score_chooses_the_first_of_equals():
    assert choices.chosen(["x"], {}) == "x"
    assert choices.chosen(["x", "y"], {"method/x": 0.2, "method/y": 0.3}) == "y"
    assert choices.chosen(["x", "y"], {"method/x": 0.3, "method/y": 0.3}) == "x"
    assert choices.chosen(["x", "y", "z"], choices.choosing(["x", "y", "z"], "y")) == "y"
    assert choices.choosing(["x"], "x") == {}


def test_an_expert_takes_part_from_one_half_on_and_one_at_least_does():
    def part(*values):
        return choices.taking_part(
            "abc", {f"use/{e}": v for e, v in zip("abc", values, strict=True)}
        )

    assert part(0.5, 0.499, 1.0).tolist() == [1.0, 0.0, 1.0]
    assert part(0.1, 0.4, 0.2).tolist() == [0.0, 1.0, 0.0]
    assert part(0.0, 0.0, 0.0).tolist() == [1.0, 0.0, 0.0]

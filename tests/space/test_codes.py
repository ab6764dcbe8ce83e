from evomerge.space import codes


def test_each_choice_is_a_dimension():
    assert codes.names(["ties"], []) == []
    assert codes.names(["ties", "linear"], ["a", "b"]) == [
        "method/ties", "method/linear", "use/a", "use/b",
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

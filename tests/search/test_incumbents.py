from __future__ import annotations

from evomerge.candidate.trial import Outcome, Pruned
from evomerge.search.incumbents import Incumbents


def named(incumbents: Incumbents) -> list[str]:
    return [outcome.worker for outcome in incumbents.outcomes]


def note(incumbents: Incumbents, name: str, *values: float, missing: float = 0.0) -> None:
    incumbents.note(values, (missing,), Outcome(worker=name))


def test_one_objective_has_the_best_that_meets_the_constraints() -> None:
    best = Incumbents(["maximize"])
    assert best.outcomes == []
    note(best, "first", 0.5)
    note(best, "worse", 0.4)
    note(best, "equal", 0.5)
    assert named(best) == ["first"]
    note(best, "forbidden", 0.9, missing=0.1)
    assert named(best) == ["first"]
    note(best, "better", 0.6, missing=-0.1)
    assert named(best) == ["better"]


def test_who_was_given_up_is_no_incumbent() -> None:
    best = Incumbents(["maximize"])
    best.note((0.9,), (), Outcome(pruned=Pruned("behind", 2)))
    assert best.outcomes == []


def test_several_objectives_have_a_front_each_in_its_direction() -> None:
    front = Incumbents(["maximize", "minimize"])
    note(front, "a", 0.5, 2.0)
    note(front, "b", 0.6, 3.0)
    note(front, "covered", 0.5, 2.5)
    note(front, "twin", 0.6, 3.0)
    assert named(front) == ["a", "b"]
    note(front, "c", 0.6, 2.0)  # better than both
    assert named(front) == ["c"]


def test_of_a_large_front_the_latest_eight_are_rivals() -> None:
    front = Incumbents(["maximize", "maximize"])
    for n in range(12):
        note(front, str(n), float(n), float(-n))
    assert named(front) == [str(n) for n in range(4, 12)]

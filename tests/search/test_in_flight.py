from __future__ import annotations

from optuna.distributions import FloatDistribution

from evomerge.candidate import Merge
from evomerge.candidate.trial import Failure, FailureKind, Outcome, Pruned
from evomerge.search.in_flight import NEAR, InFlight

SPACE = {"a": FloatDistribution(0.0, 2.0), "b": FloatDistribution(1e-4, 1.0, log=True)}
DONE = Outcome(worker="here")


def recipe(weight: float, seed: int = 0) -> str:
    return Merge("linear", ("/m/one",), own={"weight": (((weight,),),)}, seed=seed).text()


def in_flight(*in_flight: tuple[int, float, float]) -> InFlight:
    found = InFlight(SPACE)
    for number, a, b in in_flight:
        assert found.start(number, {"a": a, "b": b}, recipe(a)) is None
    return found


def test_near_is_measured_in_shares_of_the_ranges() -> None:
    found = in_flight((0, 1.0, 0.01))
    assert found.is_near({"a": 1.0, "b": 0.01})
    assert found.is_near({"a": 1.0 + 2 * NEAR, "b": 0.01})  # root mean square over two dimensions
    assert not found.is_near({"a": 1.0 + 4 * NEAR, "b": 0.01})
    assert not found.is_near({"a": 1.0, "b": 0.011})
    assert not InFlight(SPACE).is_near({"a": 1.0, "b": 0.01})


def test_what_landed_is_in_nobodys_way() -> None:
    found = in_flight((0, 1.0, 0.01), (1, 0.5, 0.01))
    assert found.land(0, DONE) == []
    assert not found.is_near({"a": 1.0, "b": 0.01})
    assert found.is_near({"a": 0.5, "b": 0.01})


def test_a_recipe_that_was_scored_is_answered_by_its_first_outcome() -> None:
    found = in_flight((0, 1.0, 0.01))
    found.land(0, DONE)
    point = {"a": 1.0, "b": 0.01}
    assert found.start(1, point, recipe(1.0)) is DONE
    assert found.land(1, Outcome(worker="elsewhere")) == []
    assert found.start(2, point, recipe(1.0)) is DONE
    assert found.start(3, point, recipe(1.0, seed=1)) is None


def test_failures_and_partial_outcomes_answer_nobody() -> None:
    for outcome in (
        Outcome(failure=Failure(FailureKind.WORKER, "died")),
        Outcome(pruned=Pruned("behind", 1)),
    ):
        found = in_flight((0, 1.0, 0.01))
        found.land(0, outcome)
        assert found.start(1, {"a": 1.0, "b": 0.01}, recipe(1.0)) is None


def test_duplicates_wait_for_the_first_of_them() -> None:
    found = in_flight((0, 1.0, 0.01), (1, 0.5, 0.01))
    point = {"a": 1.0, "b": 0.01}
    assert not found.is_duplicate(0)
    assert not found.is_duplicate(1)
    for number in (2, 3):
        assert found.start(number, point, recipe(1.0)) is None
        assert found.is_duplicate(number)
    assert found.land(0, Outcome(pruned=Pruned("behind", 1))) == [2, 3]
    assert [found.land(number, DONE) for number in (2, 3, 1)] == [[], [], []]
    assert found.start(4, point, recipe(1.0)) is DONE


def test_a_candidate_is_evaluated_again_after_a_failure() -> None:
    found = in_flight((0, 1.0, 0.01))
    assert not found.is_duplicate(0)
    found.land(0, Outcome(failure=Failure(FailureKind.WORKER, "died")))
    assert found.start(1, {"a": 1.0, "b": 0.01}, recipe(1.0)) is None
    assert not found.is_duplicate(1)


def test_recipes_are_told_apart_to_the_last_bit() -> None:
    found = in_flight((0, 0.1, 0.01))
    found.land(0, DONE)
    point = {"a": 0.1, "b": 0.01}
    assert found.start(1, point, recipe(0.1)) is DONE
    assert found.start(2, point, recipe(0.1 + 2**-56)) is None
    zero = in_flight((0, 0.0, 0.01))
    zero.land(0, DONE)
    assert zero.start(1, point, recipe(-0.0)) is None


def test_places_survive_any_order_of_landings() -> None:
    found = InFlight(SPACE)
    places = {number: {"a": number / 20, "b": 0.01} for number in range(30)}
    for number, point in places.items():  # more than there is room for at first
        found.start(number, point, recipe(point["a"]))
    for number in (29, 0, 15, 7, 28, 1, 2, 27):
        found.land(number, DONE)
        del places[number]
        for other in range(30):
            assert found.is_near({"a": other / 20, "b": 0.01}) is (other in places)

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evomerge.candidate.trial import Estimate, Outcome, Pruned, Race, TaskScores
from evomerge.racing import blocks, completed, give_up

TASKS = ("a", "b", "c", "d")
ITEMS = 60
METRICS = dict.fromkeys(TASKS, "acc")


def race(rival: np.ndarray, expected: np.ndarray | None = None, **changes) -> Race:
    """Rival and expected: shape [tasks, items]."""
    ones = dict.fromkeys(TASKS, 1.0)
    made = Race(
        metrics=METRICS,
        weights=ones,
        signs=dict.fromkeys(TASKS, 1),
        best=ones,
        expected=values_of(rival if expected is None else expected),
        spread=dict.fromkeys(TASKS, 0.4),
        rivals=(values_of(rival),),
    )
    return replace(made, **changes)


def values_of(table: np.ndarray) -> dict[str, tuple[float, ...]]:
    return {task: tuple(row) for task, row in zip(TASKS, table.tolist(), strict=True)}


def scored(made: Race, table: np.ndarray, done: int) -> dict[str, TaskScores]:
    found = {}
    for task, row in zip(TASKS, table.tolist(), strict=True):
        positions = sorted(p for block in blocks(made)[:done] for p in block.get(task, ()))
        values = tuple(row[p] for p in positions)
        estimate = {"acc": Estimate(float(np.mean(values)))}
        found[task] = TaskScores(tuple(map(str, positions)), {"acc": values}, estimate)
    return found


def run(made: Race, table: np.ndarray) -> Outcome:
    for done in range(1, len(blocks(made)) + 1):
        scores = scored(made, table, done)
        pruned = give_up(made, scores, done)
        if pruned is not None:
            break
    return Outcome(scores, pruned=pruned)


def mean(outcome: Outcome) -> float:
    return float(np.mean([outcome.scores[task].values["acc"].value for task in TASKS]))


def draw(rng: np.random.Generator, *, lead: int):
    """Return what is expected, rival and candidate [tasks, items], the candidate so many items ahead."""
    expected = rng.beta(1.0, 1.0, (len(TASKS), ITEMS))
    rival = (rng.random(expected.shape) < expected).astype(float)
    candidate = (rng.random(expected.shape) < expected).astype(float)
    while (missing := lead - round(float((candidate - rival).sum()))) != 0:
        row, item = rng.integers(len(TASKS)), rng.integers(ITEMS)
        candidate[row, item] = float(missing > 0)
    return expected, rival, candidate


def share_given_up(lead: int, runs: int = 200) -> float:
    rng = np.random.default_rng(lead + 100)
    count = 0
    for number in range(runs):
        expected, rival, candidate = draw(rng, lead=lead)
        count += run(race(rival, expected, number=number), candidate).pruned is not None
    return count / runs


def test_an_equal_is_given_up_no_more_often_than_stated():
    assert share_given_up(lead=0) < 0.13  # 0.1, and a standard error and a half of 200 runs


def test_a_better_one_is_hardly_ever_given_up():
    assert share_given_up(lead=12) < 0.03


def test_a_copy_of_the_rival_is_never_given_up():
    _, rival, _ = draw(np.random.default_rng(0), lead=0)
    poor_guess = 1 - rival
    for number in range(20):
        assert run(race(rival, poor_guess, number=number), rival).pruned is None


def test_a_worse_one_is_given_up_after_part_of_the_items():
    rng = np.random.default_rng(0)
    outcomes = []
    for number in range(60):
        expected, rival, candidate = draw(rng, lead=-30)
        outcomes.append(run(race(rival, expected, number=number), candidate))
    assert np.mean([each.pruned is not None for each in outcomes]) > 0.9
    items = [sum(len(scores.items) for scores in each.scores.values()) for each in outcomes]
    assert np.mean(items) < 0.6 * len(TASKS) * ITEMS


def test_the_estimate_of_a_pruned_candidate_is_nearly_unbiased_and_better_than_the_mean():
    rng = np.random.default_rng(1)
    honest, naive = [], []
    for number in range(200):
        expected, rival, candidate = draw(rng, lead=-30)
        made = race(rival, expected, number=number)
        outcome = Outcome(scored(made, candidate, 2), pruned=Pruned("behind", 2))
        honest.append(mean(completed(made, outcome)) - candidate.mean())
        naive.append(mean(outcome) - candidate.mean())
    assert abs(np.mean(honest)) < 0.01
    assert np.std(honest) < 0.95 * np.std(naive)


def test_a_candidate_with_nothing_right_is_worth_nothing():
    expected, rival, _ = draw(np.random.default_rng(2), lead=0)
    made = race(rival, expected)
    outcome = Outcome(scored(made, 0 * rival, 1), pruned=Pruned("behind", 1))
    assert mean(completed(made, outcome)) == 0.0


def test_continuous_metrics_lower_better_and_unlike_weights():
    rng = np.random.default_rng(2)
    signs = {"a": 1, "b": -1, "c": 1, "d": 1}
    upward = np.array([[signs[task]] for task in TASKS])
    rival = -upward * rng.gamma(2.0, 0.5, (len(TASKS), ITEMS))
    worse = rival * rng.lognormal(0.5, 0.3, rival.shape)
    made = race(rival, signs=signs, best=dict.fromkeys(TASKS, 0.0))
    outcome = run(made, worse)
    assert outcome.pruned is not None
    assert outcome.pruned.blocks < made.blocks
    estimates = completed(made, outcome).scores
    for task, row in zip(TASKS, worse, strict=True):
        assert estimates[task].values["acc"].value == pytest.approx(row.mean(), abs=0.4)
    better = rival * rival / worse
    assert run(made, better).pruned is None
    # Better on task a, which is all that counts: it goes on.
    mixed = np.vstack([better[:1], worse[1:]])
    assert run(made, mixed).pruned is not None
    weights = {"a": 100.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert run(replace(made, weights=weights), mixed).pruned is None


def test_with_several_objectives_all_have_to_be_worse_than_one_rival():
    rng = np.random.default_rng(3)
    rival = (rng.random((len(TASKS), ITEMS)) < 0.9).astype(float)
    poor = rival * (rng.random(rival.shape) < 0.4)
    best_on_a = np.vstack([np.ones((1, ITEMS)), poor[1:]])
    made = race(rival, pareto=True)
    assert run(made, poor).pruned is not None
    assert run(made, best_on_a).pruned is None
    assert run(replace(made, pareto=False), best_on_a).pruned is not None
    both = replace(made, rivals=(values_of(poor), values_of(rival)))
    pruned = run(both, poor).pruned
    assert pruned is not None
    assert pruned.rival == 1


def test_no_verdict_before_the_first_block_after_the_last_or_on_what_is_no_number():
    rival = np.ones((len(TASKS), ITEMS))
    made = race(rival)
    nothing = 0 * rival
    assert give_up(made, {}, 0) is None
    assert give_up(made, scored(made, nothing, 8), 8) is None
    first = give_up(made, scored(made, nothing, 1), 1)
    assert first is not None
    assert first.reason == "significantly worse than the best so far, after 30 of 240 items"
    unknown = np.where(np.arange(ITEMS) < 30, math.nan, nothing)
    assert run(made, unknown).pruned is None
    assert give_up(replace(made, rivals=()), scored(made, nothing, 1), 1) is None


def test_a_value_that_should_not_be_possible_ends_the_race():
    rival = np.ones((len(TASKS), ITEMS))
    candidate = 0 * rival
    assert run(race(rival), candidate).pruned is not None
    candidate[:, ::4] = 1.5  # the bound does not hold, and what is left might be anything
    assert run(race(rival), candidate).pruned is None
    assert run(race(2 * rival), 0 * rival).pruned is None


def test_a_small_task_may_be_scored_before_the_others():
    sizes = {"a": 2, "b": 60}
    ones = dict.fromkeys(sizes, 1.0)
    values = {task: (1.0,) * size for task, size in sizes.items()}
    made = Race(
        {"a": "acc", "b": "acc"},
        ones,
        {"a": 1, "b": 1},
        ones,
        values,
        ones,
        3,
        0,
        0,
        (values,),
        True,
    )
    made = next(one for n in range(99) if len(blocks(one := replace(made, number=n))[0]["a"]) == 2)
    count = sum(len(block["b"]) for block in blocks(made)[:2])
    scores = {
        "a": TaskScores(("0", "1"), {"acc": (1.0, 0.0)}, {}),
        "b": TaskScores(tuple(map(str, range(count))), {"acc": (0.0,) * count}, {}),
    }
    assert give_up(made, scores, 2) is not None
    equal_on_a = {**scores, "a": TaskScores(("0", "1"), {"acc": (1.0, 1.0)}, {})}
    assert give_up(made, equal_on_a, 2) is None


def test_a_full_outcome_needs_no_estimate():
    rival = np.ones((len(TASKS), ITEMS))
    made = race(rival)
    full = Outcome(scored(made, rival, 8))
    assert completed(made, full) is full

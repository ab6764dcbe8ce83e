from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evomerge.racing import block_order, completed, give_up
from evomerge.trial import Estimate, Outcome, Pruned, Race, TaskScores

TASKS = ("a", "b", "c", "d")
ITEMS = 60
METRICS = dict.fromkeys(TASKS, "acc")


def race(rival: np.ndarray, spread: np.ndarray, **changes) -> Race:
    """Rival and spread: shape [tasks, items]."""
    disagreement = {task: tuple(row) for task, row in zip(TASKS, spread.tolist(), strict=True)}
    weights = dict.fromkeys(TASKS, 1.0)
    made = Race(
        blocks=block_order(disagreement, weights),
        metrics=METRICS,
        weights=weights,
        signs=dict.fromkeys(TASKS, 1),
        disagreement=disagreement,
        rivals=(values_of(rival),),
    )
    return replace(made, **changes)


def values_of(table: np.ndarray) -> dict[str, tuple[float, ...]]:
    return {task: tuple(row) for task, row in zip(TASKS, table.tolist(), strict=True)}


def scored(made: Race, table: np.ndarray, done: int) -> dict[str, TaskScores]:
    found = {}
    for task, row in zip(TASKS, table.tolist(), strict=True):
        positions = sorted(p for block in made.blocks[:done] for p in block.get(task, ()))
        values = tuple(row[p] for p in positions)
        estimate = {"acc": Estimate(float(np.mean(values)))}
        found[task] = TaskScores(tuple(map(str, positions)), {"acc": values}, estimate)
    return found


def run(made: Race, table: np.ndarray) -> Outcome:
    for done in range(1, len(made.blocks) + 1):
        scores = scored(made, table, done)
        pruned = give_up(made, scores, done)
        if pruned is not None:
            break
    return Outcome(scores, pruned=pruned)


def mean(outcome: Outcome) -> float:
    return float(np.mean([outcome.scores[task].values["acc"].value for task in TASKS]))


def draw(rng: np.random.Generator, *, lead: int | None, gap: float = 0.0):
    """Disagreement, rival and candidate [tasks, items].

    They differ on items in proportion to disagreement; `lead`: exactly so many more wins than losses,
    else each difference is a loss with probability (1 + gap) / 2.
    """
    spread = rng.beta(0.7, 2.0, (len(TASKS), ITEMS)) + 0.02
    differs = rng.random(spread.shape) < np.minimum(spread * 0.6, 1)
    where = np.flatnonzero(differs.ravel())
    signs = np.where(rng.random(len(where)) < (1 + gap) / 2, -1.0, 1.0)
    if lead is not None:
        where = where[: len(where) // 2 * 2]
        half = len(where) // 2
        signs = rng.permutation(np.repeat([1.0, -1.0], [half + lead // 2, half - lead // 2]))
    difference = np.zeros(spread.size)
    difference[where] = signs
    difference = difference.reshape(spread.shape)
    rival = (rng.random(spread.shape) < 0.6).astype(float)
    rival = np.where(difference > 0, 0.0, np.where(difference < 0, 1.0, rival))
    return spread, rival, rival + difference


def share_given_up(lead: int, runs: int = 300) -> float:
    rng = np.random.default_rng(lead)
    count = 0
    for _ in range(runs):
        spread, rival, candidate = draw(rng, lead=lead)
        count += run(race(rival, spread), candidate).pruned is not None
    return count / runs


def test_an_equal_is_given_up_no_more_often_than_stated():
    assert 0.02 < share_given_up(lead=0) < 0.13  # 0.1, and two standard errors of 300 runs


def test_a_better_one_is_hardly_ever_given_up():
    assert share_given_up(lead=10) < 0.02


def test_a_worse_one_is_given_up_after_part_of_the_items():
    rng = np.random.default_rng(0)
    made = [draw(rng, lead=None, gap=0.5) for _ in range(100)]
    outcomes = [run(race(rival, spread), candidate) for spread, rival, candidate in made]
    assert np.mean([each.pruned is not None for each in outcomes]) > 0.9
    items = [sum(len(scores.items) for scores in each.scores.values()) for each in outcomes]
    assert np.mean(items) < 0.6 * len(TASKS) * ITEMS


def test_the_estimate_of_a_pruned_candidate_is_nearly_unbiased():
    rng = np.random.default_rng(1)
    honest, naive = [], []
    for _ in range(300):
        spread, rival, candidate = draw(rng, lead=None, gap=0.5)
        made = race(rival, spread)
        outcome = Outcome(scored(made, candidate, 2), pruned=Pruned("behind", 2))
        truth = candidate.mean()
        honest.append(mean(completed(made, outcome)) - truth)
        naive.append(mean(outcome) - truth)
    assert abs(np.mean(naive)) > 0.02
    assert abs(np.mean(honest)) < abs(np.mean(naive)) / 4
    assert np.std(honest) < 0.05


def test_continuous_metrics_lower_better_and_unlike_weights():
    rng = np.random.default_rng(2)
    spread = rng.gamma(1.0, 1.0, (len(TASKS), ITEMS)) + 0.05
    rival = rng.standard_normal(spread.shape)
    signs = {"a": 1, "b": -1, "c": 1, "d": 1}
    upward = np.array([[signs[task]] for task in TASKS])
    worse = rival - upward * spread * (0.4 + 0.5 * rng.standard_normal(spread.shape))
    made = race(rival, spread, signs=signs)
    outcome = run(made, worse)
    assert outcome.pruned is not None
    assert outcome.pruned.blocks < len(made.blocks)
    estimates = completed(made, outcome).scores
    for task, row in zip(TASKS, worse, strict=True):
        assert estimates[task].values["acc"].value == pytest.approx(row.mean(), abs=0.25)
    better = 2 * rival - worse
    assert run(made, better).pruned is None
    # Better on task a, which is all that counts: it goes on.
    mixed = np.vstack([better[:1], worse[1:]])
    assert run(made, mixed).pruned is not None
    weights = {"a": 100.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert run(replace(made, weights=weights), mixed).pruned is None


def test_with_several_objectives_all_have_to_be_worse_than_one_rival():
    rng = np.random.default_rng(3)
    spread = np.full((len(TASKS), ITEMS), 0.5)
    rival = (rng.random(spread.shape) < 0.9).astype(float)
    poor = rival * (rng.random(spread.shape) < 0.4)
    best_on_a = np.vstack([np.ones((1, ITEMS)), poor[1:]])
    made = race(rival, spread, pareto=True)
    assert run(made, poor).pruned is not None
    assert run(made, best_on_a).pruned is None
    assert run(replace(made, pareto=False), best_on_a).pruned is not None
    both = replace(made, rivals=(values_of(poor), values_of(rival)))
    pruned = run(both, poor).pruned
    assert pruned is not None
    assert pruned.rival == 1
    assert "every objective" in pruned.reason


def test_no_verdict_before_the_first_block_after_the_last_or_on_what_is_no_number():
    rival, spread = np.ones((len(TASKS), ITEMS)), np.full((len(TASKS), ITEMS), 0.5)
    made = race(rival, spread)
    nothing = 0 * rival
    assert give_up(made, {}, 0) is None
    assert give_up(made, scored(made, nothing, 5), 5) is None
    first = give_up(made, scored(made, nothing, 1), 1)
    assert first is not None
    assert first.reason.startswith("behind the best so far by about 1, after 48 of 240 items")
    unknown = np.where(np.arange(ITEMS) == 0, math.nan, nothing)
    assert run(made, unknown).pruned is None
    assert give_up(replace(made, rivals=()), scored(made, nothing, 1), 1) is None


def test_a_small_task_may_be_scored_before_the_others():
    blocks = (
        {"a": (0, 1), "b": (0, 1, 2)},
        {"b": tuple(range(3, 20))},
        {"b": tuple(range(20, 60))},
    )
    made = Race(
        blocks,
        {"a": "acc", "b": "acc"},
        {"a": 1.0, "b": 1.0},
        {"a": 1, "b": 1},
        {"a": (0.5, 0.5), "b": (0.5,) * 60},
        ({"a": (1.0, 1.0), "b": (1.0,) * 60},),
        pareto=True,
    )
    scores = {
        "a": TaskScores(("0", "1"), {"acc": (1.0, 0.0)}, {}),
        "b": TaskScores(tuple(map(str, range(20))), {"acc": (0.0,) * 20}, {}),
    }
    assert give_up(made, scores, 2) is not None
    equal_on_a = {**scores, "a": TaskScores(("0", "1"), {"acc": (1.0, 1.0)}, {})}
    assert give_up(made, equal_on_a, 2) is None


def test_a_full_outcome_needs_no_estimate():
    rival, spread = np.ones((len(TASKS), ITEMS)), np.full((len(TASKS), ITEMS), 0.5)
    made = race(rival, spread)
    full = Outcome(scored(made, rival, 5))
    assert completed(made, full) is full

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from evomerge.search.samplers.descent import CHECKPOINTS, FIRST_STEP
from evomerge.search.samplers.gradient import AROUND, DescentSampler, shares_of
from evomerge.search.samplers.sampler import Measurement, Params, Problem

SPACE = {name: FloatDistribution(0.0, 1.0) for name in "abc"}
BEST = {"a": 0.7, "b": 0.3, "c": 0.6}


def loss(params: Params) -> float:
    return sum((params[name] - best) ** 2 for name, best in BEST.items())


def result(params: Params, objectives: int = 1) -> Measurement:
    return Measurement((-loss(params),) * objectives, loss(params))


def gradients(params: Params) -> dict[str, float]:
    return {name: 2 * (params[name] - BEST[name]) for name in "ab"}  # c has none


def sampler(trials: int = 40, objectives: int = 1) -> DescentSampler:
    tasks = [f"t{n}" for n in range(objectives)]
    directions = ("maximize",) * objectives
    gold, weights = dict.fromkeys(tasks, 40), dict.fromkeys(tasks, 1.0)
    return DescentSampler(Problem(SPACE, directions, trials, 0, ("a", "b"), gold, weights))


def follow(
    one: DescentSampler, trials: int, fail_at: int | None = None, objectives: int = 1
) -> list[dict[str, float]]:
    """One worker: steps and trials as they come; return the trials' points."""
    found: list[dict[str, float]] = []
    steps = 0
    while len(found) < trials:
        step = one.next_step()
        if step is not None:
            one.step_asked(step)
            one.step_told(step.descent, None if steps == fail_at else gradients(step.params))
            steps += 1
            continue
        number = len(found)
        params = one.propose(number)
        one.asked(number, params)
        one.told(number, params, result(params, objectives))
        found.append(params)
    return found


def test_it_begins_at_the_best_point_known() -> None:
    one = sampler()
    for at in (0.1, 0.4, 0.9):
        one.known(dict.fromkeys(SPACE, at), result(dict.fromkeys(SPACE, at)))
    step = one.next_step()
    assert step is not None
    assert step.params == dict.fromkeys(SPACE, 0.4)
    assert (step.descent, step.number, step.shares) == (0, 0, {"t0": 1.0})
    assert sampler().next_step().params == dict.fromkeys(SPACE, 0.5)  # type: ignore[union-attr]


def test_checkpoints_are_trials_and_then_cmaes_goes_on_around_the_best_in_small_steps() -> None:
    one = sampler()
    points = follow(one, 40)
    checkpoints, after = points[: len(CHECKPOINTS)], points[len(CHECKPOINTS) :]
    assert all(point["c"] == 0.5 for point in checkpoints)  # no gradient, no move
    assert loss(checkpoints[-1]) < 0.011  # c is 0.1 off
    best = np.array(list(min(checkpoints, key=loss).values()))
    early = np.array([list(point.values()) for point in after[:7]]) - best  # λ = 7: no update yet
    assert 0.5 * AROUND < early.std() < 1.5 * AROUND
    assert min(map(loss, after)) < min(map(loss, checkpoints))


def test_a_failed_step_ends_the_path_and_the_other_sampler_takes_over() -> None:
    one = sampler()
    points = follow(one, 10, fail_at=7)
    assert [path.steps for path in one._paths] == [7]
    assert all(point["c"] != 0.5 for point in points[1:])


def test_a_worse_checkpoint_makes_shorter_steps() -> None:
    one = sampler()
    told = 0
    while told < 2:
        step = one.next_step()
        if step is not None:
            one.step_asked(step)
            one.step_told(step.descent, gradients(step.params))
        else:
            params = one.propose(told)
            one.asked(told, params)
            one.told(told, params, Measurement((0.0,), float(told)))
            told += 1
    assert one._paths[0].length == FIRST_STEP / 2


def test_a_long_search_follows_two_paths_in_turn_from_points_of_their_own() -> None:
    one = sampler(trials=50)
    for at in (0.1, 0.4):
        one.known(dict.fromkeys(SPACE, at), result(dict.fromkeys(SPACE, at)))
    follow(one, 12)
    assert len(one._paths) == 2
    assert one._paths[0].start != one._paths[1].start
    assert len(sampler(trials=49)._paths) == 0
    short = sampler(trials=49)
    follow(short, 12)
    assert len(short._paths) == 1


def test_every_share_of_a_front_has_a_path() -> None:
    one = sampler(objectives=2)
    follow(one, 20, objectives=2)
    shares = [tuple(path.shares.values()) for path in one._paths]
    assert shares[0] == (0.5, 0.5)
    assert len(set(shares)) == 4
    assert all(sum(share) == pytest.approx(1.0) for share in shares)


def test_idle_workers_get_paths_of_their_own_eight_at_most_and_then_other_candidates() -> None:
    one = sampler()
    steps = []
    while (step := one.next_step()) is not None:
        one.step_asked(step)
        steps.append(step.descent)
    assert steps == list(range(8))
    params = one.propose(0)
    one.asked(0, params)
    assert params not in [path.start for path in one._paths]


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_trial_beside_the_paths_may_be_told_after_them(objectives: int) -> None:
    one = sampler(objectives=objectives)
    while (step := one.next_step()) is not None:
        one.step_asked(step)
    late = one.propose(0)
    one.asked(0, late)
    for path in list(one._paths):
        one.step_told(path.index, None)
    after = one.propose(1)
    one.asked(1, after)
    for number, params in ((0, late), (1, after)):
        one.told(number, params, result(params, objectives))
    assert set(one.propose(2)) == set(SPACE)


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("workers", [1, 12])
def test_replayed_calls_rebuild_it(workers: int, objectives: int) -> None:
    live, again = sampler(60, objectives), sampler(60, objectives)
    order, running, number = random.Random(2), [], 0
    for _ in range(400):
        while len(running) < workers:
            step = live.next_step()
            if step is not None:
                live.step_asked(step)
                same = again.step(step.descent, step.number, step.params, step.items)
                assert same == step
                again.step_asked(same)
                running.append(step)
            else:
                params = live.propose(number)
                live.asked(number, params)
                again.asked(number, params)
                running.append((number, params))  # type: ignore[arg-type]
                number += 1
        done = running.pop(order.randrange(len(running)))
        for one in (live, again):
            if isinstance(done, tuple):
                one.told(*done, None if done[0] % 7 == 6 else result(done[1], objectives))
            else:
                one.step_told(done.descent, gradients(done.params))
    assert number > 60
    assert again.next_step() == live.next_step()
    assert again.propose(number) == live.propose(number)


def test_paths_to_a_front_of_the_mean_and_costs_have_the_tasks_own_weights() -> None:
    front = Problem(
        {"x": FloatDistribution(0.0, 1.0)}, ("maximize", "minimize"), weights={"a": 3.0, "b": 1.0}
    )
    assert len(shares_of(front)) > 1
    assert shares_of(replace(front, tasks_apart=False)) == [{"a": 0.75, "b": 0.25}]

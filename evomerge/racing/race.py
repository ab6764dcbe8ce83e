"""After each block: can the candidate still win, and if not, what is it worth?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evomerge.racing.sign_flip import fractions_of, levels, p_value
from evomerge.trial import Estimate, Outcome, Pruned, Race, TaskScores

Differences = dict[str, NDArray[np.float64]]


def give_up(race: Race, scores: Mapping[str, TaskScores], done: int) -> Pruned | None:
    """Test whether a candidate can still win.

    One that is as good as its rivals on all items is given up with probability `race.alpha` at most,
    over all looks together. With several objectives a candidate is given up only if one rival is better
    in every one of them, each tested at the level of the look (an intersection-union test); the budget
    is shared out among the rivals.

    Args:
        race: Whom it has to beat.
        scores: Of the items in the first `done` blocks.
        done: Blocks that are scored.

    Returns:
        None: it can still win, or everything is scored, or a score is not finite, which is not for a
        race to judge.
    """
    if not 0 < done < len(race.blocks):
        return None
    tasks = tuple(race.metrics)
    goals = [(task,) for task in tasks] if race.pareto else [tasks]
    for number in range(len(race.rivals)):
        found = _differences(race, scores, done, number)
        if not all(np.isfinite(each).all() for each in found.values()):
            return None
        if all(_is_behind(race, found, done, goal) for goal in goals):
            return Pruned(_reason(race, found, done), done, number)
    return None


def completed(race: Race, outcome: Outcome) -> Outcome:
    """Put an estimate over all items in place of a pruned candidate's mean over the scored ones.

    The scored items are no fair sample: models disagree most on them. So the estimate is the rival's
    value plus the mean difference, an unscored item's difference predicted as the mean scored one times
    the ratio of their disagreement: the separate ratio estimator (Cochran, Sampling Techniques, 3rd
    edition, 1977, section 6.10), tasks as strata and disagreement as the auxiliary variate.

    Args:
        race: The race that was stopped.
        outcome: What came of it; one that is not pruned is returned as it is.

    Returns:
        The outcome with the searched metric's `values` replaced; per-item scores and the other metrics
        stay those of the scored items.
    """
    if outcome.pruned is None:
        return outcome
    done, rival = outcome.pruned.blocks, outcome.pruned.rival
    found = _differences(race, outcome.scores, done, rival)
    scores = dict(outcome.scores)
    for task, metric in race.metrics.items():
        ahead = race.signs[task] * _mean_difference(race, found, done, task)
        value = float(np.mean(race.rivals[rival][task])) + ahead
        old = scores[task]
        scores[task] = replace(old, values={**old.values, metric: Estimate(value)})
    return replace(outcome, scores=scores)


def _is_behind(race: Race, found: Differences, done: int, goal: tuple[str, ...]) -> bool:
    """Whether the weighted mean over these tasks is below the rival's beyond doubt."""
    scales = {task: race.weights[task] / len(race.disagreement[task]) for task in goal}
    shares = [
        sum(
            scales[task] ** 2 * sum(race.disagreement[task][item] for item in block.get(task, ()))
            for task in goal
        )
        for block in race.blocks
    ]
    looks = fractions_of(shares)
    contributions = np.concatenate([scales[task] * found[task] for task in goal])
    if float(contributions.sum()) >= 0:
        return False
    if looks[done - 1] >= 1:  # nothing of these tasks is left to score
        return True
    before_all = tuple(look for look in looks if look < 1)
    level = levels(before_all, race.alpha / len(race.rivals))[done - 1]
    return p_value(contributions, looks[done - 1]) <= level


def _differences(
    race: Race, scores: Mapping[str, TaskScores], done: int, rival: int
) -> Differences:
    """Candidate minus rival, higher is better, on the scored items of each task in their order."""
    found = {}
    for task, metric in race.metrics.items():
        theirs = np.array(race.rivals[rival][task], dtype=np.float64)[_scored(race, done, task)]
        own = scores[task].metrics[metric] if task in scores else ()
        found[task] = race.signs[task] * (np.array(own, dtype=np.float64) - theirs)
    return found


def _scored(race: Race, done: int, task: str) -> list[int]:
    return sorted(item for block in race.blocks[:done] for item in block.get(task, ()))


def _mean_difference(race: Race, found: Differences, done: int, task: str) -> float:
    """Estimate the mean difference over all items of a task."""
    spread = np.array(race.disagreement[task], dtype=np.float64)
    scored = float(spread[_scored(race, done, task)].sum())
    if scored == 0:  # none of its items is scored yet
        return 0.0
    return float(found[task].sum()) * float(spread.sum()) / scored / len(spread)


def _reason(race: Race, found: Differences, done: int) -> str:
    total = sum(race.weights.values())
    behind = -sum(
        race.weights[task] * _mean_difference(race, found, done, task) for task in race.metrics
    )
    scored = sum(map(len, found.values()))
    items = sum(map(len, race.disagreement.values()))
    where = "in every objective, on average" if race.pareto else "about"
    return (
        f"behind the best so far by {where} {behind / total:.3g}, after {scored} of {items} items"
    )

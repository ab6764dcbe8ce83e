"""How often racing gives up a candidate that is as good as the best so far, and what it saves.

    python -m benchmarks.search.racing_error [--runs 1000]

Candidates are made up that have exactly the incumbent's total over all items, of every kind that could
fool a test: differences where known models differ and where none does, hardly any, a few large ones
against many small, gains of the hardest items only, unlike weights. What is expected of an item is
estimated from few known models, as in a campaign. 0/1 values and log-likelihoods; one task or five;
64 or 320 items in all; 6 or 14 known models; eight blocks. `given up` is the share of such candidates that
are given up before all items are scored (stated: at most 0.1). `used` is the share of items on which
candidates are scored that are worse by 0.1 of the items (or of the spread of log-likelihoods).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate.trial import Estimate, Outcome, Race, TaskScores
from evomerge.racing import blocks, expectation, give_up

Table = NDArray[np.float64]  # [items], or [models, items]
Draw = Callable[[np.random.Generator, Table, bool], Table]
"""(generator, incumbent, binary) → a candidate's values, of the incumbent's total."""

METRICS = {True: "acc", False: "gold_loglikelihood"}


def typical(rng: np.random.Generator, incumbent: Table, binary: bool) -> Table:
    """Differ on a third of the items."""
    return _level(rng, incumbent, binary, share=0.33)


def few(rng: np.random.Generator, incumbent: Table, binary: bool) -> Table:
    """Differ on four items only."""
    return _level(rng, incumbent, binary, share=4 / len(incumbent))


def many(rng: np.random.Generator, incumbent: Table, binary: bool) -> Table:
    """Differ wherever the total allows."""
    return _level(rng, incumbent, binary, share=1.0)


def large(rng: np.random.Generator, incumbent: Table, binary: bool) -> Table:
    """Lose a little nearly everywhere, and gain it back on the two hardest items.

    Values of 0 and 1 have no large differences: lose on two items, and gain on two.
    """
    if binary:
        return few(rng, incumbent, binary)
    hardest = np.argsort(incumbent)[:2]
    candidate = incumbent.copy()
    candidate[hardest] = 0.0
    rest = np.setdiff1d(np.arange(len(incumbent)), hardest)
    candidate[rest] += incumbent[hardest].sum() / len(rest)
    return candidate


DRAWS: dict[str, Draw] = {"typical": typical, "few": few, "many": many, "large": large}


def known_models(
    rng: np.random.Generator, models: int, items: int, *, binary: bool, agree: bool
) -> Table:
    """Return values of [models, items]; those of `agree` differ on no item."""
    difficulty = rng.normal(0.0, 1.5, items)
    ability = rng.normal(0.5, 0.0 if agree else 0.7, models)
    noise = rng.logistic(size=(1 if agree else models, items))
    latent = ability[:, None] - difficulty[None] + noise
    return (latent > 0).astype(float) if binary else -np.logaddexp(0.0, -latent)


def race_of(known: Table, tasks: int, rng: np.random.Generator, *, binary: bool) -> Race:
    """Lay out the race of one campaign, the best known model as the incumbent."""
    names = [f"task {n}" for n in range(tasks)]
    metrics = dict.fromkeys(names, METRICS[binary])
    signs = dict.fromkeys(names, 1)
    parts = [scores_of(row, names, METRICS[binary]) for row in known]
    ids = {name: parts[0][name].items for name in names}
    expected, spread = expectation([Outcome(each) for each in parts], metrics, signs, ids)
    race = Race(
        metrics,
        dict.fromkeys(names, 1.0),
        signs,
        dict.fromkeys(names, 1.0 if binary else 0.0),
        expected,
        spread,
        seed=int(rng.integers(2**32)),
    )
    return _against(race, known[known.mean(axis=1).argmax()])


def scores_of(values: Table, names: list[str], metric: str) -> dict[str, TaskScores]:
    """Cut values of [items] into tasks of equal size."""
    found = {}
    for name, part in zip(names, np.split(values, len(names)), strict=True):
        ids = tuple(f"{name}/{n}" for n in range(len(part)))
        mean = {metric: Estimate(float(part.mean()))}
        found[name] = TaskScores(ids, {metric: tuple(part.tolist())}, mean)
    return found


def items_used(race: Race, candidate: Table) -> int:
    """Score a candidate block by block until it is given up; return on how many items it was scored."""
    names = list(race.metrics)
    values = dict(zip(names, np.split(candidate, len(names)), strict=True))
    where: dict[str, list[int]] = {name: [] for name in names}
    cut = blocks(race)
    for done, block in enumerate(cut, start=1):
        for name, positions in block.items():
            where[name] = sorted([*where[name], *positions])
        scores = {
            name: TaskScores((), {race.metrics[name]: tuple(values[name][where[name]])}, {})
            for name in names
        }
        if give_up(race, scores, done) is not None:
            break
    return sum(map(len, where.values()))


def share_given_up(
    draw: Draw,
    *,
    items: int,
    models: int,
    binary: bool,
    tasks: int = 1,
    agree: bool = False,
    runs: int = 300,
    candidates: int = 1,
    seed: int = 0,
) -> float:
    """Return the share of equally good candidates that are given up.

    Args:
        draw: Makes a candidate.
        items: In all tasks together.
        models: Known ones.
        binary: Whether values are 0 and 1, not log-likelihoods.
        tasks: Of equal size.
        agree: Whether no known model differs from another.
        runs: Campaigns.
        candidates: Of each campaign, one after the other; who is not given up is the next incumbent, so
            incumbents are themselves survivors of races.
        seed: Of the simulation.
    """
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(runs):
        known = known_models(rng, models, items, binary=binary, agree=agree)
        race = race_of(known, tasks, rng, binary=binary)
        incumbent = known[known.mean(axis=1).argmax()]
        for number in range(candidates):
            candidate = draw(rng, incumbent, binary)
            if items_used(replace(race, number=number), candidate) < items:
                wrong += 1
            else:
                incumbent, race = candidate, _against(race, candidate)
    return wrong / (runs * candidates)


def share_used(*, items: int, models: int, binary: bool, runs: int = 300, seed: int = 0) -> float:
    """Return the share of items that candidates cost which are worse by a tenth."""
    rng = np.random.default_rng(seed)
    used = 0
    for _ in range(runs):
        known = known_models(rng, models, items, binary=binary, agree=False)
        race = race_of(known, 1, rng, binary=binary)
        incumbent = known[known.mean(axis=1).argmax()]
        candidate = typical(rng, incumbent, binary)
        if binary:
            right = np.flatnonzero(candidate > 0)
            candidate[rng.choice(right, min(len(right), items // 10), replace=False)] = 0.0
        else:
            candidate -= 0.1 * incumbent.std()
        used += items_used(race, candidate)
    return used / (runs * items)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    shapes = [(items, models) for items in (64, 320) for models in (6, 14)]
    heads = [f"{items} items, {models} models" for items, models in shapes]
    print(
        f"| values | candidates | tasks | {' | '.join(heads)} |\n|" + " --- |" * (3 + len(shapes))
    )
    for binary in (True, False):
        values = "0/1" if binary else "log-likelihoods"
        for name, draw in DRAWS.items():
            if binary and draw is large:
                continue  # as few
            for tasks, agree in ((1, False), (4, False), (1, True)):
                cells = [
                    share_given_up(
                        draw,
                        items=items,
                        models=models,
                        binary=binary,
                        tasks=tasks,
                        agree=agree,
                        runs=runs,
                    )
                    for items, models in shapes
                ]
                where = ", where no known model differs" if agree else ""
                shown = " | ".join(f"{cell:.3f}" for cell in cells)
                print(f"| {values} | {name}{where} | {tasks} | {shown} |", flush=True)
        cells = [
            share_given_up(
                typical, items=items, models=models, binary=binary, runs=runs // 20, candidates=20
            )
            for items, models in shapes
        ]
        shown = " | ".join(f"{cell:.3f}" for cell in cells)
        print(f"| {values} | typical, survivors as incumbents | 1 | {shown} |", flush=True)
        used = [
            share_used(items=items, models=models, binary=binary, runs=runs)
            for items, models in shapes
        ]
        shown = " | ".join(f"{cell:.2f}" for cell in used)
        print(f"| {values} | used by those worse by 0.1 | 1 | {shown} |", flush=True)


def _against(race: Race, incumbent: Table) -> Race:
    names = list(race.metrics)
    parts = zip(names, np.split(incumbent, len(names)), strict=True)
    return replace(race, rivals=({name: tuple(part.tolist()) for name, part in parts},))


def _level(rng: np.random.Generator, incumbent: Table, binary: bool, share: float) -> Table:
    """Make a candidate of the incumbent's total that differs on about a share of the items."""
    candidate = incumbent.copy()
    if binary:
        right, wrong = np.flatnonzero(incumbent > 0), np.flatnonzero(incumbent == 0)
        count = min(len(right), len(wrong), max(1, round(share * len(incumbent) / 2)))
        candidate[rng.choice(right, count, replace=False)] = 0.0
        candidate[rng.choice(wrong, count, replace=False)] = 1.0
        return candidate
    chosen = rng.choice(len(incumbent), max(2, round(share * len(incumbent))), replace=False)
    moved = incumbent[chosen] * rng.lognormal(0.0, 1.0, len(chosen))
    candidate[chosen] = moved * (incumbent[chosen].sum() / moved.sum())
    return candidate


if __name__ == "__main__":
    main()

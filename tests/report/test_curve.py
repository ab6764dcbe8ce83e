from __future__ import annotations

from pathlib import Path

import numpy as np

from evomerge.candidate.trial import Gradients, Pruned
from evomerge.report.curve import Curve
from evomerge.report.material import Material
from evomerge.store import Store
from tests.report import studies
from tests.report.studies import BEGAN, NAMES, TASKS, outcome, tell


def curve(store: Store) -> Curve:
    return Material.of(store).curve


def test_the_best_so_far_is_that_of_the_complete_trials(tmp_path: Path) -> None:
    with studies.write(tmp_path / "out") as store:
        found, trials = curve(store), store.trials()
        steps = store.gradient_steps()
    assert [point.number for point in found.points] == [*range(30), None]
    values = [t.values[0] if t.state == "complete" and t.values else -np.inf for t in trials]
    best = np.maximum.accumulate(values)
    assert [point.best for point in found.points[:-1]] == best.tolist()
    assert found.points[-1].best == best[-1]
    shown = [None if t.values is None else t.values[0] for t in trials]
    assert [point.value for point in found.points[:-1]] == shown
    assert [point.trials for point in found.points] == [*range(1, 31), 30]
    costs = [t.outcome.cost.items for t in trials if t.outcome] + [s.cost_items for s in steps]
    assert [point.item_evaluations for point in found.points] == np.cumsum(costs).tolist()
    improved = [point.number for point in found.improvements]
    assert improved == [n for n in range(30) if values[n] > max([-np.inf, *values[:n]])]


def test_seconds_are_when_work_ended_without_interruptions(tmp_path: Path) -> None:
    with (
        studies.write(tmp_path / "one") as whole,
        studies.write(tmp_path / "two", "interrupted") as two,
    ):
        one, other = curve(whole), curve(two)
    assert [point.seconds for point in one.points[:4]] == [1.0, 1.0, 2.0, 2.0]
    assert one.points[-1].seconds == 17.0  # the step began with the 15th second and took two
    seconds = [point.seconds for point in other.points]
    assert seconds == sorted(seconds)
    assert max(seconds) < 40


def test_gradients_cost_items_and_no_trials(tmp_path: Path) -> None:
    with studies.create(tmp_path / "out") as store:
        store.gradient_asked(0, 0, {TASKS[0]: (0, 1)}, dict.fromkeys(NAMES, 0.5))
        store.gradient_told(0, 0, 1.0, dict.fromkeys(NAMES, 0.1), None, 6, Gradients(1.0))
        tell(store, 0, outcome("search", (10, 10)))
        first, second = curve(store).points
    assert (first.trials, first.item_evaluations, first.best, first.number) == (0, 6, None, None)
    assert (second.trials, second.item_evaluations, second.best) == (1, 46, 0.5)


def test_neither_estimates_nor_what_misses_a_constraint_is_the_best(tmp_path: Path) -> None:
    keep = [{"task": TASKS[0], "at_least": 0.9}]
    with studies.create(tmp_path / "out", keep=keep) as store:
        studies.record(store, "tools", "expert", "search", (10, 2))
        tell(store, 0, outcome("search", (10, 9)))
        tell(store, 1, outcome("search", (2, 20)))
        tell(store, 2, outcome("search", (5, 5), count=5, pruned=Pruned("worse", 1)))
        found = curve(store)
    assert [point.best for point in found.points] == [0.475] * 3
    assert [point.improved for point in found.points] == [True, False, False]


def test_the_best_within_a_budget(tmp_path: Path) -> None:
    with studies.create(tmp_path / "out") as store:
        for number, right in enumerate((4, 8, 6, 12)):
            tell(store, number, outcome("search", (right, right), began=BEGAN + number))
        found = curve(store)
    assert [found.best_at("trials", n) for n in (0, 1, 2, 3, 4, 9)] == [
        None,
        0.2,
        0.4,
        0.4,
        0.6,
        0.6,
    ]
    assert found.best_at("item_evaluations", 80) == 0.4
    assert found.best_at("seconds", 3.5) == 0.4
    assert [found.total(one) for one in ("trials", "item_evaluations", "seconds")] == [4, 160, 4]


def test_less_is_better_where_it_is_of_every_metric(tmp_path: Path) -> None:
    goals = [{"task": task, "metric": studies.METRIC} for task in TASKS]
    down = {**studies.FACTS, "higher_is_better": {t: {studies.METRIC: False} for t in TASKS}}
    with studies.create(tmp_path / "out", facts=down, objectives=goals) as store:
        for number, right in enumerate((4, 8, 2)):
            tell(store, number, outcome("search", (right, right)), values=[-right / 20])
        found = curve(store)
    assert not found.higher_is_better
    assert [point.value for point in found.points] == [0.2, 0.4, 0.1]
    assert [point.best for point in found.points] == [0.2, 0.2, 0.1]

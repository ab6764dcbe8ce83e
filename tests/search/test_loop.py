"""The loop over a fake pool: the fake family of `search/driver.py`, no models."""

import importlib.util
import sys
from collections import deque
from pathlib import Path

import pytest

from evomerge.candidate.trial import Failure, FailureKind, Gradients, Job, Jobs, Outcome, Outcomes
from evomerge.errors import CampaignStopped, EvomergeError
from evomerge.progress import NoDisplay
from evomerge.search import loop as exploring
from evomerge.search.loop import FIRST_CANDIDATES, explore
from evomerge.store import Store
from evomerge.workers.together import Together


@pytest.fixture(scope="module")
def driver():
    path = Path(__file__).parent / "driver.py"
    spec = importlib.util.spec_from_file_location("exploring_driver", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class FakePool:
    """Workers that finish at once, the newest work first or (ordered) the oldest."""

    def __init__(self, size, answer, ordered=False, at_once=1):
        self.size, self.answer, self.ordered, self.at_once = size, answer, ordered, at_once
        self.work, self.submitted, self.waited, self.left = deque(), [], [], 0

    @property
    def free(self):
        return self.size - len(self.work)

    def submit(self, work):
        assert self.free
        self.work.append(work)
        self.submitted.append(work)

    def next(self, timeout=None):
        if timeout is None:
            self.waited.append(self.free)
            self.left = self.at_once
        if not self.left or not self.work:
            raise TimeoutError
        self.left -= 1
        work = self.work.popleft() if self.ordered else self.work.pop()
        return work, self.answer(work)


class Shown(NoDisplay):
    def __init__(self):
        self.all, self.said, self.states = [], [], []

    def show(self, progress):
        self.all.append(progress)

    def say(self, message):
        self.said.append(message)

    def event(self, name, /, **fields):
        self.states.append(fields["state"])


def run(driver, folder, pool, mode="mean", *, change=None, display=None, **search):
    campaign = driver.fake_campaign(folder, mode, **search)
    store, study = driver.open_study(campaign)
    display = display or Shown()
    with store:
        if change is not None:
            change(store, study)
        explore(campaign, store, study, pool, display)
    return study, display


def trials(folder):
    with Store.open(folder, write=False) as store:
        return [(t.params, t.state, t.values) for t in store.trials()]


@pytest.mark.parametrize("sampler", ["gradient", "cmaes"])
@pytest.mark.parametrize(("size", "at_once"), [(1, 1), (3, 1), (16, 5)])
def test_every_worker_is_busy_until_the_budget_is_spent(driver, tmp_path, sampler, size, at_once):
    pool = FakePool(size, driver.answer, at_once=at_once)
    study, display = run(driver, tmp_path / "out", pool, sampler=sampler, trials=30)
    assert (study.tally.asked, study.tally.told) == (30, 30)
    assert len(pool.submitted) == len({driver.name_of(work) for work in pool.submitted})
    before_the_end = len(pool.waited) - size
    assert set(pool.waited[:before_the_end]) <= {0}
    last = display.all[-1]
    assert (last.stage, last.done, last.total, last.failed) == ("search", 30, 30, 4)
    assert last.best == study.tally.best_value


@pytest.mark.parametrize("deterministic", [False, True])
def test_batches_are_whole_and_have_the_trials_of_one_by_one(driver, tmp_path, deterministic):
    def answer(work):
        if isinstance(work, Jobs):
            return Outcomes(tuple(map(driver.answer, work.each)))
        return driver.answer(work)

    inner = FakePool(2, answer, ordered=deterministic)
    pool = Together(inner, 4, ordered=deterministic)
    search = {"sampler": "random", "trials": 30, "deterministic": deterministic}
    run(driver, tmp_path / "batches", pool, **search)
    sizes = [len(work.each) for work in inner.submitted if isinstance(work, Jobs)]
    assert sizes[:5] == [4] * 5
    assert sum(sizes) + sum(isinstance(work, Job) for work in inner.submitted) == 30
    run(driver, tmp_path / "alone", FakePool(1, driver.answer), **search)
    assert trials(tmp_path / "batches") == trials(tmp_path / "alone")


@pytest.mark.parametrize(
    ("budget", "ended"),
    [
        ({"trials": 12}, "trials"),
        ({"hours": 1e-9}, "hours"),
        ({"item_evaluations": 20_000}, "item evaluations"),
        ({"target": -1.85}, "target reached"),
        ({"hours": 1, "trials": 3}, "trials"),
    ],
)
def test_what_ended_the_search_is_recorded_and_said(driver, tmp_path, budget, ended):
    campaign = {"sampler": "cmaes", "trials": None, **budget}
    study, display = run(driver, tmp_path / "out", FakePool(2, driver.answer), **campaign)
    assert display.said == [f"search ended: {ended}"]
    with Store.open(tmp_path / "out", write=False) as store:
        assert store.ended == ended
    if "item_evaluations" in budget:  # no 200 trials stand in its way: duplicates cost nothing
        assert study.tally.asked >= 20_000 // 80
    assert display.all[-1].total == budget.get("trials")


def test_a_space_of_few_recipes_ends_once_they_are_scored(driver, tmp_path):
    methods = {"method": ["task_arithmetic", "ties"], "parameters": {"weight": 0.5}}
    pool = FakePool(3, lambda work: driver.outcome([0.5] * 4))
    search = {"sampler": "random", "trials": None, "hours": 100}
    study, display = run(driver, tmp_path / "out", pool, space=methods, **search)
    assert display.said == ["search ended: space exhausted"]
    assert len(study.tally.scored) > len(pool.submitted) == 2


def test_an_interrupted_search_says_so(driver, tmp_path):
    def interrupted(work):
        if len(pool.submitted) == 5:
            raise KeyboardInterrupt
        return driver.answer(work)

    pool = FakePool(1, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(driver, tmp_path / "out", pool, sampler="random")
    with Store.open(tmp_path / "out", write=False) as store:
        assert store.ended == "interrupted"


def test_a_worker_goes_on_before_its_result_is_written(driver, tmp_path):
    """With a candidate that was asked for ahead; each is on the disk before a worker gets it."""
    pool, idle = FakePool(16, driver.answer), []

    def watched(store, study):
        tell, submit = study.tell, pool.submit

        def told(work, outcome):
            idle.append(pool.free)
            tell(work, outcome)

        def submitted(work):
            assert not store._log.is_open
            assert work.entry.number in {trial.number for trial in store.trials()}
            submit(work)

        study.tell, pool.submit = told, submitted

    run(driver, tmp_path / "out", pool, change=watched, sampler="random", trials=40)
    assert set(idle[:20]) == {0}


@pytest.mark.parametrize("sampler", ["gradient", "cmaes"])
def test_what_was_asked_for_ahead_is_paid_for_by_the_budget(driver, tmp_path, sampler):
    pool, paid = FakePool(16, driver.answer, at_once=5), []

    def counted(store, study):
        tell = study.tell
        study.tell = lambda work, outcome: (tell(work, outcome), paid.append(study.tally.items))

    budget = {"sampler": sampler, "trials": None, "item_evaluations": 8_000}
    study, display = run(driver, tmp_path / "out", pool, change=counted, **budget)
    assert display.said == ["search ended: item evaluations"]
    assert 8_000 - 3 * 80 < paid[-1] <= 8_000
    assert study.tally.asked == study.tally.told


@pytest.mark.parametrize(
    ("what", "call", "error"),
    [("asked", 12, EvomergeError), ("told", 2, KeyboardInterrupt)],
)
@pytest.mark.parametrize("few", [False, True])
def test_what_breaks_off_amid_a_transaction_leaves_a_study_that_goes_on(
    driver, tmp_path, what, call, error, few
):
    """Of several asks or tells all are recorded or none, those answered without work among them."""
    search, answer = {"sampler": "random", "trials": 40}, driver.answer
    if few:
        search["space"] = {
            "method": ["task_arithmetic", "ties"],
            "parameters": {"weight": 0.5},
        }
        answer = lambda work: driver.outcome([0.5] * 4)  # noqa: E731

    def broken(store, study):
        record, calls = getattr(store, what), []

        def recorded(*args, **kwargs):
            calls.append(args)
            record(*args, **kwargs)
            if len(calls) == call:
                raise error("it broke")

        setattr(store, what, recorded)

    pool = FakePool(8, answer, at_once=3)
    with pytest.raises(error):
        run(driver, tmp_path / "out", pool, change=broken, **search)
    before = trials(tmp_path / "out")
    with Store.open(tmp_path / "out", write=False) as store:
        assert store.ended == ("interrupted" if error is KeyboardInterrupt else None)
    if what == "told":
        assert {state for _, state, _ in before} == {"asked"}
    else:  # few: duplicates of the first two are asked for beside them
        assert len(before) == (0 if few else 10)
    study, _ = run(driver, tmp_path / "out", FakePool(8, answer, at_once=3), **search)
    after = trials(tmp_path / "out")
    assert study.tally.told == study.tally.asked == search["trials"] == len(after)
    assert [params for params, *_ in after[: len(before)]] == [params for params, *_ in before]


def test_in_turn_results_are_taken_one_by_one(driver, tmp_path):
    """Which are there already, when one is taken, depends on the workers' speed."""
    found = []
    for name, at_once in (("one", 1), ("other", 3)):
        pool = FakePool(3, driver.answer, ordered=True, at_once=at_once)
        settings = {"sampler": "tpe", "trials": 24, "deterministic": True}
        run(driver, tmp_path / name, pool, **settings)
        found.append(([driver.name_of(work) for work in pool.submitted], trials(tmp_path / name)))
    assert found[0] == found[1]


@pytest.mark.parametrize("ordered", [False, True])
def test_an_interrupted_search_goes_on_with_what_was_in_flight(driver, tmp_path, ordered):
    class BrokenError(Exception):
        pass

    pool = FakePool(3, driver.answer, ordered)

    def answer(work):
        if len(pool.submitted) == 25:
            raise BrokenError
        return driver.answer(work)

    pool.answer = answer
    settings = {"sampler": "gradient", "trials": 12, "deterministic": ordered}
    with pytest.raises(BrokenError):
        run(driver, tmp_path / "broken", pool, **settings)
    again = FakePool(3, driver.answer, ordered)
    study, _ = run(driver, tmp_path / "broken", again, **settings)
    assert study.tally.told == 12
    first = {driver.name_of(work) for work in again.submitted[:3]}
    assert first <= {driver.name_of(work) for work in pool.submitted}
    if ordered:
        run(driver, tmp_path / "whole", FakePool(3, driver.answer, ordered), **settings)
        assert trials(tmp_path / "broken") == trials(tmp_path / "whole")


def test_no_candidate_is_asked_for_after_the_last_hour(driver, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(exploring.time, "monotonic", lambda: now[0])

    def answer(work):
        now[0] += 0.4 * 3600
        return driver.answer(work)

    study, _ = run(driver, tmp_path / "out", FakePool(2, answer), sampler="random", hours=1.0)
    assert (
        study.tally.asked == study.tally.told == 4
    )  # the third ends past the hour, the fourth flew


def failing(kinds):
    kinds = iter(kinds)

    def answer(work):
        if not isinstance(work, Job):
            return Gradients(failure=Failure(FailureKind.MERGE, "no gradient"))
        return Outcome(failure=Failure(next(kinds), "it broke"))

    return answer


@pytest.mark.parametrize("sampler", ["gradient", "random"])
def test_it_stops_if_the_first_candidates_all_fail_alike(driver, tmp_path, sampler):
    pool, display = FakePool(1, failing([FailureKind.TASK] * 20)), Shown()
    with pytest.raises(
        CampaignStopped, match=r"first 5 candidates all failed alike \(task\): it broke"
    ):
        run(driver, tmp_path / "out", pool, display=display, sampler=sampler)
    assert display.states == ["failed"] * FIRST_CANDIDATES  # the last one, too
    assert display.all[-1].failed == FIRST_CANDIDATES
    assert sum(state == "failed" for _, state, _ in trials(tmp_path / "out")) == FIRST_CANDIDATES


def test_it_goes_on_if_they_fail_for_other_reasons_or_one_does_not(driver, tmp_path):
    kinds = [FailureKind.TASK] * 4 + [FailureKind.MERGE] * 16
    study, _ = run(driver, tmp_path / "out", FakePool(1, failing(kinds)), sampler="random")
    assert study.tally.failed == 20
    broken = failing([FailureKind.TASK] * 20)
    pool = FakePool(1, lambda work: (driver.answer if work.entry.number == 2 else broken)(work))
    study, _ = run(driver, tmp_path / "other", pool, sampler="random")
    assert (study.tally.failed, len(study.tally.scored)) == (19, 1)

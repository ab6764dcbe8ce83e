"""The study's work: nothing twice, budgets, given points, failures, races."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import (
    Estimate,
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Job,
    Outcome,
    TaskScores,
)
from evomerge.objective import Objectives
from evomerge.search.history import Known
from evomerge.search.racing import race_of
from evomerge.search.samplers.sampler import Measurement, Params, Sampler
from evomerge.store import Store

COUNT = 40


class Listed(Sampler):
    """Proposes given points in turn."""

    def __init__(self, points: list[Params]) -> None:
        self.points, self.noted, self.attempts = points, [], []  # type: ignore[var-annotated]

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        self.attempts.append((number, attempt))
        return dict(self.points[(number + 10 * attempt) % len(self.points)])

    def asked(self, number: int, params: Params) -> None:
        self.noted.append(("asked", number, dict(params)))

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        self.noted.append(("told", number, result))

    def known(self, params: Params, result: Measurement) -> None:
        self.noted.append(("known", dict(params), result))


def point(*weights: float) -> dict[str, float]:
    return {f"weight/one/{n}-{n + 1}": weight for n, weight in enumerate(weights)}


def test_a_recipe_that_was_scored_before_is_answered_at_no_cost(
    driver: ModuleType, tmp_path: Path
) -> None:
    a, b = point(0.1, 0.2, 0.3, 0.4), point(0.9, 0.8, 0.7, 0.6)
    sampler = Listed([a, b, a, b, b, a])
    campaign = driver.fake_campaign(tmp_path / "out", trials=6)
    driver.run(campaign, sampler=sampler)
    with Store.open(tmp_path / "out", write=False) as store:
        trials = store.trials()
    assert [t.number for t in trials if t.outcome.cost.items] == [0, 1]  # type: ignore[union-attr]
    assert [t.values for t in trials] == [trials[i].values for i in (0, 1, 0, 1, 1, 0)]
    results = [one for kind, _, one in sampler.noted if kind == "told"]
    assert results[2] == results[5] == results[0]
    store, study = driver.open_study(campaign, sampler=Listed([a]))
    with store:
        assert study.tally.items == 2 * 2 * COUNT
        assert (study.tally.told, len(study.ranking())) == (6, 6)


def test_a_copy_is_worth_what_the_original_is_costs_included(
    driver: ModuleType, tmp_path: Path
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", trials=2)
    costs = [{"cost": "generated_tokens", "weight": 1.0}]
    campaign = type(campaign).model_validate({**campaign.model_dump(), "costs": costs})
    spent = Cost(items=80, generated_tokens=40)
    base = replace(driver.outcome([0.0] * 4), cost=replace(spent, generated_tokens=80))
    store, study = driver.open_study(campaign, sampler=Listed([point(0.1, 0.2, 0.3, 0.4)]))
    with store:
        study._aims = Objectives(campaign, replace(study._aims.references, base=base))
        (job,) = driver.ask(study, 1)
        study.tell(job, replace(driver.answer(job), cost=spent))
        assert driver.ask(study, 1) == []
        first, copy = store.trials()
        assert first.values == copy.values


def test_a_driver_that_died_before_it_copied_an_answer_copies_it_at_resume(
    driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = point(0.1, 0.2, 0.3, 0.4)
    campaign = driver.fake_campaign(tmp_path / "out", trials=2)
    store, study = driver.open_study(campaign, sampler=Listed([a]))
    with store:
        (job,) = driver.ask(study, 1)
        study.tell(job, driver.answer(job))
        with monkeypatch.context() as broken:
            broken.setattr(store, "told", None)
            with pytest.raises(TypeError):
                driver.ask(study, 1)
    store, study = driver.open_study(campaign, sampler=Listed([a]))
    with store:
        assert study.interrupted() == []
        assert (study.tally.told, study.tally.items) == (2, 2 * COUNT)
        assert study.ended


def test_duplicates_in_flight_are_told_together(driver: ModuleType, tmp_path: Path) -> None:
    a, b = point(0.1, 0.2, 0.3, 0.4), point(0.9, 0.8, 0.7, 0.6)
    campaign = driver.fake_campaign(tmp_path / "out", trials=5)
    store, study = driver.open_study(campaign, sampler=Listed([a, b, a, a, b]))
    with store:
        jobs = driver.ask(study, 2)
        assert [job.entry.number for job in jobs] == [0, 1]
        assert driver.ask(study, 1) == []  # all others wait for these two
        assert study.tally.asked == 5
    store, study = driver.open_study(campaign, sampler=Listed([a]))
    with store:
        jobs = study.interrupted()
        assert [job.entry.number for job in jobs] == [0, 1]
        study.tell(jobs[0], driver.answer(jobs[0]))
        assert [t.number for t in store.trials() if t.outcome is not None] == [0, 2, 3]
        assert study.tally.items == 2 * COUNT
        failure = Outcome(failure=Failure(FailureKind.OUT_OF_MEMORY, "too big"))
        study.tell(jobs[1], failure)
        assert [t.state for t in store.trials()].count("failed") == 2
        assert study.ended


def test_a_candidate_near_one_in_flight_is_drawn_again(driver: ModuleType, tmp_path: Path) -> None:
    a, near, far = (point(w, w, w, w) for w in (0.5, 0.5005, 0.7))
    sampler = Listed([a, near, *[a] * 9, far])  # 11: the second attempt of trial 1
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "out"), sampler=sampler)
    with store:
        driver.ask(study, 2)
        assert [t.params for t in store.trials()] == [a, far]
        assert sampler.attempts == [(0, 0), (1, 0), (1, 1)]


def test_a_candidate_that_was_tried_is_drawn_again(driver: ModuleType, tmp_path: Path) -> None:
    a, b = (point(w, w, w, w) for w in (0.5, 0.7))
    sampler = Listed([a] * 11 + [b])  # 11: the second attempt of trial 1
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "out"), sampler=sampler)
    with store:
        (job,) = driver.ask(study, 1)
        study.tell(job, driver.answer(job))
        driver.ask(study, 1)
        assert [t.params for t in store.trials()] == [a, b]


def test_an_endless_near_duplicate_is_let_pass(driver: ModuleType, tmp_path: Path) -> None:
    sampler = Listed([point(w, w, w, w) for w in (0.5, 0.5005)])
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "out"), sampler=sampler)
    with store:
        assert len(driver.ask(study, 2)) == 2
        assert sampler.attempts[-1] == (1, 2)


# Budgets.


@pytest.mark.parametrize("sampler", ["gradient", "cmaes"])
@pytest.mark.parametrize("workers", [1, 4])
def test_item_evaluations_are_never_more_than_the_budget(
    driver: ModuleType, tmp_path: Path, sampler: str, workers: int
) -> None:
    budget = 10 * 2 * COUNT + 30
    campaign = driver.fake_campaign(
        tmp_path / "out", sampler=sampler, trials=500, item_evaluations=budget
    )
    driver.run(campaign, workers=workers, reopen_at=(3,))
    with Store.open(tmp_path / "out", write=False) as store:
        outcomes = [t.outcome for t in store.trials() if t.outcome is not None]
        steps = store.gradient_steps()
    gradients = sum(3 * sum(map(len, step.items.values())) for step in steps)
    assert gradients == sum(step.cost_items for step in steps)
    spent = sum(one.cost.items for one in outcomes) + gradients
    assert budget - max(2 * COUNT, 3 * 32) < spent <= budget
    assert bool(gradients) == (sampler == "gradient")


def test_a_target_ends_the_search(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler="random", trials=500, target=-0.8)
    driver.run(campaign)
    with Store.open(tmp_path / "out", write=False) as store:
        values = [t.values[0] for t in store.trials() if t.values is not None]
    assert values[-1] >= -0.8 > max(values[:-1])


# Where it begins.


@pytest.mark.parametrize("sampler", ["gradient", "cmaes", "qmc"])
def test_given_points_are_tried_before_all_else(
    driver: ModuleType, tmp_path: Path, sampler: str
) -> None:
    first = [point(0.7, 0.3, 0.6, 0.2), point(0.0, 1.0, 0.0, 1.0)]
    for name, reopen_at in (("whole", ()), ("broken", (1, 2, 5))):
        campaign = driver.fake_campaign(tmp_path / name, sampler=sampler)
        driver.run(campaign, workers=3, reopen_at=reopen_at, first=first)
    assert driver.history(tmp_path / "broken") == driver.history(tmp_path / "whole")
    with Store.open(tmp_path / "whole", write=False) as store:
        assert [t.params for t in store.trials()][:2] == first
        steps = store.gradient_steps()
    if sampler == "gradient":
        assert steps[0].params == first[0]  # the best that was known


def test_descents_wait_for_the_given_points(driver: ModuleType, tmp_path: Path) -> None:
    first = [point(0.7, 0.3, 0.6, 0.2), point(0.0, 1.0, 0.0, 1.0)]
    campaign = driver.fake_campaign(tmp_path / "out", sampler="gradient")
    store, study = driver.open_study(campaign, first=first)
    with store:
        jobs = driver.ask(study, 5)
        assert [job.entry.number for job in jobs] == [0, 1]
        assert study.ask() is None
        study.tell(jobs[1], driver.answer(jobs[1]))
        assert study.ask() is None
        study.tell(jobs[0], driver.answer(jobs[0]))
        assert isinstance(study.ask(), GradientJob)


# Descents.


def test_a_failed_step_ends_its_path_and_the_campaign_goes_on(
    driver: ModuleType, tmp_path: Path
) -> None:
    def answer(work: Job | GradientJob) -> Outcome | Gradients:
        if isinstance(work, GradientJob) and work.name == "descent 0, step 7":
            return Gradients(failure=Failure(FailureKind.OUT_OF_MEMORY, "no room for gradients"))
        return driver.answer(work)  # type: ignore[no-any-return]

    campaign = driver.fake_campaign(tmp_path / "out", sampler="gradient")
    driver.run(campaign, answers=answer, reopen_at=(8, 9, 12))
    store, study = driver.open_study(campaign)
    with store:
        assert study.tally.gradient_failure == "out of memory: no room for gradients"
        assert (study.tally.told, len(store.gradient_steps())) == (20, 8)
        assert store.gradient_steps()[-1].loss is None
        params = [trial.params for trial in store.trials()]
    assert all(one not in params[1:] for one in params[:1])  # the others lie around it


def test_gradients_that_are_no_numbers_end_a_path(driver: ModuleType, tmp_path: Path) -> None:
    def answer(work: Job | GradientJob) -> Outcome | Gradients:
        found = driver.answer(work)
        broken = isinstance(found, Gradients) and work.name.endswith("step 2")  # type: ignore[union-attr]
        return replace(found, loss=float("nan")) if broken else found

    campaign = driver.fake_campaign(tmp_path / "out", sampler="gradient", trials=3)
    driver.run(campaign, answers=answer)
    store, study = driver.open_study(campaign)
    with store:
        assert study.tally.gradient_failure == "not finite: the gradients are not finite"
        assert len(store.gradient_steps()) == 3


# Racing.


@pytest.mark.parametrize("mode", ["mean", "pareto"])
def test_candidates_are_raced_and_those_given_up_count(
    driver: ModuleType, tmp_path: Path, mode: str
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", mode, sampler="random", trials=40)
    plain = driver.fake_campaign(tmp_path / "plain", mode, sampler="random", trials=40)
    store, study = driver.open_study(campaign)
    race = race_of(study._aims, driver.IDS)
    store.close()
    jobs: list[Job] = []

    def answer(job: Job) -> Outcome:
        jobs.append(job)
        return driver.answer(job)  # type: ignore[no-any-return]

    driver.run(campaign, workers=3, reopen_at=(4, 11), answers=answer, race=race)
    driver.run(plain, workers=3)
    assert all(job.race is not None and job.race.rivals for job in jobs)  # naive merges at first
    if mode == "mean":
        assert all(len(job.race.rivals) == 1 for job in jobs if job.race is not None)
    store, study = driver.open_study(campaign, race=race)
    with store:
        trials = store.trials()
        pruned = {t.number for t in trials if t.state == "pruned"}
        assert pruned
        assert study.tally.pruned == len(pruned)
        assert study.tally.told == 40
        assert all(t.values is not None for t in trials if t.number in pruned)
        ranked = {one.number for one in study.ranking()}
        assert not ranked & pruned
        assert len(ranked) + len(pruned) + study.tally.failed == 40
        spent, best = study.tally.items, study.ranking()[0].values
    store, study = driver.open_study(plain)
    with store:
        assert spent < study.tally.items
        if mode == "mean":
            assert best == study.ranking()[0].values


def test_an_interrupted_race_has_the_rivals_that_it_had(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler="random")
    store, study = driver.open_study(campaign)
    race = race_of(study._aims, driver.IDS)
    store.close()
    points = [point(0.65, 0.3, 0.6, 0.1), point(0.1, 0.1, 0.1, 0.1)]
    store, study = driver.open_study(campaign, race=race, sampler=Listed(points))
    with store:
        best, other = driver.ask(study, 2)
        study.tell(best, driver.answer(best))  # a new incumbent, after `other` was asked
    store, study = driver.open_study(campaign, race=race, sampler=Listed(points))
    with store:
        assert study.interrupted() == [other]


# What is no score, and what is no work.


def test_a_score_that_is_no_number_is_a_failure(driver: ModuleType, tmp_path: Path) -> None:
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "out", sampler="cmaes"))
    with store:
        (job,) = driver.ask(study, 1)
        scores = driver.answer(job).scores
        values = {"acc": (float("nan"),) * COUNT}
        near = TaskScores(driver.IDS["near"], values, {"acc": Estimate(float("nan"))})
        study.tell(job, Outcome({**scores, "near": near}))
        assert (len(study.tally.scored), study.tally.failed) == (0, 1)
        (trial,) = store.trials()
        assert trial.state == "failed"
        assert trial.outcome is not None
        assert trial.outcome.failure is not None
        assert trial.outcome.failure.kind is FailureKind.NOT_FINITE


def test_a_result_is_told_once(driver: ModuleType, tmp_path: Path) -> None:
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "out", sampler="gradient"))
    with store:
        step = study.ask()
        study.tell(step, driver.answer(step))
        with pytest.raises(ValueError, match="descent 0, step 0 is not waiting"):
            study.tell(step, driver.answer(step))
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "other", sampler="random"))
    with store:
        job = study.ask()
        with pytest.raises(ValueError, match="Gradients does not answer Job"):
            study.tell(job, driver.answer(step))
        study.tell(job, driver.answer(job))
        with pytest.raises(ValueError, match="trial 0 is not waiting"):
            study.tell(job, driver.answer(job))


def test_naive_merges_are_recorded_once_and_only_if_finite(
    driver: ModuleType, tmp_path: Path
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler="random")
    known = [Known(driver.outcome([0.3] * 4), point(0.3, 0.3, 0.3, 0.3))] * 2
    known.append(Known(driver.outcome([float("inf")] * 4), point(0.4, 0.3, 0.3, 0.3)))
    for _ in range(2):
        store, _ = driver.open_study(campaign, known=known)
        with store:
            assert [one.params for one in store.baselines()] == [point(0.3, 0.3, 0.3, 0.3)]


def test_an_ask_and_a_tell_are_one_transaction_each(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler="gradient", trials=60)
    store, study = driver.open_study(campaign)
    commits: list[str] = []
    store._log.connection.set_trace_callback(
        lambda sql: commits.append(sql) if sql == "COMMIT" else None
    )
    kinds = set()
    with store:
        for _ in range(12):
            commits.clear()
            job = study.ask()
            assert job is not None
            kinds.add(type(job))
            assert len(commits) == 1
            study.tell(job, driver.answer(job))
            assert len(commits) == 2
    assert kinds == {Job, GradientJob}

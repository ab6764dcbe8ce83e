from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from evomerge.errors import CampaignError
from evomerge.search import Study, directions
from evomerge.store import Store
from evomerge.trial import Estimate, FailureKind, Outcome, TaskScores

SAMPLERS = ("cmaes", "tpe", "nsga2", "gp", "random", "qmc")


def history(folder: Path) -> list[object]:
    with Store.open(folder, write=False) as store:
        return [(t.number, t.params, t.recipe, t.state, t.values) for t in store.trials()]


def run(driver: ModuleType, campaign: object, *, workers: int, reopen_at: tuple[int, ...]) -> None:
    """Run with several candidates in flight, told in a random order; reopen after some tells."""
    store, study = driver.open_study(campaign)
    shuffled, flying, told = random.Random(3), [], 0
    while True:
        while len(flying) < workers and study.asked < 20:
            flying.append(study.ask())
        if not flying:
            break
        candidate = flying.pop(shuffled.randrange(len(flying)))
        study.tell(candidate, driver.evaluate(candidate))
        told += 1
        if told in reopen_at:
            expected = [c.number for c in flying]
            store.close()
            store, study = driver.open_study(campaign)
            flying = list(study.interrupted())
            assert sorted(expected) == [c.number for c in flying]
            assert study.told == told
            flying.sort(key=lambda c: expected.index(c.number))
    store.close()


@pytest.mark.parametrize(
    ("mode", "sampler", "workers"),
    [("mean", name, 1) for name in SAMPLERS]
    + [("mean", name, 3) for name in SAMPLERS if name != "gp"]
    + [("pareto", "nsga2", 3), ("pareto", "tpe", 1)],
)
def test_a_reopened_study_asks_for_the_very_same_trials(
    driver: ModuleType, tmp_path: Path, mode: str, sampler: str, workers: int
) -> None:
    whole = driver.fake_campaign(tmp_path / "whole", mode, sampler=sampler)
    broken = driver.fake_campaign(tmp_path / "broken", mode, sampler=sampler)
    run(driver, whole, workers=workers, reopen_at=())
    run(driver, broken, workers=workers, reopen_at=(2, 9, 15))
    assert history(tmp_path / "broken") == history(tmp_path / "whole")
    assert len(history(tmp_path / "whole")) == 20


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_repeats_nothing(
    driver: ModuleType, tmp_path: Path
) -> None:
    driver.main(tmp_path / "whole")
    folder, moments = tmp_path / "killed", random.Random(11)
    finished: set[str] = set()
    script = [sys.executable, str(driver.__file__), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for kills_after in (1, moments.randrange(60, 200), None):
        process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) == kills_after:
                process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == (0 if kills_after is None else -signal.SIGKILL)
        evaluated = {line.removeprefix("evaluated ") for line in lines if "evaluated" in line}
        assert not evaluated & finished  # none twice
        finished |= {line.removeprefix("told ") for line in lines if "told" in line}
    assert (
        len(finished) >= len(SAMPLERS) * 20 - 2
    )  # a kill may come between the commit and its line
    for name in SAMPLERS:
        assert history(folder / name) == history(tmp_path / "whole" / name)


def test_other_seed_other_trials(driver: ModuleType, tmp_path: Path) -> None:
    for seed in (1, 2):
        campaign = driver.fake_campaign(tmp_path / str(seed), sampler="random", seed=seed)
        run(driver, campaign, workers=1, reopen_at=())
    assert history(tmp_path / "1") != history(tmp_path / "2")


@pytest.mark.parametrize("sampler", ["cmaes", "tpe"])
def test_it_finds_better_points_than_the_baselines(
    driver: ModuleType, tmp_path: Path, sampler: str
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler=sampler, trials=60)
    store, study = driver.open_study(campaign)
    with store:
        for _ in range(60):
            candidate = study.ask()
            study.tell(candidate, driver.evaluate(candidate))
        assert study.best_value is not None
        assert study.best is not None
        assert study.best[1] == (study.best_value,)
        best_baseline = max(values[0] for values in (b.values for b in store.baselines()))
        assert study.best_value > best_baseline + 0.1


def test_counts_and_ranking(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler="random")
    store, study = driver.open_study(campaign)
    with store:
        assert (study.asked, study.told, study.best_value, study.best) == (0, 0, None, None)
        candidates = [study.ask() for _ in range(8)]
        assert [c.number for c in candidates] == list(range(8))
        for candidate in reversed(candidates[2:]):
            study.tell(candidate, driver.evaluate(candidate))
        assert (study.asked, study.told, study.finished, study.failed) == (8, 6, 5, 1)
        assert study.interrupted() == ()
        values = [ranked.values[0] for ranked in study.ranking()]
        assert values == sorted(values, reverse=True)
        assert all(ranked.front >= 0 for ranked in study.ranking())


def test_a_pareto_ranking_starts_with_the_front(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto", sampler="nsga2")
    store, study = driver.open_study(campaign)
    with store:
        for _ in range(14):
            candidate = study.ask()
            study.tell(candidate, driver.evaluate(candidate))
        ranking = study.ranking()
        front = [r.values for r in ranking if r.front == 0]
        assert [r.front for r in ranking] == sorted(r.front for r in ranking)
        for near, perplexity in (r.values for r in ranking):  # the second is better when lower
            dominators = [v for v in front if v[0] >= near and v[1] <= perplexity]
            assert dominators
        assert study.best_value is None


def test_a_score_that_is_no_number_is_a_failure(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler="cmaes")
    store, study = driver.open_study(campaign)
    with store:
        candidate = study.ask()
        scores = driver.evaluate(candidate).scores
        broken = {"acc": Estimate(float("nan"))}
        near = TaskScores(("a",), {"acc": (float("nan"),)}, broken)
        study.tell(candidate, Outcome({**scores, "near": near}))
        assert (study.finished, study.failed) == (0, 1)
        (trial,) = store.trials()
        assert trial.state == "failed"
        assert trial.outcome is not None
        assert trial.outcome.failure is not None
        assert trial.outcome.failure.kind is FailureKind.NOT_FINITE


def test_an_outcome_is_told_once(driver: ModuleType, tmp_path: Path) -> None:
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "out", sampler="random"))
    with store:
        candidate = study.ask()
        study.tell(candidate, driver.evaluate(candidate))
        with pytest.raises(ValueError, match="trial 0 is not waiting"):
            study.tell(candidate, driver.evaluate(candidate))


def test_a_baseline_is_told_once_and_only_if_finite(driver: ModuleType, tmp_path: Path) -> None:
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "out", sampler="random"))
    with store:
        assert len(store.baselines()) == 3
        point = dict.fromkeys(driver.fake_space().distributions, 0.3)
        study.add_baseline(point, (0.0,))
        study.add_baseline({**point, "weight/0": 0.4}, (float("inf"),))
        assert len(store.baselines()) == 3


def test_cmaes_refuses_a_pareto_front(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto", sampler="cmaes")
    with (
        Store.create(tmp_path / "out", campaign, {}, directions=directions(campaign)) as store,
        pytest.raises(CampaignError, match="cmaes searches for one best value"),
    ):
        Study(driver.fake_space(), campaign.search, directions(campaign), store)

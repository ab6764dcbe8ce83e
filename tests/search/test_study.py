"""The study asks for the same again whatever died, and finds what is good."""

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
from evomerge.objective import Objectives
from evomerge.store import Store

SAMPLERS = ("gradient", "cmaes", "tpe", "nsga2", "gp", "random", "qmc")
COUNT = 40


def numbers(folder: Path) -> list[int]:
    with Store.open(folder, write=False) as store:
        return [trial.number for trial in store.trials() if trial.outcome is not None]


@pytest.mark.parametrize(
    ("mode", "sampler", "workers"),
    [("mean", name, 1) for name in SAMPLERS]
    + [("mean", name, 3) for name in SAMPLERS if name != "gp"]
    + [("pareto", "gradient", 1), ("pareto", "gradient", 12), ("pareto", "nsga2", 3)]
    + [("pareto", "tpe", 1)],
)
def test_a_reopened_study_asks_for_the_very_same_trials_and_steps(
    driver: ModuleType, tmp_path: Path, mode: str, sampler: str, workers: int
) -> None:
    trials = {"trials": 50} if (mode, sampler) == ("pareto", "gradient") else {}
    whole, broken = (
        driver.fake_campaign(tmp_path / name, mode, sampler=sampler, **trials)
        for name in ("whole", "broken")
    )
    driver.run(whole, workers=workers)
    driver.run(broken, workers=workers, reopen_at=(2, 9, 15, 40, 77, 150, 190))
    assert driver.history(tmp_path / "broken") == driver.history(tmp_path / "whole")
    assert numbers(tmp_path / "whole") == list(range(trials.get("trials", 20)))


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_repeats_nothing(
    driver: ModuleType, tmp_path: Path
) -> None:
    driver.main(tmp_path / "whole")
    folder, moments = tmp_path / "killed", random.Random(11)
    finished: set[str] = set()
    script = [sys.executable, str(driver.__file__), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for kill_after in (1, moments.randrange(60, 120), moments.randrange(100, 250), None):
        command = script if kill_after is None else [*script, str(kill_after)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert done.returncode == (0 if kill_after is None else -signal.SIGKILL)
        lines = done.stdout.splitlines()
        evaluated = {line.removeprefix("evaluated ") for line in lines if "evaluated" in line}
        assert not evaluated & finished  # none twice
        finished |= {line.removeprefix("told ") for line in lines if "told" in line}
    assert len([name for name in finished if ": trial" in name]) == len(SAMPLERS) * 20
    for name in SAMPLERS:
        assert driver.history(folder / name) == driver.history(tmp_path / "whole" / name)


@pytest.mark.slow
def test_killed_at_any_durable_step_of_a_descent_it_goes_on_as_if_nothing_had_happened(
    driver: ModuleType, tmp_path: Path
) -> None:
    """In forks of this process, which die by SIGKILL: at each step in turn, each time a bit later."""
    driver.main(tmp_path / "whole", samplers=("gradient",))
    script = (
        "import importlib.util, os, sys; from pathlib import Path\n"
        "spec = importlib.util.spec_from_file_location('search_driver', sys.argv[1])\n"
        "driver = importlib.util.module_from_spec(spec); sys.modules[spec.name] = driver\n"
        "spec.loader.exec_module(driver)\n"
        "for lines in (1, 2, 3, 2, 1, 4, 5, 2, 2, 2, 1, 11, 40, None):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        driver.main(Path(sys.argv[2]), lines, ('gradient',))\n"
        "        os._exit(0)\n"
        "    print('ended', os.waitpid(child, 0)[1], flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(driver.__file__), str(tmp_path / "killed")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    ends = [line for line in done.stdout.splitlines() if line.startswith("ended")]
    assert ends == [f"ended {int(signal.SIGKILL)}"] * 13 + ["ended 0"]
    assert driver.history(tmp_path / "killed" / "gradient") == driver.history(
        tmp_path / "whole" / "gradient"
    )


def test_other_seed_other_trials(driver: ModuleType, tmp_path: Path) -> None:
    for seed in (1, 2):
        driver.run(driver.fake_campaign(tmp_path / str(seed), sampler="random", seed=seed))
    assert driver.history(tmp_path / "1") != driver.history(tmp_path / "2")


@pytest.mark.parametrize("sampler", ["gradient", "cmaes", "tpe"])
def test_it_finds_better_points_than_the_naive_merges(
    driver: ModuleType, tmp_path: Path, sampler: str
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", sampler=sampler, trials=40)
    driver.run(campaign)
    store, study = driver.open_study(campaign)
    with store:
        assert study.best is not None
        assert study.best.values == (study.tally.best_value,)
        assert study.best.values[0] > max(one.values[0] for one in store.baselines()) + 0.1


def test_a_descent_is_better_than_cmaes_at_equal_cost(driver: ModuleType, tmp_path: Path) -> None:
    budget = 60 * 2 * COUNT  # trials scored in full
    found = {}
    for sampler in ("gradient", "cmaes"):
        campaign = driver.fake_campaign(
            tmp_path / sampler, sampler=sampler, trials=1000, item_evaluations=budget
        )
        driver.run(campaign)
        store, study = driver.open_study(campaign)
        with store:
            assert study.tally.items <= budget
            found[sampler] = study.tally.best_value
    weights = [0.65, 0.3, 0.6, 0.1]  # where the weighted mean of both tasks is best
    campaign = driver.fake_campaign(tmp_path / "none")
    (best,) = Objectives(campaign).values(driver.outcome(weights))
    assert best - found["gradient"] < 0.005
    assert best - found["gradient"] < (best - found["cmaes"]) / 2


def test_counts_and_ranking(driver: ModuleType, tmp_path: Path) -> None:
    store, study = driver.open_study(driver.fake_campaign(tmp_path / "out", sampler="random"))
    with store:
        assert (study.tally.asked, study.tally.told, study.tally.best_value) == (0, 0, None)
        assert study.best is None
        jobs = driver.ask(study, 8)
        assert [job.entry.number for job in jobs] == list(range(8))
        for job in reversed(jobs[2:]):
            study.tell(job, driver.answer(job))
        tally = study.tally
        assert (tally.asked, tally.told, len(tally.scored), tally.failed) == (8, 6, 5, 1)
        assert tally.items == 5 * 2 * COUNT
        assert study.interrupted() == []
        values = [ranked.values[0] for ranked in study.ranking()]
        assert values == sorted(values, reverse=True)
        assert study.best == study.ranking()[0]


def test_a_pareto_ranking_starts_with_the_front(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto", sampler="nsga2", trials=14)
    driver.run(campaign)
    store, study = driver.open_study(campaign)
    with store:
        ranking = study.ranking()
        front = [r.values for r in ranking if r.front == 0]
        assert [r.front for r in ranking] == sorted(r.front for r in ranking)
        for near, perplexity in (r.values for r in ranking):  # the second is better when lower
            assert [v for v in front if v[0] >= near and v[1] <= perplexity]
        assert study.tally.best_value is None


def test_descents_of_a_front_lead_to_its_ends(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto", sampler="gradient", trials=40)
    driver.run(campaign, workers=4)
    with Store.open(tmp_path / "out", write=False) as store:
        values = [t.values for t in store.trials() if t.values is not None]
        shares = {step.descent for step in store.gradient_steps()}
    assert len(shares) >= 4
    best = max(near for near, _ in values)
    assert best > -0.08  # the optimum of `near` alone, apart from the spread of its items
    assert min(perplexity for _, perplexity in values) < 2.01  # and that of `text`


# What is handed out, and what is not.


def test_cmaes_refuses_a_pareto_front(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto", sampler="cmaes")
    with pytest.raises(CampaignError, match="cmaes searches one value"):
        driver.open_study(campaign)

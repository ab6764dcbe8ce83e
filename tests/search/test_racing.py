from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.campaign import Campaign
from evomerge.goals import Judge, Yardsticks
from evomerge.racing import completed, give_up
from evomerge.search.racing import BLOCKS, against, race_faults, race_of
from evomerge.trial import Estimate, Failure, FailureKind, Outcome, Pruned, TaskScores

IDS = {"exam": tuple(f"e{n}" for n in range(40)), "essay": tuple(f"s{n}" for n in range(40))}


def campaign(**changes: Any) -> Campaign:
    data: dict[str, Any] = {
        "name": "race",
        "models": {"base": "/m/base", "experts": ["/m/one", "/m/two"]},
        "space": {"method": "linear", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
        "objectives": [
            {"task": "exam", "metric": "acc", "weight": 3.0},
            {"task": "essay", "metric": "errors"},
        ],
        "out": "/out",
    }
    return Campaign.model_validate({**data, **changes})


def outcome(right: int, errors: float) -> Outcome:
    exam = tuple(float(n < right) for n in range(40))
    essay = (errors,) * 40
    return Outcome(
        {
            "exam": TaskScores(IDS["exam"], {"acc": exam}, {"acc": Estimate(right / 40)}),
            "essay": TaskScores(IDS["essay"], {"errors": essay}, {"errors": Estimate(errors)}),
        }
    )


def judge(**changes: Any) -> Judge:
    yardsticks = Yardsticks(
        outcome(5, 4.0), {"one": outcome(30, 3.0), "two": outcome(10, 2.0)}, {"avg": outcome(25, 2)}
    )
    return Judge(campaign(**changes), yardsticks, better=better)


def better(task: str, metric: str) -> bool:
    return metric == "acc"


def test_a_race_is_laid_out_from_what_parents_and_baselines_scored():
    race = race_of(judge(), IDS)
    assert race == race_of(judge(), IDS)
    assert race.metrics == {"exam": "acc", "essay": "errors"}
    assert race.signs == {"exam": 1, "essay": -1}
    assert race.weights == {"exam": 3.0, "essay": 1.0}
    assert not race.pareto
    assert len(race.blocks) == BLOCKS
    disputed = set(race.blocks[0]["exam"])
    assert disputed <= set(range(10, 30))  # those that one model has right and another has not
    assert len(disputed) == 7  # of 10 items; it counts three times as much as the other task
    assert len(race.blocks[0]["essay"]) == 3
    assert race_of(judge(mode="pareto"), IDS).pareto


def test_shares_of_the_best_expert_are_weights():
    race = race_of(judge(normalize="best_expert"), IDS)
    assert race.weights["exam"] == pytest.approx(3.0 / 0.75)


def test_who_is_no_rival():
    race = race_of(judge(), IDS)
    failed = Outcome(failure=Failure(FailureKind.TASK, "broken"))
    pruned = Outcome(outcome(3, 1.0).scores, pruned=Pruned("behind", 1))
    assert against(race, []) is against(race, [failed, pruned]) is None
    found = against(race, [failed, outcome(39, 1.0)])
    assert found is not None
    assert [rival["exam"][38:] for rival in found.rivals] == [(1.0, 0.0)]


def test_a_hopeless_candidate_gets_an_honest_value():
    judged = judge()
    race = against(race_of(judged, IDS), [outcome(36, 1.0)])
    assert race is not None
    hopeless = outcome(4, 3.0)
    scored = {
        task: sorted(item for block in race.blocks[:4] for item in block[task])
        for task in ("exam", "essay")
    }
    scores = {
        task: TaskScores(
            tuple(IDS[task][n] for n in where),
            {
                race.metrics[task]: tuple(
                    hopeless.scores[task].metrics[race.metrics[task]][n] for n in where
                )
            },
            {race.metrics[task]: Estimate(0.0)},
        )
        for task, where in scored.items()
    }
    pruned = give_up(race, scores, 4)
    assert pruned is not None
    (value,) = judged.values(completed(race, Outcome(scores, pruned=pruned)))
    (truth,) = judged.values(hopeless)
    assert value == pytest.approx(truth, abs=0.15)
    assert value < judged.values(outcome(36, 1.0))[0]


def test_what_cannot_race_is_named():
    items = SimpleNamespace(race_fault=lambda task, metric: None)
    assert race_faults(campaign(), items, better) == []
    items.race_fault = lambda task, metric: f"{metric} of {task}"
    found = race_faults(
        campaign(
            costs=[{"cost": "generated_tokens"}],
            scorer={"backend": "vllm"},
            normalize="best_expert",
        ),
        items,
        better,
    )
    assert found == [
        "acc of exam",
        "errors of essay",
        'errors of task "essay" as a share of the best expert\'s is no mean over items',
        "a candidate that is worse on the tasks may still win by its costs",
        "the backend vllm scores all items in one go",
    ]

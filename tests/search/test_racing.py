from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.candidate.trial import (
    Estimate,
    Failure,
    FailureKind,
    Outcome,
    Pruned,
    Race,
    TaskScores,
)
from evomerge.config import Campaign
from evomerge.objective import Objectives, References
from evomerge.racing import blocks, completed, give_up
from evomerge.search.racing import BLOCKS, against, race_faults, race_of, unbounded

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


def aims(**changes: Any) -> Objectives:
    references = References(
        outcome(5, 4.0), {"one": outcome(30, 3.0), "two": outcome(10, 2.0)}, {"avg": outcome(25, 2)}
    )
    return Objectives(campaign(**changes), references, better=better)


def better(task: str, metric: str) -> bool:
    return metric == "acc"


def laid_out(**changes: Any) -> Race:
    race = race_of(aims(**changes), IDS)
    assert race is not None
    return race


def test_a_race_is_laid_out_from_what_parents_and_baselines_scored():
    race = laid_out()
    assert race == race_of(aims(), IDS)
    assert race.metrics == {"exam": "acc", "essay": "errors"}
    assert race.signs == {"exam": 1, "essay": -1}
    assert race.weights == {"exam": 3.0, "essay": 1.0}
    assert race.best == {"exam": 1.0, "essay": 0.0}
    assert not race.pareto
    assert len(blocks(race)) == BLOCKS
    assert race.expected["exam"][0] == 1.0  # all have it right
    assert 0.5 < race.expected["exam"][27] < 1.0  # the best alone has
    assert race.expected["exam"][39] == 0.0
    assert race.expected["essay"][0] == pytest.approx(2.0, abs=0.3)
    assert laid_out(mode="pareto").pareto


def test_the_order_is_drawn_by_the_campaigns_seed_and_the_trial():
    race, incumbent = laid_out(), [outcome(39, 1.0)]
    found = [against(race, incumbent, number) for number in (3, 3, 4)]
    orders = [blocks(each) for each in found if each is not None]
    assert orders[0] == orders[1] != orders[2]
    other = laid_out(search={"seed": 1})
    assert blocks(other) != blocks(race)


def test_a_metric_without_a_best_value_is_not_raced():
    goals = [{"task": "exam", "metric": "acc"}, {"task": "essay", "metric": "score"}]
    essay = TaskScores(IDS["essay"], {"score": (3.0,) * 40}, {"score": Estimate(3.0)})
    known = Outcome({"exam": outcome(5, 4.0).scores["exam"], "essay": essay})
    unknown = Objectives(campaign(objectives=goals), References(known), better=lambda *_: True)
    assert race_of(unknown, IDS) is None
    assert 'score of task "essay" has values from 3 to 3' in str(unbounded(unknown))
    assert unbounded(aims()) is None
    assert against(None, [known], 0) is None


def test_shares_of_the_best_expert_are_weights():
    assert laid_out(normalize="best_expert").weights["exam"] == pytest.approx(3.0 / 0.75)


def test_who_is_no_rival():
    race = laid_out()
    failed = Outcome(failure=Failure(FailureKind.TASK, "broken"))
    pruned = Outcome(outcome(3, 1.0).scores, pruned=Pruned("behind", 1))
    assert against(race, [], 0) is against(race, [failed, pruned], 0) is None
    found = against(race, [failed, outcome(39, 1.0)], 0)
    assert found is not None
    assert [rival["exam"][38:] for rival in found.rivals] == [(1.0, 0.0)]


def test_a_hopeless_candidate_gets_an_honest_value():
    judged = aims()
    race = against(laid_out(), [outcome(36, 1.0)], 5)
    assert race is not None
    hopeless = outcome(4, 3.0)
    scored = {
        task: sorted(item for block in blocks(race)[:4] for item in block.get(task, ()))
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
    assert value == pytest.approx(truth, abs=0.1)
    assert value < judged.values(outcome(36, 1.0))[0]


def test_what_cannot_race_is_named():
    items = SimpleNamespace(race_fault=lambda task, metric: None)
    assert race_faults(campaign(), items, better) == []
    items.race_fault = lambda task, metric: f"{metric} of {task}"
    found = race_faults(
        campaign(
            costs=[{"cost": "generated_tokens"}],
            scorer={"backend": "hf"},
            normalize="best_expert",
        ),
        items,
        better,
    )
    assert found == [
        "acc of exam",
        "errors of essay",
        'errors of task "essay" as a share of the best expert\'s is not a mean over items',
        "a candidate that is worse on the tasks may still win by its costs",
        "the backend hf scores all items in one go",
    ]

import pickle

import pytest

from evomerge.candidate import Recipe, Source
from evomerge.candidate.trial import (
    Entry,
    Estimate,
    Failure,
    FailureKind,
    Job,
    Outcome,
    Pruned,
    Race,
    TaskScores,
)


def test_a_job_and_its_outcome_survive_the_way_to_a_worker_and_back():
    recipe = Recipe(method="linear", models=(Source("a", parameters={"weight": 0.1}),))
    job = Job(Entry("trial 3", recipe, 3), "search", {"t": ("acc",)})
    scores = TaskScores(("i1", "i2"), {"acc": (1.0, 0.0)}, {"acc": Estimate(0.5, 0.1)})
    outcome = Outcome(scores={"t": scores})
    assert pickle.loads(pickle.dumps((job, outcome))) == (job, outcome)


def test_a_race_travels_too_and_only_on_search():
    race = Race({"t": "acc"}, {"t": 1.0}, {"t": 1}, {"t": 1.0}, {"t": (0.5, 0.1)}, {"t": 0.3})
    candidate = Entry("trial 3", Recipe(method="linear"), 3)
    pair = Job(candidate, "search", race=race), Outcome(pruned=Pruned("behind", 1))
    assert pickle.loads(pickle.dumps(pair)) == pair
    for split in ("select", "holdout"):
        with pytest.raises(ValueError, match=f"trial 3: no race on {split}"):
            Job(candidate, split, race=race)


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        Failure(FailureKind.MERGE, "x").reason = "y"


def test_a_failure_kind_reads_as_words():
    assert f"{FailureKind.OUT_OF_MEMORY}" == "out of memory"

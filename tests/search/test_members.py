"""What a study knows of the models that candidates are made over."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Mix, Router
from evomerge.candidate.trial import (
    Entry,
    Estimate,
    Failure,
    FailureKind,
    Job,
    Outcome,
    Pruned,
    TaskScores,
)
from evomerge.search.members import Members

ONE, TWO, BEST = (Merge("passthrough", (name,)) for name in ("/one", "/two", "/best"))


def members(*costs: str) -> Members:
    goals = [SimpleNamespace(task="up", metric="acc"), SimpleNamespace(task="down", metric="loss")]
    campaign: Any = SimpleNamespace(objectives=goals, asked_costs=costs)
    return Members(campaign, lambda task, metric: task == "up")


def outcome(value: float) -> Outcome:
    def scores(metric: str) -> TaskScores:
        return TaskScores(("a", "b"), {metric: (value, 2.0)}, {metric: Estimate(value)})

    return Outcome({"up": scores("acc"), "down": scores("loss")})


def job(split: Any = "search", **changes: Any) -> Job:
    made = Ensemble("/base", {"one": ONE, "two": TWO}, Router(1))
    return Job(Entry("trial 0", replace(made, **changes), 0), split)


def test_a_job_is_told_what_is_known_of_its_members() -> None:
    found = members()
    found.keep(ONE, outcome(1.0))
    found.keep(BEST, outcome(3.0))
    told = found.informed(job())
    assert told.scored == {"one": outcome(1.0).scores}
    assert told.known == {"one": {"up": (1.0, 2.0), "down": (-1.0, -2.0)}}
    found.keep(TWO, outcome(5.0))
    assert found.informed(job()).scored.keys() == {"one", "two"}


def test_nothing_is_learnt_from_other_items_than_those_of_search() -> None:
    found = members()
    found.keep(ONE, outcome(1.0))
    told = found.informed(job("select"))
    assert told.known == {}
    assert told.scored == {"one": outcome(1.0).scores}


def test_a_mix_is_told_nothing() -> None:
    found = members()
    found.keep(ONE, outcome(1.0))
    told = found.informed(job(router=None, mix=Mix({"one": 1.0})))
    assert (told.known, told.scored) == ({}, {})


def test_scores_are_computed_again_where_their_tokens_count() -> None:
    found = members("generated_tokens")
    found.keep(ONE, outcome(1.0))
    told = found.informed(job())
    assert told.scored == {}
    assert told.known.keys() == {"one"}


@pytest.mark.parametrize(
    "partial",
    [
        replace(outcome(1.0), pruned=Pruned("behind", 1)),
        Outcome(failure=Failure(FailureKind.TASK, "broken")),
    ],
)
def test_what_was_not_scored_in_full_is_not_known(partial: Outcome) -> None:
    found = members()
    found.keep(ONE, partial)
    found.compare(TWO, partial, 0.5) if partial.pruned else None
    assert found.informed(job()).scored == {}
    assert found.best is None


def test_the_best_merge_is_the_first_of_the_best() -> None:
    found = members()
    assert found.best is None
    found.known(ONE, outcome(1.0), 0.5)
    found.known(TWO, outcome(1.0), 0.5)
    assert found.best == found.naive == ONE
    found.compare(job().entry.candidate, outcome(1.0), 0.1)  # which is no merge
    assert found.best == ONE
    found.compare(BEST, outcome(1.0), 0.4)
    assert (found.best, found.naive) == (BEST, ONE)
    mine = job(members={"one": BEST})
    assert found.informed(mine).scored.keys() == {"one"}

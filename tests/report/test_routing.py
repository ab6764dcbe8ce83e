from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from evomerge.candidate import Candidate, Merge
from evomerge.candidate.trial import Estimate, Outcome, TaskScores
from evomerge.report.formats.markdown import table
from evomerge.report.routing import RoutingReport, routing, routings
from evomerge.store import Evaluation

METRIC = "exact_match"
SCORES = {
    # task zoo_tools, then zoo_facts
    "tools": ([1, 1, 1, 0], [0, 0, 1, 0]),
    "facts": ([0, 0, 1, 1], [1, 0, 1, 1]),
    "base": ([0, 0, 1, 0], [0, 0, 1, 0]),
}
TASKS = ("zoo_tools", "zoo_facts")
ROUTES = {"zoo_tools": (0, 0, 0, 0), "zoo_facts": (1, 1, 1, 0)}


@dataclass(frozen=True)
class Crew(Candidate):
    kind = "crew"

    members: Mapping[str, Merge]

    @property
    def scored_members(self) -> Mapping[str, Merge]:
        return self.members


MEMBERS = {name: Merge("passthrough", (f"/{name}",)) for name in SCORES}


def outcome(values: Sequence[Sequence[float]], **more: object) -> Outcome:
    scores = {
        task: TaskScores(
            tuple(map(str, range(len(own)))),
            {METRIC: tuple(map(float, own))},
            {METRIC: Estimate(sum(own) / len(own))},
        )
        for task, own in zip(TASKS, values, strict=True)
    }
    return Outcome(scores, **more)


def evaluations(*names: str) -> list[Evaluation]:
    return [
        Evaluation(f"expert:{name}", "expert", None, "select", MEMBERS[name], outcome(SCORES[name]))
        for name in names
    ]


def ensemble(**more: object) -> Evaluation:
    answered = [
        [SCORES[list(SCORES)[member]][place][item] for item, member in enumerate(ROUTES[task])]
        for place, task in enumerate(TASKS)
    ]
    found = outcome(answered, routes=ROUTES, **more)
    return Evaluation("trial:3", "winner", 3, "select", Crew(MEMBERS), found)


@pytest.fixture
def explained(lab: SimpleNamespace) -> RoutingReport:
    aims = lab.aims([{"task": task, "metric": METRIC} for task in TASKS])
    read = {"zoo_tools": (40, 0, 0), "zoo_facts": (10, 30, 0)}
    return routing(ensemble(read=read), evaluations(*SCORES), aims)


def test_items_and_tokens_are_counted_by_task_and_member(explained: RoutingReport) -> None:
    assert explained.members == ("tools", "facts", "base")
    assert explained.items == {"zoo_tools": (4, 0, 0), "zoo_facts": (1, 3, 0)}
    assert explained.tokens == {"zoo_tools": (40, 0, 0), "zoo_facts": (10, 30, 0)}


def test_the_router_is_held_against_the_best_member_of_each_item(explained: RoutingReport) -> None:
    # tools: items 0, 1 right, 2 all alike, 3 facts would have been right;
    # facts: item 0 right, 1 and 2 all alike, 3 facts would have been right
    assert explained.confusion == {"tools": (2, 0, 0), "facts": (2, 1, 0), "base": (0, 0, 0)}


def test_oracles_stand_beside_the_ensemble(explained: RoutingReport) -> None:
    found = explained.oracles
    assert found is not None
    assert (found.best, found.single) == ("facts", pytest.approx((2 / 4 + 3 / 4) / 2))
    assert found.ensemble == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert found.task == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert found.item == pytest.approx((4 / 4 + 3 / 4) / 2)


def test_tables_say_it_in_words(explained: RoutingReport) -> None:
    answers, confusion = map(table, explained.grids())
    assert "share of items / of tokens" in answers
    assert "| facts | 0.25 / 0.25 | 0.75 / 0.75 |" in answers
    assert "| all | 0.62 / 0.62 | 0.38 / 0.38 |" in answers
    assert "best single member (facts) 0.625" in answers
    assert "of 5 items on which members differ a best member answers 3" in confusion


def test_a_member_that_was_not_scored_counts_where_it_answers(lab: SimpleNamespace) -> None:
    aims = lab.aims([{"task": task, "metric": METRIC} for task in TASKS])
    found = routing(ensemble(), evaluations("tools", "base"), aims)
    assert found.unknown == ("facts",)
    # as above, less the items that facts could have answered rightly and did not
    assert found.confusion == {"tools": (2, 0, 0), "facts": (0, 1, 0), "base": (0, 0, 0)}
    assert found.oracles is not None
    assert found.oracles.best == "tools"
    assert found.oracles.item == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert "scored on the items only that it answers: facts" in table(found.grids()[0])
    assert "tokens" not in table(found.grids()[0])


def test_without_members_scores_there_are_shares_only(lab: SimpleNamespace) -> None:
    aims = lab.aims([{"task": task, "metric": METRIC} for task in TASKS])
    found = routing(ensemble(), [], aims)
    assert (found.confusion, found.oracles) == ({}, None)
    assert found.unknown == ("tools", "facts", "base")
    assert len(found.grids()) == 1


def test_less_may_be_better(lab: SimpleNamespace) -> None:
    aims = lab.aims([{"task": task, "metric": "ppl"} for task in TASKS])
    members = evaluations(*SCORES)
    renamed = [
        Evaluation(one.key, one.kind, None, "select", one.candidate, _renamed(one.outcome))
        for one in (*members, ensemble())
    ]
    found = routing(
        Evaluation("trial:3", "winner", 3, "select", Crew(MEMBERS), renamed[-1].outcome),
        renamed[:-1],
        aims,
    )
    assert found.oracles is not None
    assert (found.oracles.best, found.oracles.single) == ("base", pytest.approx(-1 / 4))


def _renamed(found: Outcome) -> Outcome:
    scores = {
        task: TaskScores(one.items, {"ppl": one.metrics[METRIC]}, {"ppl": one.values[METRIC]})
        for task, one in found.scores.items()
    }
    return Outcome(scores, routes=found.routes)


def test_metrics_that_are_no_mean_of_items_are_not_compared(lab: SimpleNamespace) -> None:
    aims = lab.aims([{"task": task, "metric": METRIC} for task in TASKS])
    members = evaluations(*SCORES)
    own = TaskScores(("0",) * 4, {METRIC: (1.0,) * 4}, {METRIC: Estimate(0.3)})
    for one in members:
        one.outcome.scores["zoo_tools"] = own  # type: ignore[index]
    assert routing(ensemble(), members, aims).oracles is None


def test_only_a_winner_whose_members_answer_apart_is_explained(lab: SimpleNamespace) -> None:
    aims = lab.aims([{"task": task, "metric": METRIC} for task in TASKS])
    members, own = evaluations(*SCORES), ensemble()
    assert list(routings([*members, own], {"select": aims})) == ["select"]
    plain = Evaluation("trial:1", "winner", 1, "select", MEMBERS["base"], outcome(SCORES["base"]))
    assert routings([*members, plain], {"select": aims}) == {}

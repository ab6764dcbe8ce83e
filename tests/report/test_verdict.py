from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from evomerge.candidate.trial import Failure, FailureKind, Outcome
from evomerge.report.evidence import Contrast, Evidence
from evomerge.report.formats import render
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.statistics import PairedTest
from evomerge.report.verdict import verdict
from evomerge.store import Store

MakeStore = Callable[..., Store]


def with_tests(board: Leaderboard, pairs: Sequence[tuple[float, float]]) -> Leaderboard:
    """Return the board with other tests: a difference and a corrected p against each opponent."""
    opponents = ("best expert", "best baseline")
    contrasts = tuple(
        Contrast(
            "trial 1",
            "rival",
            part,
            PairedTest(difference, difference - 0.1, difference + 0.1, p, 240, "exact sign flip"),
            p,
            "trial:1",
        )
        for part, (difference, p) in zip(opponents, pairs, strict=False)
    )
    return replace(board, tests=Evidence(contrasts))


@pytest.mark.parametrize(
    ("pairs", "finding", "headline"),
    [
        (
            [(0.2, 0.01), (0.1, 0.04)],
            "gain",
            "Gain over the best expert and the best naive merge: ",
        ),
        (
            [(0.2, 0.01), (0.1, 0.05)],
            "no gain",
            "Gain over the best expert, no gain over the best naive merge: ",
        ),
        (
            [(0.2, 0.5), (0.0, 0.0)],
            "no gain",
            "No gain over the best expert or the best naive merge: ",
        ),
        (
            [(0.2, 0.01), (-0.1, 0.01)],
            "loss",
            "Worse than the best naive merge, gain over the best expert: ",
        ),
        ([(0.2, 0.01)], "gain", "Gain over the best expert: "),
    ],
)
def test_a_gain_is_one_over_every_opponent(
    board: Leaderboard, pairs: Sequence[tuple[float, float]], finding: str, headline: str
) -> None:
    found = verdict(with_tests(board, pairs))
    assert found.finding == finding
    assert found.sentence.startswith(headline)


def test_the_sentence_has_names_intervals_p_and_how_it_was_tested(board: Leaderboard) -> None:
    assert verdict(with_tests(board, [(0.2, 0.012), (0.1, 1e-5)])).sentence == (
        "Gain over the best expert and the best naive merge: trial 1 against the best expert, rival: +0.200 "
        "(+0.100 to +0.300), p = 0.012; against the best naive merge, rival: +0.100 (+0.000 to +0.200), "
        "p < 0.0001 (240 holdout items, exact sign flip, Holm-corrected)"
    )


def test_it_is_what_the_real_tests_say(board: Leaderboard) -> None:
    found = verdict(board)
    assert found.finding == "gain"
    for contrast in board.tests.contrasts:
        assert f", {contrast.against}: {contrast.test.difference:+.3f} (" in found.sentence


def test_less_may_be_better(make_store: MakeStore, lab: SimpleNamespace) -> None:
    facts = {"higher_is_better": {"t": {"ppl": False}}}
    store = make_store(facts=facts, objectives=[{"task": "t", "metric": "ppl"}])
    for split in ("search", "select", "holdout"):
        for name, kind, value in (("tools", "expert", 9.0), ("trial 1", "winner", 4.0)):
            values = [value + 0.01 * item for item in range(20)]
            lab.record(store, name, split, kind, Outcome({"t": lab.task_scores(values, "ppl")}))
    found = verdict(leaderboard(store))
    assert found.finding == "gain"
    assert ": -5.000 (" in found.sentence
    assert found.sentence.endswith("less is better)")


def test_before_a_winner_it_says_what_leads(make_store: MakeStore, lab: SimpleNamespace) -> None:
    store = make_store()
    found = verdict(leaderboard(store))
    assert (found.finding, found.sentence) == (
        "no winner",
        "No winner yet, 0 trials done: no merge was scored",
    )
    lab.fill(store, until="search")
    found = verdict(leaderboard(store))
    assert found.finding == "no winner"
    assert found.sentence.startswith("No winner yet, 4 trials done: trial 1 leads with 0.889")
    assert "the best naive merge, task arithmetic λ=0.4: 0." in found.sentence


def test_a_winner_without_a_test_is_not_said_to_gain(
    make_store: MakeStore, lab: SimpleNamespace
) -> None:
    store = make_store()
    lab.fill(store, until="select")
    lab.record(store, "trial 1", "select", "winner")
    found = verdict(leaderboard(store))
    assert found.finding == "not tested"
    assert found.sentence.startswith("Not tested yet: trial 1 was chosen")
    failed = Outcome(failure=Failure(FailureKind.COLLAPSED, "says nothing"))
    lab.record(store, "trial 1", "holdout", "winner", failed)
    lab.record(store, "tools", "holdout", "expert")
    found = verdict(leaderboard(store))
    assert found.finding == "not tested"
    assert "has no scores on the holdout items: collapsed: says nothing" in found.sentence
    whole = {task: lab.task_scores([1.0, 1.0, 0.0]) for task in lab.tasks}
    lab.record(store, "trial 1", "holdout", "winner", Outcome(whole))  # other items
    found = verdict(leaderboard(store))
    assert found.finding == "not tested"
    assert "trial 1 has 0.667 on the holdout items; the best expert, tools, 0." in found.sentence


@pytest.mark.parametrize("format", ["table", "markdown"])
def test_reports_say_it_where_it_was_tested(board: Leaderboard, format: str) -> None:
    def said(split: str) -> bool:
        text = render(board, format, split, width=2_000)  # type: ignore[arg-type]
        return verdict(board).sentence in text

    assert said("holdout")
    assert not said("select")

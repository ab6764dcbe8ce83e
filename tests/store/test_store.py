"""What a store is told comes back, in order, and whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Entry, Failure, FailureKind, Gradients, Job, Outcome, Pruned
from evomerge.config import Campaign
from evomerge.errors import EvomergeError
from evomerge.store import Store, StoredGradient, folder

SPACE = {f"w{i}": FloatDistribution(0.0, 1.0) for i in range(3)}
Make = Callable[..., Entry]


def point(number: int) -> dict[str, float]:
    return {name: (number + 1) / (index + 7) % 1.0 for index, name in enumerate(SPACE)}


def ask(store: Store, candidate: Entry) -> None:
    assert candidate.number is not None
    store.asked(candidate, point(candidate.number), SPACE)


def test_asked_and_told_come_back_from_another_process_view(
    store: Store, candidate: Make, scored: Outcome, failed: Outcome
) -> None:
    for number in range(3):
        ask(store, candidate(number))
    store.told(candidate(1), scored, [0.1 + 0.2])
    store.told(candidate(0), failed, None)
    with Store.open(store.folder, write=False) as reader:
        trials = reader.trials()
    assert [t.state for t in trials] == ["failed", "complete", "asked"]
    assert [t.outcome for t in trials] == [failed, scored, None]
    assert [t.values for t in trials] == [None, (0.1 + 0.2,), None]
    assert [t.params for t in trials] == [point(n) for n in range(3)]
    assert [t.entry for t in trials] == [candidate(n) for n in range(3)]
    assert [(t.asked_seq, t.told_seq) for t in trials] == [(2, 6), (3, 5), (4, None)]


def test_events_keep_their_order_through_a_reopening(
    store: Store, candidate: Make, scored: Outcome
) -> None:
    store.add_baseline(point(9), [0.5])
    ask(store, candidate(0))
    store.close()
    with Store.open(store.folder, write=True) as again:
        again.told(candidate(0), scored, [1.0])
        again.add_baseline(point(8), [0.25])
        (trial,) = again.trials()
        assert [(b.params, b.values, b.seq) for b in again.baselines()] == [
            (point(9), (0.5,), 2),
            (point(8), (0.25,), 5),
        ]
        assert (trial.asked_seq, trial.told_seq) == (3, 4)


def test_optuna_sees_the_same(
    store: Store, candidate: Make, scored: Outcome, failed: Outcome
) -> None:
    for number in range(3):
        ask(store, candidate(number))
    store.told(candidate(0), scored, [0.75])
    store.told(candidate(1), failed, None)
    study = store.optuna_study()
    states = [TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING]
    assert [t.state for t in study.trials] == states
    assert study.best_trial.number == 0
    assert study.best_value == 0.75
    assert study.trials[2].params == point(2)
    assert study.trials[1].user_attrs["failure"] == "not finite: NaN in layer 3"


def test_a_trial_is_told_once(store: Store, candidate: Make, scored: Outcome) -> None:
    ask(store, candidate(0))
    store.told(candidate(0), scored, [1.0])
    with pytest.raises(ValueError, match="trial 0 was told before"):
        store.told(candidate(0), scored, [2.0])
    with pytest.raises(ValueError, match="trial 1 was not asked"):
        store.told(candidate(1), scored, [2.0])
    assert store.trials()[0].values == (1.0,)


def test_a_pruned_trial_keeps_its_estimate_and_its_partial_scores(
    store: Store, candidate: Make, scored: Outcome
) -> None:
    ask(store, candidate(0))
    scored = replace(scored, pruned=Pruned("significantly worse than trial 3", 2, 1))
    store.told(candidate(0), scored, [0.25], pruned=True)
    (trial,) = store.trials()
    assert (trial.state, trial.values, trial.outcome) == ("pruned", (0.25,), scored)
    (shown,) = store.optuna_study().trials
    assert shown.state is TrialState.PRUNED
    assert (shown.values, shown.intermediate_values) == ([0.25], {scored.cost.items: 0.25})
    assert shown.user_attrs["estimate"] == [0.25]
    assert shown.user_attrs["pruned after items"] == scored.cost.items > 0


def test_a_copy_of_a_pruned_trial_was_pruned_after_the_same_items(
    store: Store, candidate: Make, scored: Outcome
) -> None:
    pruned = replace(scored, pruned=Pruned("significantly worse than trial 3", 2, 1))
    for number, outcome in enumerate((pruned, replace(pruned, cost=pruned.cost.copy()))):
        ask(store, candidate(number))
        store.told(candidate(number), outcome, [0.25], pruned=True)
    first, copy = store.optuna_study().trials
    assert first.user_attrs["pruned after items"] == copy.user_attrs["pruned after items"] > 0
    assert first.intermediate_values == copy.intermediate_values


def test_several_trials_in_one_transaction_all_or_none(
    store: Store, candidate: Make, scored: Outcome, failed: Outcome, commits: list[str]
) -> None:
    with store.together():
        for number in range(4):
            ask(store, candidate(number))
    assert len(commits) == 1

    def tell(*more: int) -> None:
        with store.together():
            store.told(candidate(2), scored, [0.5])
            store.told(candidate(0), failed, None)
            store.told(candidate(1), scored, [0.25], pruned=True)
            for number in more:
                store.told(candidate(number), scored, [1.0])

    with pytest.raises(ValueError, match="trial 9 was not asked"):
        tell(9)
    assert {trial.state for trial in store.trials()} == {"asked"}
    commits.clear()
    tell()
    assert len(commits) == 1
    trials = store.trials()
    assert [t.state for t in trials] == ["failed", "pruned", "complete", "asked"]
    assert [(t.asked_seq, t.told_seq) for t in trials] == [(2, 7), (3, 8), (4, 6), (5, None)]


def test_gradient_steps_come_back_exactly_and_in_the_order_of_all_events(
    store: Store, candidate: Make, scored: Outcome
) -> None:
    params, gradients = {"b": 0.1 + 0.2, "a": -1e-300}, {"a": 2.0**-1074, "b": 1 / 3}
    ask(store, candidate(0))
    store.gradient_asked(0, 0, {"first": (0, 3), "second": (1,)}, params)
    store.gradient_asked(1, 0, {"first": (2,)}, params)
    store.told(candidate(0), scored, [1.0])
    store.gradient_told(0, 0, 0.1 + 0.7, gradients, None, 3)
    store.close()
    with Store.open(store.folder, write=True) as again:
        again.gradient_told(1, 0, None, {}, "not finite: NaN", 1)
        again.gradient_asked(0, 1, {"first": (5,)}, params)
        one, two, three = again.gradient_steps()
    assert one == StoredGradient(
        0, 0, {"first": (0, 3), "second": (1,)}, params, 0.1 + 0.7, gradients, None, 3, 3, 6
    )
    assert (two.loss, two.gradients, two.failure, two.told_seq) == (None, {}, "not finite: NaN", 7)
    assert (three.step, three.loss, three.gradients, three.told_seq) == (1, None, {}, None)


def test_a_gradient_step_is_asked_once_and_told_once(store: Store) -> None:
    store.gradient_asked(0, 0, {"first": (0,)}, {"a": 1.0})
    with pytest.raises(ValueError, match="step 0 of descent 0 was asked before"):
        store.gradient_asked(0, 0, {"first": (0,)}, {"a": 1.0})
    with pytest.raises(ValueError, match="step 1 of descent 0 was not asked"):
        store.gradient_told(0, 1, 1.0, {"a": 1.0})
    with pytest.raises(ValueError, match="a loss of nan is not finite"):
        store.gradient_told(0, 0, float("nan"), {"a": 1.0})
    store.gradient_told(0, 0, 1.0, {"a": 1.0})
    with pytest.raises(ValueError, match="step 0 of descent 0 was told before"):
        store.gradient_told(0, 0, 1.0, {"a": 1.0})


def test_each_event_is_one_transaction(
    store: Store, candidate: Make, scored: Outcome, commits: list[str]
) -> None:
    ask(store, candidate(0))
    assert len(commits) == 1
    store.told(candidate(0), scored, [1.0])
    assert len(commits) == 2


def test_events_of_all_kinds_together_are_one_transaction_all_or_none(
    store: Store, candidate: Make, scored: Outcome, commits: list[str]
) -> None:
    with store.together():
        ask(store, candidate(0))
        store.gradient_asked(0, 0, {"first": (0,)}, {"a": 1.0})
        ask(store, candidate(1))
    assert len(commits) == 1
    with pytest.raises(ValueError, match="trial 9 was not asked"), store.together():  # noqa: PT012
        store.gradient_told(0, 0, 1.0, {"a": 1.0})
        store.told(candidate(1), scored, [1.0])
        store.told(candidate(9), scored, [1.0])
    assert [trial.told_seq for trial in store.trials()] == [None, None]
    assert store.gradient_steps()[0].told_seq is None
    with store.together():
        store.told(candidate(1), scored, [1.0])
        store.gradient_told(0, 0, 1.0, {"a": 1.0})
    assert [(t.asked_seq, t.told_seq) for t in store.trials()] == [(2, None), (4, 5)]
    assert [(s.asked_seq, s.told_seq) for s in store.gradient_steps()] == [(3, 6)]


def test_a_backup_is_made_when_what_was_told_together_is_on_the_disk(
    store: Store, candidate: Make, scored: Outcome
) -> None:
    with store.together():
        ask(store, candidate(0))
        store.told(candidate(0), scored, [1.0])
        assert not (store.folder / folder.BACKUP).exists()
    copy = store.folder / "copy"
    copy.mkdir()
    (store.folder / folder.BACKUP).rename(copy / folder.DATABASE)
    (copy / folder.CAMPAIGN).write_bytes((store.folder / folder.CAMPAIGN).read_bytes())
    with Store.open(copy, write=False) as reader:
        assert [trial.state for trial in reader.trials()] == ["complete"]


def test_a_failure_keeps_its_traceback(store: Store, candidate: Make) -> None:
    outcome = Outcome(failure=Failure(FailureKind.TASK, "KeyError: 'x'", "Traceback\n  line 3"))
    ask(store, candidate(0))
    store.told(candidate(0), outcome, None)
    store.gradient_asked(0, 0, {}, {"w": 1.0})
    failed = Gradients(failure=Failure(FailureKind.TASK, "KeyError", "Traceback\n  line 4"))
    store.gradient_told(0, 0, None, {}, "task: KeyError", found=failed)
    with Store.open(store.folder, write=False) as reader:
        (trial,), (step,) = reader.trials(), reader.gradient_steps()
    assert trial.outcome is not None
    assert trial.outcome.failure is not None
    assert trial.outcome.failure.trace == "Traceback\n  line 3"
    assert step.failure_trace == "Traceback\n  line 4"


def test_evaluations_of_what_is_no_trial(
    store: Store, candidate: Make, scored: Outcome, failed: Outcome
) -> None:
    ask(store, candidate(0))
    store.told(candidate(0), scored, [1.0])
    base = Entry("base", candidate(0).candidate, role="base")
    store.record(Job(base, "search"), failed)
    store.record(Job(base, "search"), scored)
    store.record(Job(candidate(0), "select"), failed)
    found = [(e.name, e.kind, e.number, e.split) for e in store.evaluations()]
    assert found == [("base", "base", None, "search"), ("trial 0", "finalist", 0, "select")]
    assert store.evaluation("base", "search") == scored
    assert store.evaluation("trial:0", "select") == failed
    assert store.evaluation("trial:0", "holdout") is None


def test_campaign_and_facts_come_back(
    store: Store, campaign: Campaign, facts: dict[str, object]
) -> None:
    assert Campaign.load(store.folder / "campaign.yaml") == campaign
    with Store.open(store.folder, write=False) as reader:
        assert reader.campaign == campaign
        assert reader.facts == facts
    text = (store.folder / "campaign.yaml").read_text()
    assert "#   versions:\n#     optuna: 5.0.0" in text


def test_what_the_sampler_plans_for_stays_as_it_was(store: Store) -> None:
    planned = store.planned_trials
    store.extend(1000)
    store.close()
    with Store.open(store.folder, write=False) as again:
        assert again.campaign.search.trials == planned + 1000
        assert again.planned_trials == planned


def test_trials_without_a_limit_are_extended_by_so_many_more(
    campaign: Campaign, candidate: Make, tmp_path: Path
) -> None:
    search = campaign.search.model_copy(update={"trials": None, "hours": 1.0})
    unlimited = campaign.model_copy(update={"search": search})
    with Store.create(tmp_path / "new", unlimited, {}, directions=["maximize"]) as store:
        assert store.campaign.search.trials is None
        for number in range(3):
            ask(store, candidate(number))
        store.extend(4)
        assert store.campaign.search.trials == 7


def test_what_ended_the_search_is_kept(store: Store) -> None:
    assert store.ended is None
    for reason in ("hours", None, "trials"):
        store.end(reason)
        with Store.open(store.folder, write=False) as reader:
            assert reader.ended == reason


def test_the_budget_can_be_extended(store: Store, campaign: Campaign) -> None:
    store.extend(30)
    store.extend(0)
    assert store.campaign.search.trials == campaign.search.trials + 30
    store.close()
    with Store.open(store.folder, write=True) as again:
        assert again.campaign.search.trials == campaign.search.trials + 30


def test_a_full_disk_leaves_what_was_there(store: Store, candidate: Make, scored: Outcome) -> None:
    for number in range(2):
        ask(store, candidate(number))
    store.told(candidate(0), scored, [1.0])
    connection = store._log.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")

    def fill() -> None:
        for number in range(2, 100):
            ask(store, candidate(number))

    with pytest.raises(EvomergeError, match="disk is full"):
        fill()
    asked = len(store.trials())
    store.close()
    with Store.open(store.folder, write=True) as again:
        assert [t.number for t in again.trials()] == list(range(asked))
        again.told(candidate(1), scored, [0.5])
        ask(again, candidate(asked))
        assert len(again.optuna_study().trials) == asked + 1


def test_what_a_step_took_is_kept(store: Store) -> None:
    store.gradient_asked(0, 0, {"arc": (1,)}, {"a": 0.5})
    cost = Cost(0.25, 1.5, 24, began=1_700_000_000.125)
    store.gradient_told(
        0, 0, 1.0, {"a": 2.0}, cost_items=72, found=Gradients(cost=cost, worker="node/7")
    )
    (step,) = store.gradient_steps()
    assert (step.cost, step.cost.began, step.worker) == (cost, 1_700_000_000.125, "node/7")

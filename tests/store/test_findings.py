from __future__ import annotations

from dataclasses import replace

from evomerge.candidate.trial import Job
from evomerge.report.leaderboard import leaderboard
from evomerge.store import Store


def test_outcomes_are_found_by_what_was_scored_and_are_no_rows(store, candidate, scored, failed):
    entry = candidate(1)
    store.findings.record(Job(entry, "select"), scored)
    other = replace(entry, name="elsewhere", number=None)
    assert store.findings.outcome(other.candidate, "select") == scored
    assert store.findings.outcome(entry.candidate, "holdout") is None
    assert store.findings.outcome(entry.candidate, "select", noise=0) is None
    assert store.findings.outcome(candidate(1, 0.7).candidate, "select") is None
    store.findings.record(Job(entry, "select", noise=0), failed)
    assert store.findings.outcome(entry.candidate, "select", noise=0) == failed
    assert store.findings.outcome(entry.candidate, "select") == scored
    assert store.evaluations() == ()
    assert leaderboard(store).rows == ()


def test_the_last_finding_holds_and_is_there_when_the_folder_is_opened_again(
    store, candidate, scored, failed
):
    entry = candidate(1)
    store.findings.record(Job(entry, "select"), failed)
    store.findings.record(Job(entry, "select"), scored)
    store.findings.keep("gradient", {"loss": 0.1 + 0.2})
    assert store.findings.get("states") is None
    store.close()
    with Store.open(store.folder, write=False) as again:
        assert again.findings.outcome(entry.candidate, "select") == scored
        assert again.findings.get("gradient") == {"loss": 0.1 + 0.2}


def test_each_finding_is_on_the_disk_before_the_call_returns(store, candidate, scored, commits):
    store.findings.record(Job(candidate(1), "select"), scored)
    assert commits == ["COMMIT"]
    store.findings.keep("key", {})
    assert commits == ["COMMIT"] * 2

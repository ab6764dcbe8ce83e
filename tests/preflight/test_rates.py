"""Evaluations are tried out where models are small, and products timed where they are large."""

from __future__ import annotations

import time

from evomerge.merge.live import LiveModel
from evomerge.preflight import rates as module
from evomerge.preflight.rates import rates


def test_a_small_model_is_tried_out(checked):
    ready = checked("cmaes, trials: 4", "gradient, trials: 4")
    start = time.process_time()
    found = rates(ready, "cpu")
    taken = time.process_time() - start
    assert found.tried
    assert 0 < found.searched == found.reported
    assert found.gradient > 0
    assert (
        found.searched * 8 < taken + 1
    )  # an evaluation of eight items of every task was part of it


def test_gradients_are_tried_out_only_where_they_are_taken(checked):
    assert rates(checked(), "cpu").gradient == 0


def test_another_metric_that_is_reported_is_tried_out(checked):
    ready = checked(
        "zoo_facts, metric: exact_match", "zoo_facts, metric: gold_loglikelihood, report: exact_match",
        "zoo_tools, metric: exact_match", "zoo_tools, metric: gold_loglikelihood, report: exact_match",
    )  # fmt: skip
    found = rates(ready, "cpu")
    assert found.reported > found.searched  # which only reads, and writes nothing


def test_a_large_model_is_not_loaded(checked, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_TRIED", 10**6)
    monkeypatch.setattr(module, "LiveModel", None)
    found = rates(checked(), "cpu")
    assert not found.tried
    assert 0 < found.searched == found.reported
    assert found.gradient > found.searched  # of one item, three forward passes; of two tasks


def test_of_many_items_a_part_is_tried_out(checked, monkeypatch):
    scored = []
    score = module.Scorer.score_in_blocks

    def noting(self, module, split, metrics, blocks):
        scored.append([{task: len(chosen) for task, chosen in block.items()} for block in blocks])
        return score(self, module, split, metrics, blocks)

    monkeypatch.setattr(module.Scorer, "score_in_blocks", noting)
    monkeypatch.setattr(module, "TRIAL_SECONDS", 0.0)
    assert rates(checked(), "cpu").tried
    assert scored == [[{"zoo_facts": 1, "zoo_tools": 1}]] * 2


def test_a_candidate_that_cannot_be_scored_leaves_a_guess(checked, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(LiveModel, "write", full)
    assert not rates(checked(), "cpu").tried

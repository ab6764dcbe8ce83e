from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.candidate import Merge
from evomerge.candidate.trial import (
    Failure,
    FailureKind,
    Gradients,
    Job,
    Jobs,
    Race,
    TargetsFound,
)
from evomerge.candidate.writing import WriteJob
from evomerge.config import Workers
from evomerge.errors import ModelError
from evomerge.racing import blocks
from evomerge.scoring import BACKENDS, Scorer
from evomerge.workers import RayPool, SerialPool, WorkerSetup, memory_plan, open_pool
from evomerge.workers import evaluator as evaluator_module
from evomerge.workers.cluster import Cluster
from evomerge.workers.evaluator import Evaluator
from evomerge.workers.memory_plan import MemoryPlan
from evomerge.workers.placement import Sharing
from tests.workers.letters import gradient_job, job, target_job


def test_a_candidate_is_scored_item_by_item(setup: WorkerSetup, evaluator: Evaluator) -> None:
    outcome = evaluator.evaluate(job(setup, 0.4))
    scores = outcome.scores["letters"]
    assert outcome.failure is None
    assert len(set(scores.items)) == 8
    assert set(scores.metrics["acc"]) <= {0.0, 1.0}
    assert len(set(scores.metrics["gold_loglikelihood"])) == 8
    assert scores.values["acc"].value == pytest.approx(sum(scores.metrics["acc"]) / 8)
    assert outcome.cost.items == 8
    assert min(outcome.cost.merge_seconds, outcome.cost.score_seconds) > 0
    assert outcome.worker.endswith(f"/{os.getpid()}")


def test_no_candidate_leaves_a_trace_on_the_next(setup: WorkerSetup, evaluator: Evaluator) -> None:
    first = evaluator.evaluate(job(setup, 0.4))
    other = evaluator.evaluate(job(setup, 0.9))
    again = evaluator.evaluate(job(setup, 0.4))
    assert first.scores == again.scores
    assert first.scores != other.scores


def test_texts_are_written_as_lm_eval_would_be_answered(
    setup: WorkerSetup, evaluator: Evaluator
) -> None:
    prompts = ("what is 3?", "who", "what is 3?")
    model = Merge("passthrough", (setup.models[1],), dtype="float32")
    found = evaluator.write(WriteJob("texts", model, prompts, 6, ("q",)))
    assert found.failure is None
    assert found.cost.items == 3
    module = AutoModelForCausalLM.from_pretrained(setup.models[1], dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(setup.models[1])
    lm = HFLM(module, tokenizer=tokenizer, batch_size=1)
    options = {"until": ["q"], "max_gen_toks": 6, "do_sample": False}
    asked = [Instance("generate_until", {}, (prompt, dict(options)), 0) for prompt in prompts]
    assert list(found.texts) == lm.generate_until(asked, disable_tqdm=True)
    assert len(set(found.texts)) == 2


def test_a_text_longer_than_the_context_is_a_failure(
    setup: WorkerSetup, evaluator: Evaluator
) -> None:
    model = Merge("passthrough", (setup.models[1],), dtype="float32")
    found = evaluator.write(WriteJob("texts", model, ("a",), 4096))
    assert found.failure is not None
    assert "generates up to 4096 tokens" in found.failure.reason
    assert found.texts == ()


def test_splits_share_no_item(setup: WorkerSetup, evaluator: Evaluator) -> None:
    search = evaluator.evaluate(job(setup, 0.4)).scores["letters"].items
    holdout = evaluator.evaluate(job(setup, 0.4, "holdout")).scores["letters"].items
    assert len(holdout) == 4
    assert not set(search) & set(holdout)


def race_against(values: tuple[float, ...]) -> Race:
    return Race(
        metrics={"letters": "gold_loglikelihood"},
        weights={"letters": 1.0},
        signs={"letters": 1},
        best={"letters": 0.0},
        expected={"letters": values},
        spread={"letters": 0.1},
        blocks=4,
        rivals=({"letters": values},),
        alpha=0.5,
    )


def test_a_race_is_stopped_when_the_candidate_cannot_win(
    setup: WorkerSetup, evaluator: Evaluator
) -> None:
    asked = job(setup, 0.4)
    full = evaluator.evaluate(asked)
    values = full.scores["letters"].metrics["gold_loglikelihood"]
    behind = race_against(tuple(value / 3 for value in values))
    stopped = evaluator.evaluate(replace(asked, race=behind))
    assert stopped.failure is None
    assert stopped.pruned is not None
    done = stopped.pruned.blocks
    assert stopped.cost.items == len(stopped.scores["letters"].items) == 2 * done < 8
    assert "significantly worse than the best so far" in stopped.pruned.reason
    scored = sorted(n for block in blocks(behind)[:done] for n in block["letters"])
    expected = [full.scores["letters"].items[n] for n in scored]
    assert list(stopped.scores["letters"].items) == expected

    ahead = race_against(tuple(value - 1.0 for value in values))
    finished = evaluator.evaluate(replace(asked, race=ahead))
    assert finished.pruned is None
    assert finished.cost.items == 8
    assert finished.scores["letters"].items == full.scores["letters"].items
    assert finished.scores["letters"].metrics["acc"] == full.scores["letters"].metrics["acc"]


def test_a_backend_of_lm_evals_scores_the_same(setup: WorkerSetup, evaluator: Evaluator) -> None:
    asked = replace(job(setup, 0.4), metrics={"letters": ("acc", "gold_probability")})
    resident = evaluator.evaluate(asked)
    other = replace(setup, backend="hf", backend_arguments={"device": "cpu"})
    outcome = Evaluator(other).evaluate(asked)
    assert outcome.failure is None
    expected, found = resident.scores["letters"], outcome.scores["letters"]
    assert Evaluator(other).evaluate(replace(asked, race=race_against((9.0,) * 8))).pruned is None
    assert found.items == expected.items
    assert found.metrics["acc"] == expected.metrics["acc"]
    assert found.metrics["gold_probability"] == pytest.approx(
        expected.metrics["gold_probability"], abs=1e-5
    )


def test_failures_are_typed_and_leave_the_evaluator_usable(
    setup: WorkerSetup, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = evaluator.evaluate(job(setup, 0.4)).scores
    resident = evaluator._scoring
    kinds = {}

    outcome = evaluator.evaluate(job(setup, 0.4, method="no_such_method"))
    kinds["method"] = outcome.failure and outcome.failure.kind
    with monkeypatch.context() as patch:

        def overflow(_: Merge) -> None:
            next(resident._model.module.parameters()).fill_(float("nan"))

        patch.setattr(resident._model, "write", overflow)
        outcome = evaluator.evaluate(job(setup, 0.4))
        kinds["nan"] = outcome.failure and outcome.failure.kind
    unknown = Job(job(setup, 0.4).entry, "search", {"letters": ("no_such_metric",)})
    outcome = evaluator.evaluate(unknown)
    kinds["metric"] = outcome.failure and outcome.failure.kind
    assert outcome.cost.merge_seconds > 0
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise torch.OutOfMemoryError("no room")

        patch.setattr(resident._scorer, "score", full)
        outcome = evaluator.evaluate(job(setup, 0.4))
        kinds["memory"] = outcome.failure and outcome.failure.kind

        def broken(*_: object) -> None:
            raise ZeroDivisionError("in a metric")

        patch.setattr(resident._scorer, "score", broken)
        outcome = evaluator.evaluate(job(setup, 0.4))
        kinds["foreign"] = outcome.failure and outcome.failure.kind
    assert kinds == {
        "method": FailureKind.MERGE,
        "nan": FailureKind.NOT_FINITE,
        "metric": FailureKind.TASK,
        "memory": FailureKind.OUT_OF_MEMORY,
        "foreign": FailureKind.TASK,
    }
    assert evaluator.evaluate(job(setup, 0.4)).scores == good


def test_a_backend_runs_where_the_workers_do(setup: WorkerSetup) -> None:
    assert evaluator_module.backend_defaults(setup) == {"device": "cpu"}
    shared = replace(setup, device="cuda", sharing=Sharing(8, 2), trust_remote_code=True)
    assert evaluator_module.backend_defaults(shared) == {
        "device": "cuda",
        "trust_remote_code": True,
        "gpu_memory_utilization": 0.45,
    }
    alone = replace(setup, device="cuda", sharing=Sharing(8, 1))
    assert evaluator_module.backend_defaults(alone) == {"device": "cuda"}
    found = Evaluator(replace(setup, backend="hf"))._scoring._scorer._arguments
    assert found == {"device": "cpu"}


def test_a_backend_from_outside_scores_modules(
    setup: WorkerSetup, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Outside(Scorer):
        gradients = False

    monkeypatch.setitem(BACKENDS, "outside", Outside)
    found = Evaluator(replace(setup, backend="outside", backend_arguments={"memory": 2**28}))
    assert found.evaluate(job(setup, 0.4)).scores == (evaluator.evaluate(job(setup, 0.4)).scores)
    failure = found.gradient(gradient_job(setup)).failure
    assert failure is not None
    assert "gradients and teachers need the resident scorer" in failure.reason


def test_a_worker_that_cannot_start_says_why(setup: WorkerSetup) -> None:
    with pytest.raises(ModelError, match="/nowhere"):
        Evaluator(replace(setup, models=(setup.models[0], "/nowhere")))


def test_pools_give_the_same_scores(
    setup: WorkerSetup, ray_cluster: Cluster, evaluator: Evaluator
) -> None:
    """Real models in a Ray worker and in this process: the same bits."""
    serial = open_pool(setup, Workers(count=0))
    distributed = open_pool(setup, Workers(count=2))
    assert isinstance(serial, SerialPool)
    assert isinstance(distributed, RayPool)
    found = []
    for pool in (serial, distributed):
        pool.submit(job(setup, 0.7))
        back, outcome = pool.next(timeout=120)
        assert back == job(setup, 0.7)
        assert outcome.failure is None
        pool.submit(replace(target_job(setup), mistaken=True))
        _, taught = pool.next(timeout=120)
        assert isinstance(taught, TargetsFound)
        pool.submit(replace(gradient_job(setup, 0.7), targets={"letters": taught.targets[:3]}))
        _, gradients = pool.next(timeout=120)
        assert isinstance(gradients, Gradients)
        assert gradients.failure is None
        found.append((outcome.scores, gradients.loss, gradients.numbers))
        pool.close()
    assert found[0] == found[1]


def test_a_worker_keeps_to_its_memory_plan(
    setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing = Sharing(node=4, device=2)
    shared = replace(setup, sharing=sharing, methods=("ties",))
    plans: list[MemoryPlan] = []
    planned = evaluator_module.plan_memory_here

    def here(*given: Any) -> MemoryPlan:
        plans.append(replace(planned(*given), on_gpu=True, inputs=2000, derived=1000, passes=2**21))
        return plans[-1]

    monkeypatch.setattr(evaluator_module, "plan_memory_here", here)
    found = Evaluator(shared)
    (plan,) = plans
    assert plan.sharing == sharing
    resident = found._scoring
    assert isinstance(resident, evaluator_module._Resident)
    (kept,) = resident._model.memories.values()
    assert (kept.budget, kept.for_inputs) == (3000, 2000)
    assert resident._scorer.engine(resident._model.module).room.cached == 2**19 // (
        2 * 4 * 2 * 8 * 4
    )
    assert found.evaluate(job(setup, 0.4)).failure is None
    assert kept.used <= 3000


def test_a_job_that_asks_for_it_is_timed_beside_the_base(
    setup: WorkerSetup, evaluator: Evaluator
) -> None:
    plain = evaluator.evaluate(job(setup, 0.4))
    assert plain.timing is None
    timed = evaluator.evaluate(replace(job(setup, 0.4), timed=True))
    assert timed.scores == plain.scores
    assert timed.timing is not None
    assert (timed.timing.relative, timed.timing.spread) == (1.0, 0.0)  # as the base is computed
    assert timed.timing.milliseconds == timed.timing.base_milliseconds > 0


def test_models_that_do_not_fit_together_are_refused(
    setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "host_memory", lambda: (2**30, 2**30 // 2))
    Evaluator(setup)  # which one model may try
    message = r"candidates that hold 3 models at once do not fit: 1 worker need .*; or take fewer"
    with pytest.raises(ModelError, match=message):
        Evaluator(replace(setup, whole_models=3))


def test_candidates_that_come_together_score_as_they_do_alone(
    evaluator: Evaluator, setup: WorkerSetup
) -> None:
    jobs = tuple(job(setup, weight) for weight in (0.2, 0.9))
    found = evaluator.together(Jobs(jobs)).each
    assert [one.scores for one in found] == [evaluator.evaluate(one).scores for one in jobs]
    assert len({str(one.scores) for one in found}) == 2


def test_what_cannot_be_written_at_once_is_tried_alone(
    evaluator: Evaluator, setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_one(jobs: Sequence[Job]) -> dict[int, Any]:
        if len(jobs) > 1 or jobs[0] is bad:
            raise RuntimeError("too many")
        return {}

    good, bad = job(setup, 0.2), job(setup, 0.9)
    expected = evaluator.evaluate(good).scores
    monkeypatch.setattr(evaluator._scoring, "texts", only_one)
    first, second = evaluator.together(Jobs((good, bad))).each
    assert first.scores == expected
    assert second.failure == Failure(FailureKind.TASK, "RuntimeError: too many")

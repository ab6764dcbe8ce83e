from __future__ import annotations

import os
from typing import NoReturn

import pytest
import torch

from evomerge.candidate import Merge
from evomerge.candidate.trial import (
    Entry,
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Job,
    Outcome,
    TargetJob,
    TargetsFound,
)
from evomerge.errors import MergeError, RecipeError, TaskError
from evomerge.inference import Collapsed, NotFinite
from evomerge.inference.failures import EngineLost
from evomerge.workers.failures import CANDIDATE_ERRORS, LONGEST_TRACE, DeviceLost, failure_of
from evomerge.workers.ray_pool import Worker


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (MemoryError(), FailureKind.OUT_OF_MEMORY, "MemoryError"),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            FailureKind.OUT_OF_MEMORY,
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 17.61 GB)"),
            FailureKind.OUT_OF_MEMORY,
            "RuntimeError: MPS backend out of memory (MPS allocated: 17.61 GB)",
        ),
        (torch.OutOfMemoryError("CUDA"), FailureKind.OUT_OF_MEMORY, "OutOfMemoryError: CUDA"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            FailureKind.OUT_OF_MEMORY,
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried",
        ),
        (NotFinite("NaN\nin logits"), FailureKind.NOT_FINITE, "NaN in logits"),
        (Collapsed("one token"), FailureKind.COLLAPSED, "one token"),
        (MergeError("opposed"), FailureKind.MERGE, "opposed"),
        (RecipeError("wrong"), FailureKind.MERGE, "wrong"),
        (TaskError("no gold"), FailureKind.TASK, "no gold"),
        (KeyError("answer"), FailureKind.WORKER, "KeyError: 'answer'"),
        (RuntimeError("shapes"), FailureKind.WORKER, "RuntimeError: shapes"),
    ],
)
def test_kind_and_reason(error: Exception, kind: FailureKind, reason: str) -> None:
    assert isinstance(error, CANDIDATE_ERRORS)
    assert failure_of(error, FailureKind.WORKER) == Failure(kind, reason)


def broken(depth: int) -> None:
    if depth:
        broken(depth - 1)
    raise KeyError("answer")


def test_the_traceback_is_kept() -> None:
    try:
        broken(3)
    except KeyError as error:
        trace = failure_of(error, FailureKind.TASK).trace
    assert trace.startswith("Traceback (most recent call last)")
    assert trace.count("in broken") == 4
    assert trace.rstrip().endswith("KeyError: 'answer'")


def test_of_a_long_one_the_end_is_kept() -> None:
    try:
        raise ValueError("x" * LONGEST_TRACE + " the end")
    except ValueError as error:
        trace = failure_of(error, FailureKind.TASK).trace
    assert len(trace) == LONGEST_TRACE + 1
    assert trace.rstrip().endswith("the end")


def test_what_ends_the_process_is_let_through() -> None:
    assert not issubclass(KeyboardInterrupt, CANDIDATE_ERRORS)
    assert not issubclass(SystemExit, CANDIDATE_ERRORS)


def test_a_lost_gpu_is_no_failure_of_one_candidate() -> None:
    gone = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    assert isinstance(gone, CANDIDATE_ERRORS)
    with pytest.raises(
        DeviceLost, match="cannot be used any more by this process: CUDA error: an ill"
    ):
        failure_of(gone, FailureKind.TASK)
    full = torch.AcceleratorError("CUDA error: out of memory")
    assert failure_of(full, FailureKind.TASK).kind is FailureKind.OUT_OF_MEMORY


def test_a_lost_vllm_is_no_failure_of_one_candidate() -> None:
    gone = EngineLost("vLLM breaks off: no such kernel")
    assert isinstance(gone, CANDIDATE_ERRORS)
    with pytest.raises(DeviceLost, match=r"writes no more texts: vLLM breaks off: no such kernel$"):
        failure_of(gone, FailureKind.TASK)


def test_a_worker_whose_gpu_is_lost_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        def evaluate(self, job: Job) -> Outcome:
            raise DeviceLost("gone")

        def gradient(self, job: GradientJob) -> Gradients:
            raise DeviceLost("gone")

        def targets(self, job: TargetJob) -> TargetsFound:
            raise DeviceLost("gone")

    statuses: list[int] = []

    def die(status: int) -> NoReturn:
        statuses.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", die)
    work = Job(Entry("trial 0", Merge("passthrough", ("m",)), 0), "search")
    worker = Worker(None)
    worker._evaluator = Lost()
    with pytest.raises(SystemExit):
        worker.answer(work)
    assert statuses == [1]

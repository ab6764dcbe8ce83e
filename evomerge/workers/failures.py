"""Exceptions of a candidate's evaluation → typed failures.

A candidate that cannot be built or scored is an outcome like any other. Metrics, filters and tasks are
foreign code, which may raise anything that code raises; only what ends a process is let through.
"""

from __future__ import annotations

import traceback

import torch

from evomerge.candidate.trial import Failure, FailureKind
from evomerge.errors import EvomergeError, MergeError, RecipeError, TaskError
from evomerge.inference import Collapsed, NotFinite
from evomerge.inference.failures import EngineLost

CANDIDATE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    Collapsed,
    MergeError,
    NotFinite,
    RecipeError,
    TaskError,
)

_KINDS: tuple[tuple[type[Exception], FailureKind], ...] = (
    (MemoryError, FailureKind.OUT_OF_MEMORY),
    (torch.OutOfMemoryError, FailureKind.OUT_OF_MEMORY),
    (NotFinite, FailureKind.NOT_FINITE),
    (Collapsed, FailureKind.COLLAPSED),
    (MergeError, FailureKind.MERGE),
    (RecipeError, FailureKind.MERGE),
    (TaskError, FailureKind.TASK),
)
_ALLOCATOR_FAILED = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)

LONGEST_TRACE = 20_000
"""Characters: a recursion without end has thousands of lines that are all alike."""


class DeviceLost(EvomergeError):  # noqa: N818 - it states an outcome
    """A GPU's context, or vLLM, is gone: nothing that this process asks of it will succeed any more."""


def failure_of(error: BaseException, otherwise: FailureKind) -> Failure:
    """Return the failure that an exception stands for.

    Args:
        error: One of `CANDIDATE_ERRORS`.
        otherwise: The kind of an error that says nothing of itself: by the step that raised it.

    Raises:
        DeviceLost: It is not the failure of one candidate: the next one needs another process.
    """
    kind = next((kind for error_type, kind in _KINDS if isinstance(error, error_type)), otherwise)
    message = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and any(text in message for text in _ALLOCATOR_FAILED):
        kind = FailureKind.OUT_OF_MEMORY
    if isinstance(error, EngineLost):
        raise DeviceLost(f"this process writes no more texts: {message}") from error
    if isinstance(error, torch.AcceleratorError) and kind is not FailureKind.OUT_OF_MEMORY:
        raise DeviceLost(f"the GPU cannot be used any more by this process: {message}") from error
    ours = isinstance(error, Collapsed | MergeError | NotFinite | RecipeError | TaskError)
    named = message if ours and message else f"{type(error).__name__}: {message}".rstrip(": ")
    return Failure(kind, named, traceback_of(error))


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, its causes' included; of a very long one the end."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= LONGEST_TRACE else f"…{text[-LONGEST_TRACE:]}"

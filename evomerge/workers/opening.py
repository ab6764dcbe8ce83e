"""Settings → a pool of evaluators."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from evomerge.workers.assignment import Assignment
from evomerge.workers.pool import Evaluates, Pool
from evomerge.workers.ray_pool import RayPool
from evomerge.workers.serial_pool import SerialPool


def open_pool(
    assignment: Assignment,
    *,
    count: int | Literal["auto"],
    cpus: float = 1,
    gpus: float = 0,
    address: str | None = None,
) -> Pool:
    """Start workers.

    Args:
        assignment: What each of them loads.
        count: Number of Ray workers; `auto`: what the machine or cluster holds; 0: one, in this process.
        cpus: Cores of each, its threads too.
        gpus: GPUs of each, fractions too.
        address: A Ray cluster to join; None: this machine.

    Raises:
        UserError: A model or task cannot be used, or there is no room for the workers.
        EvomergeError: Ray cannot be started or reached.
    """
    build = partial(_evaluator, replace(assignment, threads=max(1, int(cpus))))
    if count == 0:
        return SerialPool(build)
    return RayPool(build, count=count, cpus=cpus, gpus=gpus, address=address)


def _evaluator(assignment: Assignment) -> Evaluates:
    from evomerge.workers.evaluator import (
        Evaluator,
    )  # torch, transformers and lm-eval: in the worker

    return Evaluator(assignment)

"""Settings → a pool of evaluators."""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import partial
from typing import Literal

from evomerge.config.model_names import parts
from evomerge.errors import CampaignError
from evomerge.workers.assignment import Assignment
from evomerge.workers.early import EarlyPool
from evomerge.workers.imports import import_quickly
from evomerge.workers.joining import find_cluster
from evomerge.workers.pool import Evaluates, Pool
from evomerge.workers.ray_pool import RETRIES, RayPool
from evomerge.workers.serial_pool import SerialPool
from evomerge.workers.sharing import Sharing, sharing_of
from evomerge.workers.transfer import Transfer, Translated, local_model, local_names

EVALUATOR = "evomerge.workers.evaluator"
"""Imports torch, transformers and lm-eval: in the worker."""


def open_pool(
    assignment: Assignment,
    *,
    count: int | Literal["auto"],
    cpus: float = 1,
    gpus: float = 0,
    address: str | None = None,
    retries: int = RETRIES,
    ordered: bool = False,
    early: EarlyPool | None = None,
) -> Pool:
    """Start workers.

    Args:
        assignment: What each of them loads.
        count: Number of Ray workers; `auto`: what the machine or cluster holds, as nodes join and leave;
            0: one, in this process, which 1 on this machine means too.
        cpus: Cores of each, its threads too.
        gpus: GPUs of each, fractions too.
        address: A Ray cluster to join; None: this machine. Models and tasks that a node of it lacks are
            sent there.
        retries: How often work whose worker died is given to another one.
        ordered: Hand work back in the order of submission.
        early: Workers that were started already, by the same settings.

    Raises:
        UserError: A model or task cannot be used, or the workers do not fit.
        EvomergeError: Ray cannot be started or reached.
    """
    assignment = replace(assignment, threads=max(1, int(cpus)))
    if in_process(count, address):
        if gpus:
            _check_cuda()
        return SerialPool(partial(_evaluator, assignment))
    transfer = _transfer(assignment, address)
    build = partial(_on_a_node, assignment, transfer, count, cpus, gpus)
    if early is not None:
        pool = early.take()
        pool.begin(build, transfer)
        return pool
    return RayPool(
        build,
        count=count,
        cpus=cpus,
        gpus=gpus,
        address=address,
        retries=retries,
        ordered=ordered,
        transfer=transfer,
    )


def start_early(
    *,
    count: int | Literal["auto"],
    cpus: float = 1,
    gpus: float = 0,
    address: str | None = None,
    retries: int = RETRIES,
    ordered: bool = False,
) -> EarlyPool | None:
    """Start Ray and let workers import their libraries while the driver checks a campaign.

    Args:
        count: As for `open_pool`, and so are the others.
        cpus: Cores of each.
        gpus: GPUs of each.
        address: A Ray cluster to join.
        retries: How often work whose worker died is given to another one.
        ordered: Hand work back in the order of submission.

    Returns:
        For `open_pool`; None: no Ray is needed.

    Raises:
        UserError: No cluster can be joined at that address.
    """
    if address is not None:
        address = find_cluster(
            address
        ).address  # also where no worker will use it: it is a mistake, then
    if in_process(count, address):
        return None
    return EarlyPool(
        partial(
            RayPool,
            count=count,
            cpus=cpus,
            gpus=gpus,
            address=address,
            retries=retries,
            ordered=ordered,
            prepare=partial(import_quickly, EVALUATOR),
        )
    )


def in_process(count: int | Literal["auto"], address: str | None) -> bool:
    """Return whether the driver does the work itself: a single worker here needs no Ray."""
    return count == 0 or (count == 1 and address is None)


def _check_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise CampaignError(
            "a GPU is asked for, and PyTorch finds none here; set it to 0", field="workers.gpus"
        )


def _transfer(assignment: Assignment, address: str | None) -> Transfer | None:
    """On a cluster whose driver is on one of its nodes, what that node can send to the others."""
    if address is None or address.startswith("ray://"):
        return None
    models = [part for model in assignment.models for part in parts(model)]
    tasks = [] if assignment.tasks_path is None else [assignment.tasks_path]
    return Transfer(
        f"evomerge-transfer-{uuid.uuid4().hex}",
        tuple(dict.fromkeys([*models, *tasks])),
        assignment.trust_remote_code,
        assignment.allow_pickle,
    )


def _on_a_node(
    assignment: Assignment,
    transfer: Transfer | None,
    count: int | Literal["auto"],
    cpus: float,
    gpus: float,
) -> Evaluates:
    """Build an evaluator from what this node has, or gets."""
    assignment = replace(assignment, sharing=_sharing(count, cpus, gpus))
    names = {} if transfer is None else local_names(transfer)
    if not names:
        return _evaluator(assignment)
    rename = local_model(names)
    tasks, vocabulary = assignment.tasks_path, assignment.vocabulary
    local = replace(
        assignment,
        models=tuple(map(rename, assignment.models)),
        tasks_path=None if tasks is None else names.get(tasks, tasks),
        vocabulary=None if vocabulary is None else vocabulary.renamed(rename),
    )
    return Translated(_evaluator(local), names)


def _sharing(count: int | Literal["auto"], cpus: float, gpus: float) -> Sharing:
    """Return the most workers that share this node and a GPU of it."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    resources = [node["Resources"] for node in ray.nodes() if node["NodeID"] == here]
    return sharing_of(count, cpus, gpus, resources)


def _evaluator(assignment: Assignment) -> Evaluates:
    evaluator: Evaluates = import_quickly(EVALUATOR).Evaluator(assignment)
    return evaluator

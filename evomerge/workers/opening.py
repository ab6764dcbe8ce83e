"""Settings → a pool of evaluators."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal

from evomerge.config import Workers
from evomerge.config.model_names import parts
from evomerge.errors import CampaignError
from evomerge.workers.imports import import_quickly
from evomerge.workers.joining import find_cluster
from evomerge.workers.placement import Sharing, sharing_of
from evomerge.workers.pool import Evaluates, Pool, SerialPool
from evomerge.workers.ray_pool import RayPool
from evomerge.workers.setup import WorkerSetup
from evomerge.workers.together import Together
from evomerge.workers.transfer import Transfer, Translated, local_model, local_names

EVALUATOR = "evomerge.workers.evaluator"
"""Imports torch, transformers and lm-eval: in the worker."""

Started = Future[RayPool]
"""Ray workers that import their libraries, and do not know yet what to load."""


def open_pool(
    setup: WorkerSetup,
    workers: Workers,
    *,
    address: str | None = None,
    ordered: bool = False,
    started: Started | None = None,
) -> Pool:
    """Start workers, or let those load that were started.

    Args:
        setup: What each of them loads.
        workers: How many; 0 means one in this process, and so does 1 on this machine.
        address: A Ray cluster to join; None: this machine. Models and tasks that a node of it lacks are
            sent there.
        ordered: Hand work back in the order of submission.
        started: Workers that were started by the same settings.

    Raises:
        UserError: A model or task cannot be used, or the workers do not fit.
        EvomergeError: Ray cannot be started or reached.
    """
    pool = _opened(setup, workers, address, ordered, started)
    return pool if setup.at_once == 1 else Together(pool, setup.at_once, ordered=ordered)


def _opened(
    setup: WorkerSetup,
    workers: Workers,
    address: str | None,
    ordered: bool,
    started: Started | None,
) -> Pool:
    setup = replace(setup, threads=max(1, int(workers.cpus)))
    if in_process(workers.count, address):
        _check_gpus(workers.gpus)
        return SerialPool(partial(_evaluator, setup))
    pool = _start(workers, address, ordered) if started is None else started.result()
    transfer = _transfer(setup, address)
    pool.begin(partial(_on_a_node, setup, transfer, workers), transfer)
    return pool


@contextmanager
def started_workers(
    workers: Workers, *, address: str | None = None, ordered: bool = False
) -> Iterator[Started | None]:
    """Start Ray beside the imports and checks of the driver: it takes two of their eight seconds.

    The arguments are those of `open_pool`. Ray's processes die with the thread that started them, so that
    one lives until the end; then what runs is closed.

    Yields:
        For `open_pool`; None: no Ray is needed.

    Raises:
        UserError: No cluster can be joined at that address.
    """
    if address is not None:  # a mistake also where no worker will use it
        address = find_cluster(address).address
    if in_process(workers.count, address):
        yield None
        return
    with ThreadPoolExecutor(1, "evomerge-ray") as thread:
        started = thread.submit(_start, workers, address, ordered)
        try:
            yield started
        finally:
            if started.exception() is None:
                started.result().close(force=True)


def in_process(count: int | Literal["auto"], address: str | None) -> bool:
    """Return whether the driver does the work itself: a single worker here needs no Ray."""
    return count == 0 or (count == 1 and address is None)


def _start(workers: Workers, address: str | None, ordered: bool) -> RayPool:
    return RayPool(
        count=workers.count,
        cpus=workers.cpus,
        gpus=workers.gpus,
        address=address,
        retries=workers.retries,
        ordered=ordered,
        prepare=partial(import_quickly, EVALUATOR),
    )


def _check_gpus(wanted: float) -> None:
    if not wanted:
        return
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not found:
        raise CampaignError(
            "a GPU is asked for, and PyTorch finds none here; set it to 0", field="workers.gpus"
        )
    if found < wanted:
        raise CampaignError(
            f"{wanted:g} GPUs are asked for, and PyTorch finds {found} here; lower it",
            field="workers.gpus",
        )


def _transfer(setup: WorkerSetup, address: str | None) -> Transfer | None:
    """On a cluster whose driver is on one of its nodes, what that node can send to the others."""
    if address is None or address.startswith("ray://"):
        return None
    models = [part for model in setup.models for part in parts(model)]
    tasks = [setup.tasks_path, *(request.answers for request in setup.requests)]
    return Transfer(
        f"evomerge-transfer-{uuid.uuid4().hex}",
        tuple(dict.fromkeys([*models, *(folder for folder in tasks if folder is not None)])),
        setup.trust_remote_code,
        setup.allow_pickle,
    )


def _on_a_node(setup: WorkerSetup, transfer: Transfer | None, workers: Workers) -> Evaluates:
    """Build an evaluator from what this node has, or gets."""
    setup = replace(setup, sharing=_sharing(workers))
    names = {} if transfer is None else local_names(transfer)
    if not names:
        return _evaluator(setup)
    rename = local_model(names)
    vocabulary = setup.vocabulary

    def renamed(folder: str | None) -> str | None:
        return None if folder is None else names.get(folder, folder)

    local = replace(
        setup,
        models=tuple(map(rename, setup.models)),
        requests=tuple(
            replace(request, answers=renamed(request.answers)) for request in setup.requests
        ),
        tasks_path=renamed(setup.tasks_path),
        vocabulary=None if vocabulary is None else vocabulary.renamed(rename),
    )
    return Translated(_evaluator(local), names)


def _sharing(workers: Workers) -> Sharing:
    """Return the most workers that share this node and a GPU of it."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    resources = [node["Resources"] for node in ray.nodes() if node["NodeID"] == here]
    return sharing_of(workers.count, workers.cpus, workers.gpus, resources)


def _evaluator(setup: WorkerSetup) -> Evaluates:
    evaluator: Evaluates = import_quickly(EVALUATOR).Evaluator(setup)
    return evaluator

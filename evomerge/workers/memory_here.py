"""The memory plan of one worker, from what it finds on its node and its device."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.devices import gpu_memory, host_memory, torch_dtype
from evomerge.merge.methods import METHODS
from evomerge.workers.assignment import Assignment
from evomerge.workers.memory_plan import (
    CONTEXT_BYTES,
    Machine,
    MemoryPlan,
    plan_memory,
    sizes_of,
)


def memory_here(checkpoints: Mapping[str, Checkpoint], assignment: Assignment) -> MemoryPlan:
    """Plan this worker's memory; on a GPU never with more than is free there now.

    Args:
        checkpoints: The open models by name, the base first.
        assignment: The worker's.
    """
    host, host_free = host_memory()
    device = None
    sizes = sizes_of(checkpoints, torch_dtype(assignment.dtype).itemsize)
    if torch.device(assignment.device).type == "cuda":
        total, free = gpu_memory(torch.device(assignment.device))
        own = torch.cuda.memory_reserved(torch.device(assignment.device))
        device = min(total, (free + own) * assignment.sharing.device)
    methods = [METHODS[name] for name in assignment.methods if name in METHODS]
    return plan_memory(sizes, Machine(host, host_free, device), assignment.sharing, methods)


def keep_to_share(assignment: Assignment) -> None:
    """Let a worker that shares a GPU run out of memory at its own share, not take its neighbours'."""
    device, sharing = torch.device(assignment.device), assignment.sharing.device
    if device.type == "cuda" and sharing > 1:
        total, _ = gpu_memory(device)
        torch.cuda.set_per_process_memory_fraction(1 / sharing - CONTEXT_BYTES / total)

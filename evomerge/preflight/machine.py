"""What this machine has: cores, memory, GPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Here:
    """One machine.

    Attributes:
        cores: That this process may use.
        host: Bytes of memory.
        host_free: Bytes of it that are free.
        gpus: Bytes of each GPU's memory.
    """

    cores: int
    host: int
    host_free: int
    gpus: tuple[int, ...] = ()

    @property
    def resources(self) -> dict[str, float]:
        """The same in Ray's words."""
        return {"CPU": float(self.cores), "GPU": float(len(self.gpus))}


def here() -> Here:
    """Look at this machine."""
    import torch

    from evomerge.merge.devices import gpu_memory, host_memory

    host, host_free = host_memory()
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = tuple(gpu_memory(index)[0] for index in range(found))
    return Here(cores(), host, host_free, gpus)


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

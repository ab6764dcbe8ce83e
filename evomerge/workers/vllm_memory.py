"""What vLLM takes of a worker's memory, beside the live model and its passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.workers.placement import Sharing

KV_BYTES = 2**30
"""Of keys and values on a CPU."""
GPU_PART = 0.45
"""Of a GPU, all its workers together: as much is left to the resident passes."""


@dataclass(frozen=True)
class VllmMemory:
    """The memory of one worker's engine.

    Attributes:
        part: Of each of the worker's GPUs: `gpu_memory_utilization`.
        kv_bytes: Of keys and values on a CPU: `kv_cache_memory_bytes`.
    """

    part: float
    kv_bytes: int

    @classmethod
    def of(
        cls, backend: str | None, arguments: Mapping[str, Any], sharing: Sharing
    ) -> VllmMemory | None:
        """Return what a scorer's engine takes by its arguments; None: it has none."""
        if backend != "vllm":
            return None
        part = arguments.get("gpu_memory_utilization", GPU_PART / sharing.device)
        kv_bytes = arguments.get("kv_cache_memory_bytes", KV_BYTES)
        return cls(_number(part), int(_number(kv_bytes)))

    def bytes(self, weights: int, device: int | None) -> int:
        """Return what the engine takes, its own copy of the weights included.

        Args:
            weights: Bytes of a model.
            device: Memory of the GPU; None: it computes on the CPU.
        """
        return weights + self.kv_bytes if device is None else int(self.part * device)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0  # else vLLM says what is wrong

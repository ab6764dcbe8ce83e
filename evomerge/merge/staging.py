"""Tensors of mapped files → a GPU, through pinned memory.

A GPU reads pinned memory by itself: while it takes one buffer, and while it computes, the next one is filled
from the file's pages. A copy from memory that is not pinned makes the host wait for every tensor.
"""

from __future__ import annotations

from functools import cache
from itertools import cycle

import torch

PIECE = 64 * 2**20
"""Bytes of a buffer. Whole models are never pinned: the system could not give their memory to others."""


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a copy of a tensor of the host on a device; that of a GPU is queued behind its work."""
    return _staging(device).copy(tensor) if device.type == "cuda" else tensor.to(device)


class Staging:
    """Two pinned buffers in front of one GPU.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers = cycle([(_pinned(PIECE), _event()) for _ in range(2)])

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of a tensor of the host; the host goes on while the GPU takes the last of it."""
        made = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
        source = tensor.contiguous().view(-1).view(torch.uint8)
        target = made.view(-1).view(torch.uint8)
        for piece, place in zip(
            torch.split(source, PIECE), torch.split(target, PIECE), strict=True
        ):
            buffer, taken = next(self._buffers)
            taken.synchronize()
            place.copy_(buffer[: len(piece)].copy_(piece), non_blocking=True)
            taken.record(torch.cuda.current_stream(self._device))
        return made


def _pinned(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


@cache
def _staging(device: torch.device) -> Staging:
    return Staging(device)

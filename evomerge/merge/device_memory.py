"""How much memory a device has, and how much of it is free."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_GROUP = Path("/sys/fs/cgroup")
_UNKNOWN = 2**33


def host_memory() -> tuple[int, int]:
    """Return the host's memory and what is free of it, in bytes.

    What the page cache would give back counts as free; a container has what its control group allows.
    """
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return _UNKNOWN, _UNKNOWN
    free = _number(Path("/proc/meminfo"), "MemAvailable:", 1024) or free
    limit = _number(_GROUP / "memory.max")
    if limit is not None and limit < total:
        used = _number(_GROUP / "memory.current") or 0
        cached = _number(_GROUP / "memory.stat", "inactive_file") or 0
        total, free = limit, min(free, max(0, limit - used + cached))
    return total, free


def gpu_memory(device: torch.device | int) -> tuple[int, int]:
    """Return a CUDA device's memory and what is free of it, in bytes."""
    free, total = torch.cuda.mem_get_info(device)
    return int(total), int(free)


def free_memory(device: torch.device) -> int:
    """Return how many bytes of a device's memory are free."""
    return gpu_memory(device)[1] if device.type == "cuda" else host_memory()[1]


def _number(file: Path, key: str = "", unit: int = 1) -> int | None:
    """Return the number that follows `key` at the start of a line; None: no such file, line or number."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        words = line.removeprefix(key).split()
        if line.startswith(key) and words and words[0].isdigit():
            return int(words[0]) * unit
    return None

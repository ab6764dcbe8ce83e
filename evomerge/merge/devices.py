"""Devices and dtypes by their names, refused in one line where there is none here; free memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from evomerge.errors import UserError

OUT_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
BACKENDS = ("cuda", "xpu", "mps")
_GROUP = Path("/sys/fs/cgroup")
_UNKNOWN = 2**33


def usable_device(name: torch.device | str) -> torch.device:
    """Return torch's device of that name, having used it once.

    Raises:
        UserError: The device is unknown, or not present.
    """
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
        torch.zeros(1, device=device).add_(1)
    # torch says "not compiled with CUDA" by an AssertionError, "no such module" by an ImportError
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise UserError(
            f'found "{name}", which cannot be used here ({reason}); available: {_available()}',
            field="device",
        ) from None
    return device


def usable_devices(name: torch.device | str, count: int) -> tuple[torch.device, ...]:
    """Return the first devices of a type, having used each once; a single one is torch's of that name.

    Raises:
        UserError: One of them is unknown, or not present.
    """
    return tuple(map(usable_device, devices_of(name, count)))


def devices_of(name: torch.device | str, count: int) -> list[torch.device | str]:
    """Return the names of the first devices of a type; a single one is torch's of that name."""
    return [name] if count == 1 else [f"{name}:{index}" for index in range(count)]


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's dtype of that name.

    Raises:
        UserError: It is none of float32, bfloat16, float16 and float64.
    """
    if name not in OUT_DTYPES:
        raise UserError(f'found "{name}", expected one of {", ".join(OUT_DTYPES)}', field="dtype")
    return OUT_DTYPES[name]


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


def _available() -> str:
    found = ["cpu"]
    for name in BACKENDS:
        backend = getattr(torch, name)
        if backend.is_available():
            count = backend.device_count()
            found += [name] if count == 1 else [f"{name}:{index}" for index in range(count)]
    return ", ".join(found)


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

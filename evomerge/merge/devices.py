"""Devices and dtypes by their names, refused in one line where there is no such thing here."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from evomerge.errors import UserError

OUT_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
BACKENDS = ("cuda", "xpu", "mps")


def usable_device(name: torch.device | str) -> torch.device:
    """Return torch's device of that name, having used it once.

    Raises:
        UserError: There is no such device, or none here.
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


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's dtype of that name.

    Raises:
        UserError: It is none of float32, bfloat16, float16 and float64.
    """
    if name not in OUT_DTYPES:
        raise UserError(f'found "{name}", expected one of {", ".join(OUT_DTYPES)}', field="dtype")
    return OUT_DTYPES[name]


def _available() -> str:
    found = ["cpu"]
    for name in BACKENDS:
        backend = getattr(torch, name)
        if backend.is_available():
            count = backend.device_count()
            found += [name] if count == 1 else [f"{name}:{index}" for index in range(count)]
    return ", ".join(found)

"""Experts whose task vectors are random: what merges of them score does not come from what experts learnt."""

from __future__ import annotations

from dataclasses import replace

import torch
import xxhash

from evomerge.merge.checkpoint import Checkpoint


def randomised(expert: Checkpoint, base: Checkpoint, key: str) -> Checkpoint:
    """Return an expert whose task vector is Gaussian noise, of the same norm in each tensor.

    A tensor that the expert has like the base, one of whole numbers, and one of another shape than the
    base's stay as they are.

    Args:
        expert: Open.
        base: Open, of the same family.
        key: Draws the noise, with the tensor's name.
    """

    def read(name: str) -> torch.Tensor:
        own, common = expert.tensor(name), base.tensor(name)
        if not own.is_floating_point() or own.shape != common.shape:
            return own
        dtype = headers[name].dtype
        own, common = own.to(dtype), common.to(dtype)
        length = (own - common).double().norm()
        if length == 0:
            return own
        noise = _noise(f"{key}/{name}", own.shape)
        return common + noise.to(dtype) * float(length / noise.double().norm())

    headers = {
        name: replace(header, dtype=torch.promote_types(header.dtype, torch.float32))
        if header.dtype.is_floating_point
        else header
        for name, header in expert.tensors.items()
    }
    return replace(
        expert,
        name=f"{expert.name} as noise {key}",
        tensors=headers,
        adapted=frozenset(headers),
        updates={},
        _read=read,
    )


def _noise(key: str, shape: torch.Size) -> torch.Tensor:
    generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(key.encode()) % 2**63)
    return torch.randn(shape, generator=generator)

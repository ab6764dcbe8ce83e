"""One model's tensors as they are: for stacking layers of several models."""

from __future__ import annotations

import torch

from evomerge.merge.methods.method import Group, Method, ParameterSpec


def passthrough(group: Group) -> torch.Tensor:
    """Return the only input, times `scale` where one is given."""
    scale = group.own[0].get("scale")
    return group.tensor(0) if scale is None else group.tensor(0) * float(scale)


PASSTHROUGH = Method(
    name="passthrough",
    merge=passthrough,
    parameters={
        "scale": ParameterSpec("number", "factor of the tensor; none leaves it", per_source=True),
    },
    max_models=1,
)

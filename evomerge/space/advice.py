"""What a sampler cannot make use of in a space: legal, but good to know before time is spent."""

from __future__ import annotations

from collections import Counter

from evomerge import config as campaign
from evomerge.space import codes
from evomerge.space.space import Space

LEARNING = {"gradient", "cmaes", "tpe", "gp"}
"""Samplers that learn from where good trials lie."""


def unused(space: Space, sampler: campaign.SamplerName) -> tuple[str, ...]:
    """Return a warning for each kind of dimension that a sampler cannot use as it uses the others."""
    found = []
    flat = [
        name
        for name in space.distributions
        if name not in space.differentiable and not codes.is_choice(name)
    ]
    if sampler == "gradient" and flat:
        kinds = Counter(name.split("/")[0] for name in flat)
        listed = ", ".join(
            name if count == 1 else f"{name} ×{count}" for name, count in kinds.items()
        )
        found.append(
            f"there is no gradient by {len(flat)} of {len(space.distributions)} dimensions ({listed}): the "
            "sampler's CMA-ES part searches them"
        )
    if sampler == "gradient" and space.settings.coarse is not None:
        found.append(
            "gradient begins in the whole space: coarse is for the other samplers, leave it out"
        )
    if sampler in LEARNING and space.settings.mask_seed:
        found.append(
            f"{codes.MASK_SEED}: neighbouring values are unrelated masks, so {sampler} can learn nothing "
            "from them and finds a good one by luck only"
        )
    return tuple(found)

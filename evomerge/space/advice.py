"""What a sampler cannot make use of in a space: legal, but good to know before time is spent."""

from __future__ import annotations

from collections import Counter

from evomerge import config as campaign
from evomerge.space import codes
from evomerge.space.space import Space


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
    return tuple(found)

"""The base of `served_family`, with adapters on it as experts."""

from __future__ import annotations

from pathlib import Path

from tests.combine.crew import adapter
from tests.vllm.served_family import Served, save_served

LAYERS = {
    4: ["q_proj", "down_proj"],
    2: ["q_proj", "o_proj", "up_proj"],
    3: ["k_proj", "v_proj", "gate_proj"],
}
"""Rank of an expert → layers that it adapts."""
RANK = 6
"""Of their sum: two adapt the queries."""


def save_adapters(folder: Path) -> Served:
    """Save a base and three adapters on it, of unlike ranks and layers."""
    family = save_served(folder)
    base = family.models[0]
    made = [
        adapter(base, folder / f"rank{rank}", rank, r=rank, target_modules=layers)
        for rank, layers in LAYERS.items()
    ]
    return Served((base, *(f"{base}+{one}" for one in made)), family.tasks)

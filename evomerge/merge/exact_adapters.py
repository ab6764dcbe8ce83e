"""Merges that are linear in LoRA experts of one base, as adapters of it: nothing of the base is touched.

The update of each layer is a weighted sum of the experts' own, so its factors are theirs side by side, of the
sum of their ranks. That is exact, up to the rounding of the factors to the adapter's dtype.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from evomerge.candidate import Merge, Recipe
from evomerge.merge.adapter_output import exact_update, linear_modules, write_factors
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.live import LiveModel
from evomerge.merge.methods.low_rank import Factors
from evomerge.merge.names import parameter_names

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""For which vLLM lays out its adapters; one of a smaller rank fits, too."""

Updates = Mapping[str, Factors]
"""Linear layer → what is added to its weight."""


class ExactAdapters:
    """Tells which merges are adapters of the base, and writes them as such.

    Args:
        live: The models.
        trust_remote_code: Let them run code of their own.
    """

    def __init__(self, live: LiveModel, *, trust_remote_code: bool = False) -> None:
        self._live, self._base = live, live.models.base
        config, tensors = self._base.config, self._base.tensors
        names = parameter_names(config, tensors, trust_remote_code=trust_remote_code)
        layers = linear_modules(config, trust_remote_code=trust_remote_code)
        own = {stored: names.get(stored, stored).removesuffix(".weight") for stored in tensors}
        self._layers = {stored: layer for stored, layer in own.items() if layer in layers}

    def updates(self, source: Merge | Recipe) -> Updates | None:
        """Return what a merge adds to the base, of the layers that it changes; empty: it is the base.

        Returns:
            None where an adapter cannot hold it: another method than a weighted sum, an expert that is no
            adapter, or something trained besides linear layers.

        Raises:
            RecipeError: As `LiveModel.write`.
            MergeError: As `LiveModel.write`.
        """
        run = self._live.run(source)
        found: dict[str, Factors] = {}
        for piece in run.plan.tensors:
            update = exact_update(run, piece, self._base)
            if update is None or (update.rank and piece.name not in self._layers):
                return None
            if update.rank:
                found[self._layers[piece.name]] = update
        return found

    def write(self, updates: Updates, folder: Path) -> None:
        """Write what `updates` returned as a PEFT folder in float32; of nothing, an adapter that adds 0."""
        write_factors(self._base.name, updates or self._nothing(), folder)

    def _nothing(self) -> Updates:
        stored, layer = next(iter(self._layers.items()))
        rows, columns = self._base.tensors[stored].shape
        return {layer: Factors(torch.zeros(rows, 1), torch.zeros(1, columns))}


def summed_rank(experts: Iterable[Checkpoint]) -> int:
    """Return the largest rank that a weighted sum of experts can have in a tensor; 0: none is an adapter."""
    ranks: Counter[str] = Counter()
    for expert in experts:
        ranks.update({name: factors.rank for name, factors in expert.updates.items()})
    return max(ranks.values(), default=0)

"""Routed ensembles on one worker: the base reads the prompts of a split once, all else is arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from evomerge.candidate.ensemble import Ensemble
from evomerge.candidate.trial import Split, Values
from evomerge.combine.router import Numbers, Ridge, route
from evomerge.errors import MergeError
from evomerge.inference.states import mean_states
from evomerge.merge.live import LiveModel

Tokens = Callable[[Split], Mapping[str, Sequence[tuple[int, ...]]]]
"""Split → task → of each item the tokens of its prompt."""


class Routing:
    """Fits routers on search items, and asks them who answers the items of any split.

    Args:
        live: The resident models; the base is written into its module when a split is read.
        tokens: The prompts.
    """

    def __init__(self, live: LiveModel, tokens: Tokens) -> None:
        self._live, self._tokens = live, tokens
        self._split: Split | None = None
        self._states: dict[str, Numbers] = {}  # task → [items, layers, d], of the latest split
        self._deepest = -1  # of those layers
        self._ridges: dict[int, Ridge] = {}  # by layer

    def fitted(self, ensemble: Ensemble, known: Mapping[str, Values]) -> Ensemble:
        """Return a routed ensemble whose router is fitted; one that is fitted as it is.

        Args:
            ensemble: With a router.
            known: Member → task → a score of each search item, more being better.

        Raises:
            MergeError: Of a member no scores are known, or the base has no such layer.
        """
        if ensemble.fit is not None:
            return ensemble
        missing = [name for name in ensemble.members if name not in known]
        if missing:
            raise MergeError(
                f"{missing[0]} has no scores on the search items, which its router learns from"
            )
        layer = self._layer(ensemble)
        tasks = list(next(iter(known.values())))
        if layer not in self._ridges:
            states = self._read(ensemble, "search")
            self._ridges[layer] = Ridge(np.concatenate([states[task][:, layer] for task in tasks]))
        scores = {
            name: [value for task in tasks for value in known[name][task]]
            for name in ensemble.members
        }
        return replace(ensemble, fit=self._ridges[layer].fit(scores))

    def answering(self, ensemble: Ensemble, split: Split) -> dict[str, dict[str, tuple[int, ...]]]:
        """Return member → task → which of the split's items it answers, by position; none are left out.

        Raises:
            MergeError: The router is not fitted, or the base has no such layer.
        """
        layer, names = self._layer(ensemble), list(ensemble.members)
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for task, states in self._read(ensemble, split).items():
            chosen = np.array(route(ensemble, states[:, layer]))
            for member in np.unique(chosen).tolist():
                (own,) = (chosen == member).nonzero()
                found.setdefault(names[member], {})[task] = tuple(own.tolist())
        return {name: found[name] for name in names if name in found}

    def read(self, ensemble: Ensemble, prompts: Sequence[Sequence[int]]) -> None:
        """Read prompts as they are read to be routed, to see how long that takes; any weights will do."""
        mean_states(self._live.module, prompts, [self._layer(ensemble)])

    def _layer(self, ensemble: Ensemble) -> int:
        layer = -1 if ensemble.router is None else ensemble.router.layer
        if not 0 <= layer <= self._layers:
            raise MergeError(
                f"a router of layer {layer}; the base has 0 (embeddings) to {self._layers}"
            )
        return layer

    @property
    def _layers(self) -> int:
        return int(self._live.module.config.get_text_config().num_hidden_layers)

    def _read(self, ensemble: Ensemble, split: Split) -> dict[str, Numbers]:
        """Return the base's mean states of a split's prompts, from the embeddings to the router's layer.

        Of search items to the last layer, since layers are searched.
        """
        wanted = self._layers if split == "search" else self._layer(ensemble)
        if split != self._split or wanted > self._deepest:
            prompts = self._tokens(split)
            self._live.write(ensemble.features_of)
            flat = [tokens for own in prompts.values() for tokens in own]
            found = iter(mean_states(self._live.module, flat, range(wanted + 1)).numpy())
            self._states = {
                task: np.stack([next(found) for _ in own]) for task, own in prompts.items()
            }
            self._split, self._deepest = split, wanted
        return self._states

"""What the candidates of a space need of a worker and a campaign, beyond what merges need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What candidates need.

    Attributes:
        prompts: The prompts of the items, which only the resident scorer has.
        scores: A value of the searched metric for each item, from which they learn.
        whole_models: How many models of the base's size one holds in memory at once.
        feed_forwards: How many times the feed-forward blocks of one, besides.
        statistics: What methods read of the experts' activations (`Parameter.reads`).
        best_merge: They are made over the campaign's best merge, so merges are to be tried first.
    """

    prompts: bool = False
    scores: bool = False
    whole_models: int = 1
    feed_forwards: int = 0
    best_merge: bool = False
    statistics: frozenset[str] = frozenset()

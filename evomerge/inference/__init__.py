"""A module and tokens → log-likelihoods, generations, losses: batches, caches, drafts."""

from evomerge.inference.failures import Collapsed, NotFinite

__all__ = [
    "Collapsed",
    "NotFinite",
]

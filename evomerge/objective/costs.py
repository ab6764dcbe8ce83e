"""What a model takes, relative to the base: 1 is as much, less is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.candidate import Candidate
from evomerge.candidate.trial import Outcome
from evomerge.config import Campaign
from evomerge.objective.references import References


@dataclass(frozen=True)
class Size:
    """How many weights the base has, and where.

    Attributes:
        layers: In each layer; empty where not counted.
        rest: Outside the layers: embeddings, final norm, lm_head.
    """

    layers: tuple[int, ...] = ()
    rest: int = 0

    @classmethod
    def count(cls, weights: Mapping[str, int], layer_of: Callable[[str], int | None]) -> Size:
        """Add up a model's tensors.

        Args:
            weights: Name of a tensor → number of its elements.
            layer_of: Name of a tensor → its layer; None outside the layers.
        """
        layers: dict[int, int] = {}
        rest = 0
        for name, count in weights.items():
            layer = layer_of(name)
            if layer is None:
                rest += count
            else:
                layers[layer] = layers.get(layer, 0) + count
        return cls(tuple(layers[layer] for layer in sorted(layers)), rest)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {"layers": list(self.layers), "rest": self.rest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Size:
        """Read back what `to_json` wrote; None: not counted."""
        return cls() if data is None else cls(tuple(data["layers"]), int(data["rest"]))


def relative_costs(
    campaign: Campaign,
    outcome: Outcome,
    candidate: Candidate | None,
    references: References,
    size: Size,
) -> tuple[float, ...]:
    """Return each of the campaign's costs, relative to the base's on the same split.

    Args:
        campaign: Its `costs`.
        outcome: Without a failure.
        candidate: The model; None: of the base's size.
        references: The base among them.
        size: Of the base.

    Returns:
        One number a cost; 1 where the base spent nothing to compare with, or nothing was measured (a copy
        of an earlier outcome).
    """
    found = []
    for cost in campaign.costs:
        if cost.cost == "parameters":
            found.append(1.0 if candidate is None else candidate.size(size.layers, size.rest))
            continue
        theirs = 0.0 if references.base is None else tokens_per_item(references.base)
        measured = theirs > 0 and outcome.cost.items > 0
        found.append(tokens_per_item(outcome) / theirs if measured else 1.0)
    return tuple(found)


def tokens_per_item(outcome: Outcome) -> float:
    """Return generated tokens an item; 0 where no item was scored."""
    spent = outcome.cost
    return spent.generated_tokens / spent.items if spent.items else 0.0

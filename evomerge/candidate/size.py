"""How many weights the base has, and where: what candidates count their own by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from evomerge.candidate.merge import Merge

FEED_FORWARD = "mlp."
"""In the name of every tensor of a feed-forward block, of the architectures that have mixtures."""


@dataclass(frozen=True)
class Size:
    """How many weights the base has, and where.

    Attributes:
        layers: In each layer; empty where not counted.
        rest: Outside the layers: embeddings, final norm, lm_head.
        feed_forward: Of those of each layer, in its feed-forward block.
        adapters: Model that is the base with a LoRA adapter, as candidates name it → how many weights the
            adapter has.
        tied_head: What an output head of its own adds, as mixtures have one; 0 where the base has one, too.
    """

    layers: tuple[int, ...] = ()
    rest: int = 0
    feed_forward: tuple[int, ...] = ()
    adapters: Mapping[str, int] = field(default_factory=dict)
    tied_head: int = 0

    @cached_property
    def total(self) -> int:
        """All weights."""
        return sum(self.layers) + self.rest

    def of_members(self, members: Iterable[Merge], base: str) -> int:
        """Return how many weights stand in memory where several models are served beside each other.

        Args:
            members: The models; equal ones stand there once. Of one that is the base with an adapter only
                the adapter is counted, and the base once for all of them. One with an adapter on another
                model counts in full: it is loaded apart.
            base: What candidates call the base.
        """
        found, whole = 0, set()
        for member in {one.text(): one for one in members}.values():
            alone = member.method == "passthrough" and len(member.experts) == 1
            model = member.experts[0] if alone else ""
            found += self.adapters.get(model, 0)
            whole.add(base if model in self.adapters else model or member.text())
        return found + len(whole) * self.total

    @classmethod
    def count(
        cls,
        weights: Mapping[str, int],
        layer_of: Callable[[str], int | None],
        adapters: Mapping[str, int] | None = None,
        tied_head: int = 0,
    ) -> Size:
        """Add up a model's tensors.

        Args:
            weights: Name of a tensor → number of its elements.
            layer_of: Name of a tensor → its layer; None outside the layers.
            adapters: As the attribute.
            tied_head: As the attribute.
        """
        layers: dict[int, int] = {}
        inside: dict[int, int] = {}
        rest = 0
        for name, count in weights.items():
            layer = layer_of(name)
            if layer is None:
                rest += count
                continue
            layers[layer] = layers.get(layer, 0) + count
            inside[layer] = inside.get(layer, 0) + count * (FEED_FORWARD in name)
        order = sorted(layers)
        found = (tuple(each[layer] for layer in order) for each in (layers, inside))
        return cls(next(found), rest, next(found), adapters or {}, tied_head)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Size:
        """Read back what `to_json` wrote, of earlier versions too; None: not counted."""
        found = {} if data is None else dict(data)
        return cls(
            tuple(found.get("layers", ())),
            int(found.get("rest", 0)),
            tuple(found.get("feed_forward", ())),
            found.get("adapters", {}),
            int(found.get("tied_head", 0)),
        )

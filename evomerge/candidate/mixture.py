"""Candidates of the kind `mixture`: feed-forward blocks of several models behind gates, the rest of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from evomerge.candidate.candidate import Arrays, Candidate, Cell, no_arrays, number_row
from evomerge.candidate.gates import Gates
from evomerge.candidate.merge import Merge
from evomerge.candidate.mergekit_yaml import dumps_all
from evomerge.candidate.moe_recipe import MoeExpert, MoeRecipe
from evomerge.candidate.recipe import Recipe
from evomerge.candidate.size import Size
from evomerge.candidate.stack import is_parent


@dataclass(frozen=True)
class Mixture(Candidate):
    """One mixture of experts: each token passes through the feed-forward blocks that its router picks.

    Attributes:
        base: The common ancestor.
        shared: What everything but the feed-forward blocks comes from.
        experts: Name → what a feed-forward block comes from, in the order of the gates' rows.
        top_k: How many experts a token passes through.
        temperature: Of the softmax over the experts; already divided out of `fit`.
        share: Of the feed-forward block of `shared` that every token passes through; the experts have the
            rest of 1. 0: there is no such block.
        fit: The gates; None: not fitted yet.
    """

    kind: ClassVar[str] = "mixture"

    base: str
    shared: Merge
    experts: Mapping[str, Merge]
    top_k: int = 1
    temperature: float = 1.0
    share: float = 0.0
    fit: Gates | None = None

    def model_names(self) -> tuple[str, ...]:
        """Return every model, the base first if anything comes from it, each once."""
        parts = (self.shared, *self.experts.values())
        names = dict.fromkeys(name for one in parts for name in one.model_names())
        return tuple(sorted(names, key=lambda name: name != self.base))

    @property
    def methods(self) -> tuple[str, ...]:
        """The merge methods of its parts."""
        return tuple(name for one in (self.shared, *self.experts.values()) for name in one.methods)

    def renamed(self, rename: Callable[[str], str]) -> Mixture:
        """Return the same mixture with each model's name replaced."""
        return replace(
            self,
            base=rename(self.base),
            shared=self.shared.renamed(rename),
            experts={name: one.renamed(rename) for name, one in self.experts.items()},
        )

    def without(self, expert: str) -> Mixture | None:
        """Return it without an expert and its row of the gates; None: no other is left."""
        experts = {name: one for name, one in self.experts.items() if name != expert}
        if not experts:
            return None
        fit = None if self.fit is None else self.fit.without(list(self.experts).index(expert))
        return replace(self, experts=experts, top_k=min(self.top_k, len(experts)), fit=fit)

    def text(self) -> str:
        """Return it as one line of JSON, floats in full; of the gates the digest."""
        fields = {
            **vars(self),
            "shared": json.loads(self.shared.text()),
            "experts": {name: json.loads(one.text()) for name, one in self.experts.items()},
            "fit": None if self.fit is None else self.fit.digest,
        }
        return json.dumps({"kind": self.kind, **fields})

    @property
    def scored_members(self) -> Mapping[str, Candidate]:
        """The experts: the gates learn from their scores."""
        return self.experts

    def arrays(self) -> Mapping[str, bytes]:
        """Return the gates, and the coefficients of what it is made from, by their digests."""
        found: dict[str, bytes] = {}
        for one in (self.shared, *self.experts.values()):
            found |= one.arrays()
        return found if self.fit is None else {**found, self.fit.digest: self.fit.content}

    @classmethod
    def read(cls, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Mixture:
        """Return the mixture of the fields of its `text`, without the kind."""
        fields = dict(data)

        def merge(fields: Mapping[str, Any]) -> Merge:
            return Merge.read({k: v for k, v in fields.items() if k != "kind"}, arrays)

        fields["shared"] = merge(fields["shared"])
        fields["experts"] = {name: merge(one) for name, one in fields["experts"].items()}
        digest = fields["fit"]
        fields["fit"] = None if digest is None else Gates.read(arrays(digest))
        return cls(**fields)

    def recipe(self) -> tuple[MoeRecipe, dict[str, Recipe]]:
        """Return it as mergekit-moe's recipe, and the merges that it is made of by name.

        With a shared expert, a token gets (1 - share) Σ g_i E_i + share S: what it adds is halved by its
        gate, which is 0, so its last projection is doubled. The class is named then: where it is not,
        mergekit takes DeepSeek's for Llama and Mistral, in which that gate has no place.
        """
        merges: dict[str, Recipe] = {}

        def named(name: str, one: Merge) -> str:
            if is_parent(one):
                return one.experts[0]
            recipe = one.recipe()
            known = next((each for each, other in merges.items() if other == recipe), None)
            if known is not None:
                return known
            while name in merges:
                name += "_"
            merges[name] = recipe
            return name

        base = named("shared", self.shared)
        shared = MoeExpert(base, residual_scale=2 * self.share) if self.share else None
        experts = tuple(
            MoeExpert(named(name, one), residual_scale=1 - self.share)
            for name, one in self.experts.items()
        )
        recipe = MoeRecipe(
            base_model=base,
            experts=experts,
            shared_expert=shared,
            gate_mode="random",  # mergekit reads no gates
            dtype=self.shared.dtype,
            experts_per_token=self.top_k,
            architecture="qwen" if self.share else None,
            gates=self.fit,
        )
        return recipe, merges

    def file(self) -> str:
        """Return it in the form of mergekit-moe; where parts are merges, a document for each of them."""
        return dumps_all(*self.recipe())

    def size(self, base: Size) -> float:
        """Return how many weights it has, as a share of the base's."""
        return self._size(base, len(self.experts))

    def active(self, base: Size) -> float:
        """Return how many of its weights a token passes through, as a share of all of the base's."""
        return self._size(base, self.top_k)

    def _size(self, base: Size, experts: int) -> float:
        """Return the share with so many experts; gates, which are some thousandths, are left out.

        A mixture over models with a tied output head has a head of its own.
        """
        more = experts + (self.share > 0) - 1
        return (base.total + base.tied_head + more * sum(base.feed_forward)) / base.total

    def remark(self) -> str:
        """Return how well its routers route."""
        return "" if self.fit is None else self.fit.remark()

    def label(self) -> str:
        """Return how many experts there are and how many answer."""
        return f"mixture {self.top_k} of {len(self.experts)}"

    def numbers(self) -> list[dict[str, Cell]]:
        """Return its own numbers, those of the shared part, and how well each layer's router routes."""
        found: list[dict[str, Cell]] = []
        own = {"top_k": self.top_k, "temperature": self.temperature, "share": self.share}
        for name, value in own.items():
            found.append(number_row("all", "all", "gate", name, value))
        for layer, value in enumerate(() if self.fit is None else self.fit.accuracy):
            found.append(
                number_row("all", f"{layer}-{layer + 1}", "gate", "routing accuracy", value)
            )
        return found + self.shared.numbers()

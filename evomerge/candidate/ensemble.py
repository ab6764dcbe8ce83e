"""Candidates of the kind `ensemble`: several models, of which a router or a mix makes one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from evomerge.candidate.candidate import Arrays, Candidate, Cell, no_arrays
from evomerge.candidate.merge import Merge
from evomerge.candidate.tables import Array, Tables
from evomerge.errors import RecipeError, nearest

if TYPE_CHECKING:
    from evomerge.candidate.size import Size

Over = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Router:
    """Which member answers a prompt: the one with the highest predicted score.

    Attributes:
        layer: Whose hidden state of the base the prompt's feature is: 0 the embeddings, L the last.
        fallback: The member that answers where the best one's predicted gain over it is small; None: none.
        margin: How large a gain must be, in leave-one-out errors of the best member.
    """

    layer: int
    fallback: str | None = None
    margin: float = 1.0


@dataclass(frozen=True)
class Mix:
    """How the members' distributions of the next token become one.

    Attributes:
        weights: Member → weight, at least 0; they are scaled to the sum 1. One that is left out has 0.
        over: What is averaged.
        top_k: How many members run: those with the largest weights.
        temperature: What each member's logits are divided by.
    """

    weights: Mapping[str, float]
    over: Over = "probabilities"
    top_k: int = 1
    temperature: float = 1.0

    @property
    def running(self) -> dict[str, float]:
        """The members that run, in the order of `weights` → weight; they add up to 1."""
        order = sorted(self.weights, key=lambda name: -self.weights[name])[: self.top_k]
        kept = {name: self.weights[name] for name in self.weights if name in order}
        total = sum(kept.values())
        return {name: weight / total for name, weight in kept.items() if weight > 0}


@dataclass(frozen=True, eq=False)
class RouterFit(Tables):
    """What a router has learnt, as tables.

    - `mean` and `scale`, `[1, d]`: of each feature on the search items;
    - `coefficients`, `[members, d + 1]`: of the features less `mean`, divided by `scale`; the intercept
      behind them;
    - `errors`, `[members, 1]`: root mean square of the leave-one-out errors;
    - `lambdas`, `[members, 1]`: penalty of each member's regression.
    """

    about: ClassVar[str] = "router"

    @property
    def members(self) -> int:
        """How many there are."""
        return len(self.tables["coefficients"])

    def joined(self, other: RouterFit) -> RouterFit:
        """Return this with another's members behind its own; both are of the same features."""
        own, more = self.tables, other.tables
        return self._with(lambda name: np.concatenate([own[name], more[name]]))

    def without(self, member: int) -> RouterFit:
        """Return this without one member, by position."""
        return self._with(lambda name: np.delete(self.tables[name], member, axis=0))

    def _with(self, table: Callable[[str], Array]) -> RouterFit:
        by_member = ("coefficients", "errors", "lambdas")
        return RouterFit({**self.tables, **{name: table(name) for name in by_member}})


@dataclass(frozen=True)
class Ensemble(Candidate):
    """Members that answer apart, by a router, or together, by a mix of their distributions.

    Attributes:
        base: Whose hidden states are a prompt's features; also what messages and tokenizer go by.
        members: Name → model; a parent as it is, or a merge.
        router: Which member answers; None: all that run, by `mix`.
        mix: How distributions are averaged; None: by `router`.
        fit: What the router has learnt, members in the order of `members`; None: nothing yet.

    Raises:
        RecipeError: Not one of router and mix, an unknown member, or a number out of its range.
    """

    kind: ClassVar[str] = "ensemble"

    base: str
    members: Mapping[str, Merge]
    router: Router | None = None
    mix: Mix | None = None
    fit: RouterFit | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise RecipeError("an ensemble without members", field="members")
        if (self.router is None) == (self.mix is None):
            raise RecipeError("an ensemble has either a router or a mix", field="router")
        if self.router is not None:
            self._check_router(self.router)
        if self.mix is not None:
            self._check_mix(self.mix)

    def _check_router(self, router: Router) -> None:
        if router.fallback is not None:
            self._check_member(router.fallback, "router.fallback")
        if not router.margin >= 0:
            raise RecipeError(f"found {router.margin}, expected 0 or more", field="router.margin")
        if self.fit is not None and self.fit.members != len(self.members):
            raise RecipeError(
                f"a router fitted for {self.fit.members} members, the ensemble has {len(self.members)}",
                field="fit",
            )

    def _check_mix(self, mix: Mix) -> None:
        for name in mix.weights:
            self._check_member(name, f"mix.weights.{name}")
        if min(mix.weights.values(), default=0) < 0 or not sum(mix.weights.values()) > 0:
            raise RecipeError("expected weights of at least 0, one above 0", field="mix.weights")
        if not 1 <= mix.top_k <= len(self.members):
            raise RecipeError(
                f"found {mix.top_k}, expected 1 to {len(self.members)}, the number of members",
                field="mix.top_k",
            )
        if not mix.temperature > 0:
            raise RecipeError(
                f"found {mix.temperature}, expected a number above 0", field="mix.temperature"
            )
        if mix.over not in get_args(Over):
            raise RecipeError(
                f'found "{mix.over}", expected {" or ".join(get_args(Over))}', field="mix.over"
            )

    def _check_member(self, name: str, field: str) -> None:
        if name not in self.members:
            raise RecipeError(f'no member "{name}"; {nearest(name, self.members)}', field=field)

    @property
    def scored_members(self) -> Mapping[str, Merge]:
        """The members of a routed ensemble."""
        return {} if self.router is None else self.members

    @property
    def features_of(self) -> Merge:
        """The base as the members are: in their dtype and vocabulary."""
        like = next(iter(self.members.values()))
        if like.vocabulary is None:
            return Merge("passthrough", (self.base,), dtype=like.dtype)
        models = like.model_names()
        shares = tuple(float(model == self.base) for model in models)
        own = {"weight": ((shares,),)}
        return Merge(
            "linear",
            models,
            self.base,
            merges_base=False,
            own=own,
            dtype=like.dtype,
            vocabulary=like.vocabulary,
        )

    def model_names(self) -> tuple[str, ...]:
        """Return every model, the base first, each once."""
        names = (name for member in self.members.values() for name in member.model_names())
        return tuple(dict.fromkeys((self.base, *names)))

    @property
    def methods(self) -> tuple[str, ...]:
        """The merge methods of its members."""
        return tuple(name for one in self.members.values() for name in one.methods)

    def renamed(self, rename: Callable[[str], str]) -> Ensemble:
        """Return the same ensemble with each model's name replaced."""
        members = {name: member.renamed(rename) for name, member in self.members.items()}
        return replace(self, base=rename(self.base), members=members)

    def without(self, member: str) -> Ensemble | None:
        """Return it without a member, while the others answer; None: nobody would.

        A router loses what it has learnt of the member, and its fallback where that was the member.
        """
        members = {name: one for name, one in self.members.items() if name != member}
        router, mix, fit = self.router, self.mix, self.fit
        if mix is not None:
            weights = {name: weight for name, weight in mix.weights.items() if name != member}
            if not sum(weights.values()) > 0:
                return None
            mix = replace(mix, weights=weights, top_k=min(mix.top_k, len(members)))
        if not members:
            return None
        if router is not None and router.fallback == member:
            router = replace(router, fallback=None)
        if fit is not None:
            fit = fit.without(list(self.members).index(member))
        return replace(self, members=members, router=router, mix=mix, fit=fit)

    def text(self) -> str:
        """Return it as one line of JSON, floats in full; of `fit` the digest."""
        fields: dict[str, Any] = {
            "base": self.base,
            "members": {name: json.loads(one.text()) for name, one in self.members.items()},
            "router": None if self.router is None else asdict(self.router),
            "mix": None if self.mix is None else asdict(self.mix),
            "fit": None if self.fit is None else self.fit.digest,
        }
        return json.dumps({"kind": self.kind, **fields})

    @classmethod
    def read(cls, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Ensemble:
        """Return the ensemble of the fields of its `text`, without the kind."""
        members = {}
        for name, fields in data["members"].items():
            members[name] = Merge.read({k: v for k, v in fields.items() if k != "kind"}, arrays)
        router, mix, fit = data["router"], data["mix"], data["fit"]
        return cls(
            data["base"],
            members,
            None if router is None else Router(**router),
            None if mix is None else Mix(**mix),
            None if fit is None else RouterFit.read(arrays(fit)),
        )

    def arrays(self) -> Mapping[str, bytes]:
        """Return what the router has learnt, and the arrays of all members."""
        found = {} if self.fit is None else {self.fit.digest: self.fit.content}
        for member in self.members.values():
            found |= member.arrays()
        return found

    def label(self) -> str:
        """Return how it answers, and of how many members."""
        how = "mixed" if self.router is None else "routed"
        return f"{how} ensemble of {len(self.members)}"

    def numbers(self) -> list[dict[str, Cell]]:
        """Return the numbers of router or mix; behind them those of the members that are merges."""
        found: list[tuple[str, str, Cell]] = []
        if self.router is not None:
            found += [("all", "layer", self.router.layer), ("all", "margin", self.router.margin)]
        if self.mix is not None:
            found += [(name, "weight", weight) for name, weight in self.mix.running.items()]
            found.append(("all", "temperature", self.mix.temperature))
        columns = ("model", "layers", "tensors", "parameter", "value")
        rows: list[dict[str, Cell]] = [
            dict(zip(columns, (model, "all", "all", name, value), strict=True))
            for model, name, value in found
        ]
        return rows + [row for member in self.members.values() for row in member.numbers()]

    def size(self, base: Size) -> float:
        """Return the weights of all members, and of the base where prompts are read by it."""
        models = [*self.members.values()]
        if self.router is not None:
            models.append(self.features_of)
        return base.of_members(models, self.base) / base.total

    def active(self, base: Size) -> float:
        """Return the weights of the members that answer, and of the base up to the router's layer."""
        if self.router is None:
            assert self.mix is not None
            running = [self.members[name] for name in self.mix.running]
            return min(len(running), base.of_members(running, self.base) / base.total)
        read = base.rest + sum(base.layers[: self.router.layer])
        return min(self.size(base), 1 + read / base.total)

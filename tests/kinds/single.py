"""A kind of candidates from outside the package: a single expert as it is. One dimension chooses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import FloatDistribution

from evomerge.candidate import Candidate, Merge
from evomerge.kinds import Builder, Kind, SearchSpace
from evomerge.space import Baseline, Family, Wanted
from evomerge.space.baselines import baselines


@dataclass(frozen=True)
class Single(Candidate):
    kind = "single"

    model: str
    dtype: str

    def model_names(self) -> tuple[str, ...]:
        return (self.model,)

    def renamed(self, rename: Callable[[str], str]) -> Single:
        return replace(self, model=rename(self.model))

    def merge(self) -> Merge:
        return Merge("passthrough", (self.model,), dtype=self.dtype)


class SingleSpace(SearchSpace):
    def __init__(self, family: Family) -> None:
        self._family = family

    @property
    def distributions(self) -> dict[str, FloatDistribution]:
        return {"expert": FloatDistribution(0.0, 1.0)}

    def candidate(self, params: Any, coefficients: Any = None, best: Any = None) -> Single:
        models = list(self._family.experts.values())
        place = min(int(params["expert"] * len(models)), len(models) - 1)
        return Single(models[place], self._family.dtype)

    def baselines(self) -> tuple[Baseline, ...]:
        return baselines(self._family, self._locate)

    def _locate(self, method: str, wanted: Wanted) -> dict[str, float] | None:
        weights = list(wanted.weights.values())
        if method != "task_arithmetic" or sorted(weights)[:-1] != [0.0] * (len(weights) - 1):
            return None
        return {"expert": (weights.index(1.0) + 0.5) / len(weights)} if 1.0 in weights else None


class SingleBuilder(Builder):
    def __init__(self, live: Any) -> None:
        self._live = live

    def build(self, candidate: Single) -> Any:
        self._live.write(candidate.merge())
        return self._live.module


class SingleKind(Kind):
    keys = frozenset()

    def check(self, settings: Any) -> None:
        pass

    def space(self, settings: Any, family: Family, seed: int) -> SingleSpace:
        return SingleSpace(family)

    def read(self, data: Any, arrays: Any = None) -> Single:
        return Single(**data)

    def opened(self, live: Any, prompts: Any = None) -> SingleBuilder:
        return SingleBuilder(live)

    def save(self, candidate: Single, out: Any, **options: Any) -> None:
        from evomerge.merge.saving import save

        save(candidate.merge(), out, **options)

"""A kind whose candidates learn and whose members answer apart.

Of each task the member that is best on the search items answers the prompts of an even number of tokens,
the first member the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.candidate import Candidate, Coefficients, Merge, no_arrays
from evomerge.errors import MergeError
from evomerge.kinds import Assignment, Builder, Kind, SearchSpace
from evomerge.space import Baseline, Family, Needs
from evomerge.space.baselines import baselines


@dataclass(frozen=True)
class Pair(Candidate):
    kind = "pair"

    share: float
    members: Mapping[str, Merge]
    means: Coefficients | None = None  # task → mean of each member, [members, 1]

    @property
    def scored_members(self) -> Mapping[str, Merge]:
        return self.members

    def model_names(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(name for each in self.members.values() for name in each.model_names())
        )

    def renamed(self, rename: Callable[[str], str]) -> Pair:
        return replace(self, members={k: v.renamed(rename) for k, v in self.members.items()})

    def text(self) -> str:
        members = {name: json.loads(each.text()) for name, each in self.members.items()}
        digest = self.means and self.means.digest
        return json.dumps(
            {"kind": "pair", "share": self.share, "members": members, "means": digest}
        )

    def arrays(self) -> Mapping[str, bytes]:
        return {} if self.means is None else {self.means.digest: self.means.content}


class PairSpace(SearchSpace):
    def __init__(self, family: Family) -> None:
        self._family = family
        self._found = baselines(family, lambda method, wanted: None)

    @property
    def distributions(self) -> dict[str, FloatDistribution]:
        return {"share": FloatDistribution(0.0, 1.0)}

    @property
    def needs(self) -> Needs:
        return Needs(prompts=True, scores=True)

    def candidate(self, params: Any, coefficients: Any = None, best: Merge | None = None) -> Pair:
        members = {one.name: one.candidate for one in self._found if one.role == "expert"}
        more = {} if best is None else {"best": best}
        return Pair(params["share"], members | more)

    def baselines(self) -> tuple[Baseline, ...]:
        return self._found


class PairBuilder(Builder):
    def __init__(self, prompts: Any) -> None:
        self._prompts = prompts

    def fitted(self, candidate: Pair, known: Mapping[str, Any]) -> Pair:
        if candidate.means is not None:
            return candidate
        if missing := candidate.members.keys() - known.keys():
            raise MergeError(f"nothing is known of {min(missing)}")
        tasks = self._prompts.tokens("search")
        table = {
            task: np.array([[np.mean(known[one][task])] for one in candidate.members], np.float32)
            for task in tasks
        }
        return replace(candidate, means=Coefficients(table))

    def parts(self, candidate: Pair, split: Any) -> list[Assignment]:
        assert candidate.means is not None
        names, found = list(candidate.members), []
        for task, prompts in self._prompts.tokens(split).items():
            best = int(candidate.means.tables[task].argmax())
            for even, member in ((True, names[best]), (False, names[0])):
                own = tuple(n for n, each in enumerate(prompts) if (len(each) % 2 == 0) == even)
                found.append(Assignment(member, candidate.members[member], {task: own}))
        return found


class PairKind(Kind):
    keys = frozenset({"parameters"})

    def check(self, settings: Any) -> None:
        pass

    def space(self, settings: Any, family: Family, seed: int) -> PairSpace:
        return PairSpace(family)

    def read(self, data: Any, arrays: Any = no_arrays) -> Pair:
        members = {name: _merge(each, arrays) for name, each in data["members"].items()}
        means = None if data["means"] is None else Coefficients.read(arrays(data["means"]))
        return Pair(data["share"], members, means)

    def opened(self, live: Any, prompts: Any = None) -> PairBuilder:
        return PairBuilder(prompts)

    def save(self, candidate: Pair, out: Any, **options: Any) -> None:
        from evomerge.merge.saving import save

        save(next(iter(candidate.members.values())), out, **options)


def _merge(data: dict[str, Any], arrays: Any) -> Merge:
    fields = dict(data)
    del fields["kind"]
    return Merge.read(fields, arrays)

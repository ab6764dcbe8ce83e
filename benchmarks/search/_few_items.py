"""The zoo with few items of each job: its merges, and what any module scores on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from torch import nn

from evomerge import zoo
from evomerge.candidate import Candidate
from evomerge.candidate.trial import SPLITS, Split
from evomerge.config import SpaceSettings
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS
from evomerge.scoring import Scorer
from evomerge.space import Baseline, Family, Space
from evomerge.tasks import SplitPlan, TaskRequest, load_items

TASKS_PATH = Path(__file__).parents[1] / "tasks"
JOBS = ("extraction", "dialogue", "tools", "translation", "facts")
METRIC = "gold_exact_match"
FINER = "gold_loglikelihood"
"""Of models that are level on the few select items, the one that is better in this is chosen."""
HOLDOUT = 200
LAYERS = 4
SPACE = {
    "method": "task_arithmetic",
    "layers": "each",
    "components": ["self_attn", "mlp"],
    "parameters": {"weight": {"low": -0.5, "high": 2.0}},
}
"""That of `search_spaces/quickstart.yaml`."""


@dataclass(frozen=True)
class Scores:
    """Exact match of one model.

    Attributes:
        select: Mean over jobs on the select items; behind it that of the gold answers' log-likelihood.
        holdout: On the held-out items, by job.
    """

    select: tuple[float, float]
    holdout: Mapping[str, float]


class FewItems:
    """Items of the five jobs, drawn as a campaign of this seed draws them, and one resident model.

    Args:
        count: Items of each job to learn from, and as many to select on.
        seed: Of the draw.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.models = {name: str(zoo.resolve(f"zoo:{name}")) for name in ("base", *JOBS)}
        self.live = LiveModel(list(self.models.values()), dtype="float32")
        counts = {"search": count, "select": count, "holdout": HOLDOUT}
        self._items = load_items(
            [TaskRequest(task(job)) for job in JOBS],
            tokenizer=self.live.tokenizer,
            tasks_path=str(TASKS_PATH),
            plan=SplitPlan({split: counts[split] for split in SPLITS}, seed=seed),
        )
        self._scorer = Scorer(self._items)

    def texts(self, job: str, split: Split = "search") -> list[tuple[str, str]]:
        """Return prompt and answer of every item of a job."""
        return [
            (doc["prompt"], doc["answer"])
            for leaf in self._items.leaves(task(job), split)
            for doc in leaf.docs
        ]

    def select(self, module: nn.Module) -> tuple[float, float]:
        """Score a module on the select items: means over jobs of exact match and of log-likelihood."""
        scored = self._score(module, "select")
        return fmean(scored[METRIC].values()), fmean(scored[FINER].values())

    def scores(self, module: nn.Module) -> Scores:
        """Score a module on the select and the held-out items."""
        return Scores(self.select(module), self._score(module, "holdout")[METRIC])

    def module(self, candidate: Candidate) -> nn.Module:
        """Return the resident model with a candidate's weights; the next call overwrites them."""
        self.live.write(candidate)
        return self.live.module

    def parent(self, name: str) -> Candidate:
        """Return the base (`base`), or a job's own expert."""
        return next(one.candidate for one in self._baselines if one.name == name)

    @cached_property
    def best_expert(self) -> Baseline:
        """The expert that is best on the select items."""
        return self._best([one for one in self._baselines if one.role == "expert"])

    @cached_property
    def task_arithmetic(self) -> Baseline:
        """Task arithmetic with the weight that is best on the select items."""
        return self._best([one for one in self._baselines if one.scale is not None])

    @cached_property
    def naive(self) -> Baseline:
        """The naive merge that is best on the select items."""
        return self._best([one for one in self._baselines if one.role == "baseline"])

    @cached_property
    def _baselines(self) -> Sequence[Baseline]:
        experts = {job: self.models[job] for job in JOBS}
        family = Family(self.models["base"], experts, LAYERS, "float32")
        return Space.build(SpaceSettings.model_validate(SPACE), family, METHODS).baselines()

    def _best(self, among: Sequence[Baseline]) -> Baseline:
        return max(among, key=lambda one: self.select(self.module(one.candidate)))

    def _score(self, module: nn.Module, split: Split) -> dict[str, dict[str, float]]:
        """Return metric → job → score."""
        metrics = {task(job): (METRIC, FINER) for job in JOBS}
        scored = self._scorer.score(module, split, metrics).tasks
        return {
            metric: {job: scored[task(job)].values[metric].value for job in JOBS}
            for metric in (METRIC, FINER)
        }


def task(job: str) -> str:
    """Return the name of a job's task."""
    return f"zoo_{job}"

"""A family with few items of each job: its merges, and what any module scores on them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from evomerge import zoo
from evomerge.candidate import Candidate
from evomerge.candidate.trial import SPLITS, Split
from evomerge.config import SpaceSettings
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS
from evomerge.scoring import Scorer
from evomerge.space import Baseline, Family, Space
from evomerge.tasks import SplitPlan, TaskRequest, load_items
from evomerge.tasks.requested import Source
from evomerge.zoo.drawing import END

JOBS = ("extraction", "dialogue", "tools", "translation", "facts")
METRIC = "gold_exact_match"
FINER = "gold_loglikelihood"
"""Of models that are level on the few select items, the one that is better in this is chosen."""
SPACE = {
    "method": "task_arithmetic",
    "layers": "each",
    "parameters": {"weight": {"low": -0.5, "high": 2.0}},
}


@dataclass(frozen=True)
class Suite:
    """Models with an expert for each job, and the jobs' tasks.

    Attributes:
        models: `base`, and every job with its expert → folder, or `MODEL+ADAPTER`.
        tasks_path: Folder of the tasks.
        prefix: Of the tasks' names; the job follows.
        end: What ends an answer.
        dtype: Of the merges.
        components: Of a layer, with coefficients of their own.
        drawn_from: Split → the tasks' own split that its items are drawn from; not there: the one lm-eval
            scores.
        holdout: Held-out items of each job.
        device: Where everything is computed: `cpu` or `cuda`.
    """

    models: Mapping[str, str]
    tasks_path: Path
    prefix: str
    end: str
    dtype: str = "float32"
    components: Sequence[str] = ("self_attn", "mlp")
    drawn_from: Mapping[Split, Source] = field(default_factory=dict)
    holdout: int = 200
    device: str = "cpu"

    @classmethod
    def zoo(cls) -> Suite:
        """Return the zoo with five jobs, and the space of `search_spaces/quickstart.yaml`."""
        models = {name: str(zoo.resolve(f"zoo:{name}")) for name in ("base", *JOBS)}
        return cls(models, Path(__file__).parents[1] / "tasks", "zoo_", END)

    @classmethod
    def built(cls, folder: Path, dtype: str) -> Suite:
        """Return a family that `benchmarks/smollm2/build.py` built; adapters change linear layers only."""
        folder = folder.resolve()
        adapters = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
        base = str(folder / "base")
        end = AutoTokenizer.from_pretrained(base).eos_token
        return cls(
            {"base": base} | {path.name: f"{base}+{path}" for path in adapters},
            folder / "tasks",
            "smollm2_",
            end,
            dtype,
            components=("self_attn",),
            drawn_from={"search": "validation", "select": "validation", "holdout": "test"},
        )

    @property
    def jobs(self) -> list[str]:
        """The jobs."""
        return [name for name in self.models if name != "base"]

    @property
    def space(self) -> dict[str, Any]:
        """Settings of the space that is searched."""
        return {**SPACE, "components": list(self.components)}

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch has it."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def now(self) -> float:
        """Return seconds of the processor, or of the clock, when a GPU is done with all that it was given."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def task(self, job: str) -> str:
        """Return the name of a job's task."""
        return self.prefix + job


@dataclass(frozen=True)
class Scores:
    """Exact match of one model.

    Attributes:
        select: Mean over jobs on the select items; behind it that of the gold answers' log-likelihood.
        holdout: On the held-out items, by job.
        right: Job → a digit for each held-out item: 1 for right, 0 for wrong.
    """

    select: tuple[float, float]
    holdout: Mapping[str, float]
    right: Mapping[str, str]


class FewItems:
    """Items of the jobs, drawn as a campaign of this seed draws them, and one resident model.

    Args:
        suite: Models and tasks.
        count: Items of each job to learn from, and as many to select on.
        seed: Of the draw.
        known: File of what parents and naive merges scored on the select items: read, and added to.
    """

    def __init__(self, suite: Suite, count: int, seed: int, known: Path | None = None) -> None:
        self.suite, self.count, self.seed = suite, count, seed
        self.live = LiveModel(list(suite.models.values()), dtype=suite.dtype, device=suite.device)
        counts = {"search": count, "select": count, "holdout": suite.holdout}
        self._items = load_items(
            [TaskRequest(suite.task(job)) for job in suite.jobs],
            tokenizer=self.live.tokenizer,
            tasks_path=str(suite.tasks_path),
            plan=SplitPlan(
                {split: counts[split] for split in SPLITS}, seed, dict(suite.drawn_from)
            ),
        )
        self._scorer = Scorer(self._items)
        self._file = known
        self._known: dict[str, tuple[float, float]] = {}
        if known is not None and known.exists():
            stored = json.loads(known.read_text())
            self._known = {key: (exact, finer) for key, (exact, finer) in stored.items()}

    @property
    def drawn(self) -> str:
        """Digest of the held-out items: equal where these are the same."""
        ids = [self._items.ids(self.suite.task(job), "holdout") for job in self.suite.jobs]
        return sha256(repr(ids).encode()).hexdigest()[:8]

    def texts(self, job: str, split: Split = "search") -> list[tuple[str, str]]:
        """Return prompt and answer of every item of a job."""
        return [
            (doc["prompt"], doc["answer"])
            for leaf in self._items.leaves(self.suite.task(job), split)
            for doc in leaf.docs
        ]

    def select(self, module: nn.Module) -> tuple[float, float]:
        """Score a module on the select items: means over jobs of exact match and of log-likelihood."""
        metrics = {self.suite.task(job): (METRIC, FINER) for job in self.suite.jobs}
        scored = self._scorer.score(module, "select", metrics).tasks.values()
        exact, finer = (
            fmean(each.values[metric].value for each in scored) for metric in (METRIC, FINER)
        )
        return exact, finer

    def scores(self, module: nn.Module, jobs: Sequence[str] = ()) -> Scores:
        """Score a module on the select items and, for some or all jobs, on the held-out ones."""
        asked = {job: self.suite.task(job) for job in jobs or self.suite.jobs}
        metrics = dict.fromkeys(asked.values(), (METRIC,))
        scored = self._scorer.score(module, "holdout", metrics).tasks
        found = {job: [int(one) for one in scored[asked[job]].metrics[METRIC]] for job in asked}
        return Scores(
            self.select(module),
            {job: fmean(values) for job, values in found.items()},
            {job: "".join(map(str, values)) for job, values in found.items()},
        )

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
        experts, base = {job: self.suite.models[job] for job in self.suite.jobs}, self.suite.models
        layers = AutoConfig.from_pretrained(base["base"]).num_hidden_layers
        family = Family(base["base"], experts, layers, self.suite.dtype)
        return Space.build(
            SpaceSettings.model_validate(self.suite.space), family, METHODS
        ).baselines()

    def _best(self, among: Sequence[Baseline]) -> Baseline:
        return max(among, key=self._selected)

    def _selected(self, one: Baseline) -> tuple[float, float]:
        if one.key not in self._known:
            self._known[one.key] = self.select(self.module(one.candidate))
            if self._file is not None:
                self._file.write_text(json.dumps(self._known), encoding="utf-8")
        return self._known[one.key]

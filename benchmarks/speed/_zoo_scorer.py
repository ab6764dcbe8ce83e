"""One resident model and its items, in this process: scores any recipe, or any weights, on any split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from evomerge.candidate import Merge, Recipe, dumps
from evomerge.candidate.trial import Split
from evomerge.merge.live import LiveModel
from evomerge.scoring import Scorer
from evomerge.tasks import SplitPlan, TaskRequest, load_items


class ZooScorer:
    """Scores as a worker does: the mean of one metric over all tasks.

    Args:
        models: The base first.
        tasks: Names of lm-eval tasks.
        tasks_path: Folder of their files.
        metric: Of each task.
        items: A campaign's `items`, with `from`.
        dtype: Of the weights.
    """

    def __init__(
        self,
        models: Sequence[str],
        tasks: Sequence[str],
        tasks_path: Path,
        metric: str,
        items: Mapping[str, Any],
        *,
        dtype: str = "float32",
    ) -> None:
        splits: tuple[Split, ...] = ("search", "select", "holdout")
        self.live = LiveModel(models, dtype=dtype)
        chosen = load_items(
            [TaskRequest(task) for task in tasks],
            tokenizer=self.live.tokenizer,
            tasks_path=str(tasks_path),
            plan=SplitPlan({split: items[split] for split in splits}, drawn_from=items["from"]),
        )
        self._scorer = Scorer(chosen)
        self._tasks, self._counts = len(tasks), {split: int(items[split]) for split in splits}
        self._metrics = dict.fromkeys(tasks, (metric,))
        self._metric = metric
        self._known: dict[tuple[str, Split], float] = {}

    def items(self, split: Split) -> int:
        """Return how many items a split has, of all tasks."""
        return self._tasks * self._counts[split]

    def score(self, recipe: Merge | Recipe, split: Split) -> float:
        """Score a merge or a recipe; a known one at no cost."""
        text = dumps(recipe) if isinstance(recipe, Recipe) else recipe.text()
        known = (text, split)
        if known not in self._known:
            self.live.write(recipe)
            self._known[known] = self._score(split)
        return self._known[known]

    def score_weights(self, weights: Mapping[str, torch.Tensor], split: Split) -> float:
        """Score weights that no recipe makes: a state of `live.module`."""
        self.live.module.load_state_dict(weights)
        return self._score(split)

    def _score(self, split: Split) -> float:
        tasks = self._scorer.score(self.live.module, split, self._metrics).tasks.values()
        return fmean(scores.values[self._metric].value for scores in tasks)

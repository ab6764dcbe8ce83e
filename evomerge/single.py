"""One model: its scores on lm-eval tasks, or on the very items of a campaign."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge import campaign, zoo
from evomerge.check import split_plan
from evomerge.errors import ModelError, ResultsError
from evomerge.merge import LiveModel
from evomerge.recipe import Recipe, Source
from evomerge.score import (
    PromptStyle,
    Scored,
    Scorer,
    SplitPlan,
    TaskRequest,
    expand,
    lm_eval_results,
    lm_eval_table,
    load_items,
)
from evomerge.store import Store
from evomerge.trial import Split, TaskScores

WHOLE: Split = "holdout"
"""Without a campaign all items are one split; its name shows nowhere."""
BOOTSTRAP_ITERATIONS = 1000
"""lm-eval draws 100,000 for the standard errors of metrics such as perplexity, which takes minutes."""


@dataclass(frozen=True)
class ModelScores:
    """Scores of one model.

    Attributes:
        model: As the user named it.
        results: lm-eval's own result dictionary (`results`, `versions`, `n-shot`, …).
        scored: The same scores with the values of every item.
    """

    model: str
    results: dict[str, Any]
    scored: Scored


def score_on_tasks(
    model: str,
    tasks: Sequence[str],
    *,
    tasks_path: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    allow_unsafe_code: bool = False,
) -> ModelScores:
    """Score a model as `lm_eval --model hf` does, every metric of every task.

    Args:
        model: A folder, a Hub id or `zoo:NAME`.
        tasks: lm-eval tasks, groups, tags and patterns such as `mmlu_*`.
        tasks_path: A folder of task files beside lm-eval's own.
        num_fewshot: Examples in the prompt.
        limit: Only the first documents of each task, as lm-eval's own limit.
        dtype: Of the forward passes.
        device: Where to run.
        allow_unsafe_code: Let tasks run code that the model writes.

    Raises:
        UserError: The model or a task is wrong.
    """
    folder = None if tasks_path is None else str(tasks_path)
    names = expand(tasks, folder)
    live = _live(model, dtype, device)
    items = load_items(
        [TaskRequest(task, num_fewshot) for task in names],
        tokenizer=live.tokenizer,
        tasks_path=folder,
        plan=SplitPlan(counts={WHOLE: limit}, first=True),
        allow_unsafe_code=allow_unsafe_code,
    )
    scorer = Scorer(live.module, live.tokenizer, items)
    scored = scorer.score_everything(WHOLE, bootstrap_iterations=BOOTSTRAP_ITERATIONS)
    return ModelScores(model, lm_eval_results(items, scored, WHOLE), scored)


def score_on_campaign(
    model: str, results: Path, split: Split, *, dtype: str | None = None, device: str = "cpu"
) -> ModelScores:
    """Score a model on the items of a campaign's split, by the metrics of its objectives.

    Args:
        model: A folder, a Hub id or `zoo:NAME`.
        results: The campaign's results folder.
        split: Which of its items.
        dtype: Of the forward passes; None: the campaign's.
        device: Where to run.

    Raises:
        ResultsError: No campaign is there, or its prompts are not what they were.
    """
    with Store.open(results, write=False) as store:
        run, facts = store.campaign, store.facts
    live = _live(model, dtype or run.models.dtype, device)
    items = load_items(
        [TaskRequest(goal.task, goal.num_fewshot) for goal in run.objectives],
        tokenizer=live.tokenizer,
        tasks_path=run.tasks_path,
        plan=split_plan(run),
        prompt=PromptStyle(**run.prompt.model_dump()),
        allow_unsafe_code=run.scorer.allow_unsafe_code,
    )
    for task, digest in items.digests.items():
        if facts["prompts"][task] != digest:
            raise ResultsError(
                f'the prompts of "{task}" are not those of the campaign: its task files, lm-eval or '
                "the tokenizer changed",
                file=results,
            )
    scorer = Scorer(live.module, live.tokenizer, items)
    scored = scorer.score(split, wanted_metrics(run), bootstrap_iterations=BOOTSTRAP_ITERATIONS)
    return ModelScores(model, lm_eval_results(items, scored, split), scored)


def wanted_metrics(run: campaign.Campaign) -> dict[str, tuple[str, ...]]:
    """Return task → the searched metric, and the reported one beside it."""
    return {goal.task: tuple(dict.fromkeys([goal.metric, goal.report])) for goal in run.objectives}


def table(scores: ModelScores) -> str:
    """Return the table that lm-eval prints, and which of its numbers are not over whole items."""
    lines = [lm_eval_table(scores.results)]
    for task, found in _each_task(scores).items():
        if found.truncated:
            lines.append(
                f"{task}: {found.truncated} of {len(found.items)} items are longer than the model's "
                "context; they were cut from the left, as lm-eval cuts them\n"
            )
        gold = [values for name, values in found.metrics.items() if name.startswith("gold_")]
        without = gold[0].count(None) if gold else 0
        if without:
            lines.append(
                f"{task}: {without} of {len(found.items)} items have no gold answer; gold_* metrics are "
                "over the others\n"
            )
    return "\n".join(lines)


def write_json(scores: ModelScores, path: Path) -> None:
    """Write lm-eval's results and, under `items`, the values of every item.

    Args:
        scores: What was scored.
        path: The file; written whole or not at all.
    """
    items = {
        task: {
            "ids": list(found.items),
            "metrics": {metric: list(values) for metric, values in found.metrics.items()},
        }
        for task, found in {**scores.scored.subtasks, **scores.scored.tasks}.items()
    }
    text = json.dumps({"model": scores.model, **scores.results, "items": items}, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text + "\n", encoding="utf-8")
    aside.replace(path)


def _each_task(scores: ModelScores) -> dict[str, TaskScores]:
    """Return the scores of every task, those of groups' tasks among them, without the groups'."""
    groups = scores.results["group_subtasks"]
    found = {**scores.scored.subtasks, **scores.scored.tasks}
    return {task: each for task, each in found.items() if task not in groups}


def _live(model: str, dtype: str, device: str) -> LiveModel:
    path = str(zoo.resolve(model)) if model.startswith("zoo:") else model
    if (Path(path) / "adapter_config.json").is_file():
        raise ModelError("is a LoRA adapter; give BASE+ADAPTER", file=path)
    live = LiveModel([path], dtype=dtype, device=device)
    live.write(Recipe(method="passthrough", models=(Source(path),), dtype=dtype))
    return live

"""Everything that can be wrong, and what a campaign will cost, before any time is spent."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge import campaign as settings
from evomerge import yaml_file
from evomerge.campaign import Campaign
from evomerge.errors import CampaignError, RecipeError, TaskError, UserError, nearest
from evomerge.family import OpenFamily, check_weights, open_family
from evomerge.merge import METHODS, ParameterSpec, check_recipe, load_tokenizer, method
from evomerge.sampler_choice import RENAMED_PRUNER, check_race, with_sampler
from evomerge.score import (
    BackendScorer,
    Items,
    PromptStyle,
    SplitPlan,
    TaskRequest,
    load_items,
)
from evomerge.space import Space, unused
from evomerge.trial import SPLITS, Split

OVERHEAD = 2.5
"""Measured trial time over bare matrix products: attention, norms, metrics, Python."""
GENERATED_TOKENS = 24
"""A guess for an answer that is generated, in a plan."""
FINAL_SPLITS: tuple[Split, ...] = ("select", "holdout")
"""On which the reported metric is scored, too."""
WORKER_BYTES = 700 * 2**20
"""What a worker's Python, torch, transformers and lm-eval take before any model."""


@dataclass(frozen=True)
class Preflight:
    """A campaign that can run, and all that was opened to find out.

    Attributes:
        campaign: The settings.
        family: The checked models.
        space: The searched space.
        requests: The tasks, for the workers.
        plan: The splits, for the workers.
        prompt: Prompt style, for the workers.
        items: The items of every split.
    """

    campaign: Campaign
    family: OpenFamily
    space: Space
    requests: tuple[TaskRequest, ...]
    plan: SplitPlan
    prompt: PromptStyle
    items: Items


@dataclass(frozen=True)
class Plan:
    """What a campaign will cost.

    Attributes:
        dimensions: Searched numbers.
        trials: Budget of trials.
        items_per_trial: Items scored for each.
        evaluations: All evaluations, parents, baselines, finalists and holdout included.
        workers: Workers at once.
        memory_bytes: All workers together; shared memory-mapped weights counted once.
        disk_bytes: Of the results folder.
        free_disk_bytes: Free there now.
        seconds: Estimated wall time.
        warnings: What is legal, but probably not meant.
    """

    dimensions: int
    trials: int
    items_per_trial: int
    evaluations: int
    workers: int
    memory_bytes: int
    disk_bytes: int
    free_disk_bytes: int
    seconds: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)


def preflight(campaign: Campaign, file: Path | None = None) -> Preflight:
    """Check a campaign against its models and tasks.

    Args:
        campaign: The settings.
        file: Where they were read from; errors then name this file and the line of the field.

    Raises:
        UserError: Naming the field, what was found and what was expected.
    """
    with located(file):
        return _preflight(campaign)


@contextmanager
def located(file: Path | None) -> Iterator[None]:
    """Let an error that names a field of a campaign name its file and line, too; None: leave it so."""
    try:
        yield
    except UserError as error:
        if error.field is None or file is None:
            raise
        document = yaml_file.read(file, CampaignError)
        parts = [int(part) if part.isdigit() else part for part in error.field.split(".")]
        place = "" if error.file is None else f"{error.file}: "
        raise document.error(type(error), parts, place + error.message) from error


def _preflight(campaign: Campaign) -> Preflight:
    check_methods(campaign)
    check_sampler(campaign)
    family = open_family(campaign.models)
    space = Space.build(campaign.space, family.family, METHODS, campaign.search.seed)
    if not space.distributions:
        raise CampaignError(
            "nothing is searched: every parameter is fixed; give one a range, such as "
            "weight: {low: 0.0, high: 1.0}",
            field="space.parameters",
        )
    for name in campaign.space.method:
        try:
            check_recipe(space.recipe(space.middle(name)))
        except RecipeError as error:
            raise CampaignError(error.message, field="space.parameters") from error
    requests = tuple(TaskRequest(goal.task, goal.num_fewshot) for goal in campaign.objectives)
    plan = split_plan(campaign)
    prompt = PromptStyle(**campaign.prompt.model_dump())
    items = _load_items(campaign, family.family.base, requests, plan, prompt)
    campaign = with_sampler(campaign, space, items)
    check_race(campaign, items)
    check_weights(family)  # reads all of it, so after all that is told by less
    return Preflight(campaign, family, space, requests, plan, prompt, items)


def plan(ready: Preflight) -> Plan:
    """Estimate what a campaign will cost.

    Time is tokens × weights × 2 operations over the speed of a matrix product of the model's own size,
    timed now, times what a trial takes beside such products. It is good to about a factor of two.
    """
    campaign, family = ready.campaign, ready.family
    count = worker_count(campaign.workers)
    per_trial = len(campaign.objectives) * campaign.items.search
    baselines = len(ready.space.baselines())
    extra = 2 * baselines + campaign.search.finalists + len(campaign.models.experts) + 5
    tokens = _tokens_of_a_trial(ready)
    rate = _operations_per_second(family, max(1, int(campaign.workers.cpus)))
    trial = OVERHEAD * 2 * family.parameters * tokens / rate
    factor = {"search": 1.0, "select": campaign.items.select / campaign.items.search}
    seconds = campaign.planned_trials * trial + baselines * trial * (1 + factor["select"])
    seconds += campaign.search.finalists * trial * factor["select"]
    seconds += (
        (len(campaign.models.experts) + 4)
        * trial
        * (campaign.items.holdout / campaign.items.search)
    )
    shared = sum(
        header.nbytes
        for opened in family.checkpoints.values()
        for header in opened.tensors.values()
    )
    resident = (1 + len(family.checkpoints)) * family.parameters * 4
    free = shutil.disk_usage(_existing_parent(Path(campaign.out))).free
    results = family.weight_bytes + (campaign.planned_trials + extra) * per_trial * 64 + 2**20
    return Plan(
        dimensions=len(ready.space.distributions),
        trials=campaign.planned_trials,
        items_per_trial=per_trial,
        evaluations=campaign.planned_trials + extra,
        workers=count,
        memory_bytes=shared + max(1, count) * (WORKER_BYTES + resident),
        disk_bytes=results,
        free_disk_bytes=free,
        seconds=seconds / max(1, count) + 20,
        warnings=_warnings(ready, results, free),
    )


def split_plan(campaign: Campaign) -> SplitPlan:
    """Return the campaign's splits as the score room takes them."""
    items = campaign.items
    return SplitPlan(
        counts={split: getattr(items, split) for split in SPLITS},
        seed=items.seed,
        drawn_from={split: getattr(items.drawn_from, split) for split in SPLITS},
    )


def worker_count(workers: settings.Workers) -> int:
    """Return how many workers `auto` means here: what the cores (or GPUs) hold."""
    if workers.count != "auto":
        return workers.count
    return max(1, int((os.cpu_count() or 1) // workers.cpus))


def check_methods(campaign: Campaign) -> None:
    """Check methods and parameters, for which no model is needed. Raises CampaignError."""
    space = campaign.space
    for name in space.method:
        try:
            method(name)
        except RecipeError as error:
            raise CampaignError(error.message, field="space.method") from error
    takes = {key: spec for name in space.method for key, spec in METHODS[name].parameters.items()}
    for key, value in space.parameters.items():
        field = f"space.parameters.{key}"
        if key not in takes:
            methods = " or ".join(space.method)
            raise CampaignError(
                f'unknown parameter "{key}" of {methods}; {nearest(key, takes)}', field=field
            )
        _check_range(key, value, takes[key], field)
    for name in space.method:
        for key, spec in METHODS[name].parameters.items():
            if spec.required and key not in space.parameters:
                raise CampaignError(
                    f"{name} needs the parameter {key}: a value, or a range such as "
                    f"{key}: {{low: 0.0, high: 1.0}}",
                    field="space.parameters",
                )


def _check_range(key: str, value: settings.Searched, spec: ParameterSpec, field: str) -> None:
    if isinstance(value, settings.Range):
        if spec.kind == "boolean":
            raise CampaignError(f"{key} is true or false, it has no range", field=field)
        ends = [("low", value.low), ("high", value.high)]
        if value.sum is not None:
            ends.append(("sum", value.sum))  # one expert may get all of it
        for expert, own in value.experts.items():
            place = f"experts.{expert}"
            if isinstance(own, settings.Bounds):
                ends += [(f"{place}.low", own.low), (f"{place}.high", own.high)]
            else:
                ends.append((place, float(own)))
    elif isinstance(value, bool) != (spec.kind == "boolean"):
        expected = "true or false" if spec.kind == "boolean" else "a number"
        raise CampaignError(f"found {value}, expected {expected}", field=field)
    else:
        ends = [("", float(value))]
    for name, end in ends:
        below = spec.low is not None and end < spec.low
        if below or (spec.high is not None and end > spec.high):
            low = "-inf" if spec.low is None else f"{spec.low:g}"
            high = "inf" if spec.high is None else f"{spec.high:g}"
            raise CampaignError(
                f"found {end:g}, expected {key} in [{low}, {high}]",
                field=f"{field}.{name}" if name else field,
            )


def check_sampler(campaign: Campaign) -> None:
    """Check that the sampler fits the objectives. Raises CampaignError."""
    if campaign.mode == "pareto" and campaign.search.sampler == "cmaes":
        raise CampaignError(
            "cmaes searches one value, not a Pareto front; take slope, nsga2, tpe, gp, random or "
            "qmc, or mode: mean",
            field="search.sampler",
        )
    if campaign.mode == "pareto" and len(campaign.objectives) + len(campaign.costs) < 2:
        raise CampaignError("a Pareto front needs two objectives or more, found 1", field="mode")


def _load_items(
    campaign: Campaign,
    base: str,
    requests: tuple[TaskRequest, ...],
    plan: SplitPlan,
    prompt: PromptStyle,
) -> Items:
    tokenizer = load_tokenizer(base, trust_remote_code=campaign.models.trust_remote_code)
    try:
        items = load_items(
            requests,
            tokenizer=tokenizer,
            tasks_path=campaign.tasks_path,
            plan=plan,
            prompt=prompt,
            allow_unsafe_code=campaign.scorer.allow_unsafe_code,
            trust_remote_code=campaign.models.trust_remote_code,
        )
    except TaskError as error:
        places = {f"objectives.{i}.task": goal.task for i, goal in enumerate(campaign.objectives)}
        field = next((f for f, task in places.items() if f'"{task}"' in error.message), None)
        raise TaskError(error.message, file=error.file, field=error.field or field) from error
    for position, goal in enumerate(campaign.objectives):
        for field in ("metric", "report"):
            splits = SPLITS if field == "metric" else FINAL_SPLITS
            try:
                items.check_metric(goal.task, getattr(goal, field), splits)
            except TaskError as error:
                raise TaskError(error.message, field=f"objectives.{position}.{field}") from error
    if campaign.scorer.backend != "resident":
        try:
            backend = BackendScorer(items, campaign.scorer.backend, campaign.scorer.args)
            backend.check({g.task: (g.metric, g.report) for g in campaign.objectives})
        except TaskError as error:
            raise TaskError(error.message, field="scorer.backend") from error
    return items


def _tokens_of_a_trial(ready: Preflight) -> int:
    """Count the tokens of all prompts of the search items, and guess those that are generated."""
    goals = ready.campaign.objectives
    requests = [
        request
        for goal in goals
        for leaf in ready.items.leaves(goal.task, "search")
        for of_item in leaf.requests
        for request in of_item
    ]
    texts = [" ".join(part for part in one.args if isinstance(part, str)) for one in requests]
    generating = sum(1 for one in requests if one.request_type == "generate_until")
    tokenizer = load_tokenizer(ready.family.family.base)
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    return sum(lengths) + GENERATED_TOKENS * generating


def _operations_per_second(family: OpenFamily, threads: int) -> float:
    import torch

    hidden = int(family.base.config.get_text_config().hidden_size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.randn(1024, hidden), torch.randn(hidden, 4 * hidden)
        left @ right
        start, rounds = time.perf_counter(), 0
        while time.perf_counter() - start < 0.2:
            left @ right
            rounds += 1
        return rounds * 2 * 1024 * hidden * 4 * hidden / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)


def _existing_parent(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _warnings(ready: Preflight, results: int, free: int) -> tuple[str, ...]:
    found = []
    dimensions, trials = len(ready.space.distributions), ready.campaign.planned_trials
    if trials < 2 * dimensions:
        found.append(
            f"{trials} trials are few for {dimensions} dimensions; fewer layer groups or "
            "components, or more trials, would help"
        )
    found += unused(ready.space, ready.campaign.search.sampler)
    if ready.campaign.search.pruner == "wilcoxon":
        found.append(RENAMED_PRUNER)
    if results > free:
        found.append(
            f"the results need {results / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free"
        )
    return tuple(found)


def describe(plan: Plan) -> str:
    """Return the plan as lines for a person."""
    minutes = plan.seconds / 60
    lines = [
        f"dimensions      {plan.dimensions}",
        f"trials          {plan.trials}, {plan.items_per_trial} items each "
        f"({plan.evaluations} evaluations with parents, baselines, finalists and holdout)",
        f"workers         {plan.workers}",
        f"memory          {_bytes(plan.memory_bytes)}",
        f"disk            {_bytes(plan.disk_bytes)} ({_bytes(plan.free_disk_bytes)} free)",
        f"estimated time  {minutes:.0f} min" if minutes >= 1 else "estimated time  under 1 min",
    ]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in plan.warnings), "ready"])


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"

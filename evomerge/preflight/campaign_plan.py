"""What a checked campaign will cost."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evomerge.candidate.size import FEED_FORWARD
from evomerge.config import ITEMSIZES, Campaign
from evomerge.merge.methods import METHODS
from evomerge.preflight.check import Preflight
from evomerge.preflight.machine import Here, here
from evomerge.preflight.preparation import Preparation, preparation_of
from evomerge.preflight.rates import Rates, rates
from evomerge.preflight.tokens import token_lines
from evomerge.preflight.warnings import warnings_of
from evomerge.scoring import gold_count
from evomerge.search.forecast import Forecast, forecast
from evomerge.workers.memory_plan import Machine, MemoryPlan, plan_memory
from evomerge.workers.model_sizes import sizes_by_device, sizes_of
from evomerge.workers.placement import Sharing, sharing_of
from evomerge.workers.vllm_memory import VllmMemory

STARTING_SECONDS = 20.0
"""Ray, the workers' libraries and models, and at the end the model and the report."""

_REPORTED_MERGES = 4  # beside base and experts: average, task arithmetic, TIES, the winner


@dataclass(frozen=True)
class Plan:
    """What a campaign will cost.

    Attributes:
        dimensions: Searched numbers.
        trials: Candidates, as the budgets of trials and items allow; as `hours` do where they end it.
        items_per_trial: Items scored for each.
        steps: Gradients taken between them.
        evaluations: All evaluations, parents, baselines, finalists and holdout included.
        workers: Workers at once.
        memory: Where everything is; None: it is on GPUs, and there are none here.
        memory_bytes: Of the machine: all workers together, and the models' files, which they share.
        disk_bytes: Of the results folder.
        free_disk_bytes: Free there now.
        seconds: Estimated wall time; None: it is on GPUs, and there are none here.
        ended_by_hours: Whether `hours` end the search before its other budgets do.
        warnings: What is legal, but probably not meant.
        tokenizer: What becomes of the models' tokens; nothing where all have the same.
        preparation: What is read before the first trial.
    """

    dimensions: int
    trials: int
    items_per_trial: int
    steps: int
    evaluations: int
    workers: int
    memory: MemoryPlan | None
    memory_bytes: int
    disk_bytes: int
    free_disk_bytes: int
    seconds: float | None
    ended_by_hours: bool
    warnings: tuple[str, ...] = ()
    tokenizer: tuple[str, ...] = ()
    preparation: Preparation = field(default_factory=Preparation)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)


def plan(ready: Preflight, machine: Here | None = None) -> Plan:
    """Estimate what a campaign will cost.

    Time is the number of evaluations times what each takes (`rates`), good to about a factor of two.

    Args:
        ready: The checked campaign.
        machine: Where it runs; None: here.
    """
    campaign = ready.campaign
    machine = machine or here()
    sharing = workers_here(campaign, machine)
    golds = {goal.task: gold_count(ready.items, goal.task) for goal in campaign.objectives}
    work, before = forecast(campaign, sharing.node, golds), preparation_of(ready, golds)
    on_gpus = campaign.workers.gpus > 0
    seconds, by_hours = None, False
    if machine.gpus or not on_gpus:
        found = rates(ready, "cuda" if on_gpus else "cpu")
        at_once = min(sharing.node, max(1, int(machine.cores // campaign.workers.cpus)))
        work, seconds, by_hours = _timed(ready, found, work, at_once)
        seconds += before.seconds(found) / at_once
    memory = memory_of(ready, machine, sharing)
    extra = (
        2 * len(ready.space.baselines())
        + campaign.search.finalists
        + len(campaign.models.experts)
        + 5
    )
    out = Path(campaign.out)
    free = shutil.disk_usage(next(p for p in (out, *out.parents) if p.exists())).free
    weights = ITEMSIZES[campaign.models.dtype] * _largest(ready)
    results = weights + (work.trials + extra) * campaign.items_per_trial * 64 + 2**20
    return Plan(
        dimensions=len(ready.space.distributions),
        trials=work.trials,
        items_per_trial=campaign.items_per_trial,
        steps=work.steps,
        evaluations=work.trials + extra,
        workers=sharing.node,
        memory=memory,
        memory_bytes=0 if memory is None else memory.host + memory.files,
        disk_bytes=results,
        free_disk_bytes=free,
        seconds=seconds,
        ended_by_hours=by_hours,
        warnings=warnings_of(ready, machine, memory, seconds, work.trials, (results, free)),
        tokenizer=token_lines(ready.family, campaign.models.tokenizer),
        preparation=before,
    )


def _largest(ready: Preflight) -> int:
    """Return how many weights the largest winner may have."""
    needs, base = ready.space.needs, ready.family.base
    blocks = sum(one.numel for name, one in base.tensors.items() if FEED_FORWARD in name)
    beside = max(1, needs.whole_models - 1)  # the live model is not saved
    return beside * ready.family.parameters + needs.feed_forwards * blocks


def _timed(
    ready: Preflight, found: Rates, work: Forecast, at_once: int
) -> tuple[Forecast, float, bool]:
    """Return the work that `hours` allow, its wall time in seconds, and whether they end it."""
    campaign, items, search = ready.campaign, ready.campaign.items, ready.campaign.search
    scored = work.items / len(campaign.objectives) * found.searched
    searching = (scored + work.steps * work.step_items * found.gradient) / at_once
    by_hours = False
    if search.hours is not None:
        limit = 3600 * search.hours
        by_hours = limit < searching or (search.trials is None and search.item_evaluations is None)
        if by_hours:
            trials = max(1, round(work.trials * limit / searching))
            work = replace(work, trials=trials, items=trials * campaign.items_per_trial)
            searching = limit
    baselines = len(ready.space.baselines())
    select = items.select * (baselines + min(search.finalists, work.trials))
    holdout = items.holdout * (1 + len(campaign.models.experts) + _REPORTED_MERGES)
    others = baselines * items.search * found.searched + (select + holdout) * found.reported
    return work, STARTING_SECONDS + searching + others / at_once, by_hours


def workers_here(campaign: Campaign, machine: Here) -> Sharing:
    """Return how many workers a pool starts on a machine: as many as its cores, or its GPUs, hold."""
    settings, resources = campaign.workers, machine.resources
    if settings.count == 0:
        return Sharing()
    if settings.count != "auto":  # on one machine workers may share its cores
        resources = resources | {"CPU": max(resources["CPU"], settings.count * settings.cpus)}
    if settings.gpus and not machine.gpus:
        return Sharing(1 if settings.count == "auto" else settings.count, 1)
    return sharing_of(settings.count, settings.cpus, settings.gpus, [resources])


def memory_of(ready: Preflight, machine: Here, sharing: Sharing) -> MemoryPlan | None:
    """Plan the workers' memory, as they do; None where they ask for GPUs that are not there."""
    campaign = ready.campaign
    device = None
    if campaign.workers.gpus:
        if not machine.gpus:
            return None
        device = min(machine.gpus)
    itemsize, needs = ITEMSIZES[campaign.models.dtype], ready.space.needs
    live, blocks = needs.whole_models, needs.feed_forwards
    quantise = campaign.scorer.quantise
    sizes = sizes_of(ready.family.checkpoints, itemsize, live, blocks, quantise)
    methods = [METHODS[name] for name in campaign.space.methods]
    parts = sizes_by_device(
        ready.family.checkpoints,
        int(campaign.workers.gpus),
        itemsize,
        live,
        quantise=quantise,
        trust_remote_code=campaign.models.trust_remote_code,
    )
    node = Machine(machine.host, machine.host_free, device)
    vllm = VllmMemory.of(campaign.scorer.backend, campaign.scorer.args, sharing)
    return plan_memory(sizes, node, sharing, methods, parts, vllm, one_pass=ready.one_pass)

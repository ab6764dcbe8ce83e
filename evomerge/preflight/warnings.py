"""What is legal in a campaign, but probably not meant, in one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from evomerge.candidate.merge import component_of
from evomerge.inference.sizing import token_bytes
from evomerge.kinds import SearchSpace
from evomerge.merge.devices import torch_dtype
from evomerge.merge.layout import Layout
from evomerge.preflight.adapters import in_vain
from evomerge.preflight.check import Preflight
from evomerge.preflight.machine import Here
from evomerge.search.samplers import sampler_class
from evomerge.search.samplers.descent import CHECKPOINTS
from evomerge.space import REST, SeveralSpaces
from evomerge.space.choices import is_choice
from evomerge.workers.memory_plan import MemoryPlan, size

TOO_LONG = 30 * 86400
"""Seconds beyond which a campaign is warned of."""
FEWEST_BATCH_TOKENS = 64
SEVERAL_GPUS = ("resident", "vllm")
"""Scorers that spread a model over the GPUs of a worker."""
MANY_TRIALS = 10**6


def warnings_of(
    ready: Preflight,
    machine: Here,
    memory: MemoryPlan | None,
    seconds: float | None,
    trials: int,
    disk: tuple[int, int],
) -> tuple[str, ...]:
    """Return a warning for each setting that is probably not meant.

    Args:
        ready: The checked campaign.
        machine: Where it runs.
        memory: Its memory plan.
        seconds: Its estimated time.
        trials: Its candidates.
        disk: Bytes that the results need, and bytes that are free.
    """
    needed, free = disk
    full = f"the results need {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free"
    return (
        *ready.campaign.notes,
        *_of_the_search(ready, seconds, trials),
        *without_gradient(ready.space, ready.campaign.search.sampler),
        *_of_components(ready),
        *same_prompts(ready),
        *_of_workers(ready, machine),
        *in_vain(ready.campaign, ready.family),
        *_of_batches(ready, memory),
        *(memory.faults if memory is not None else ()),
        *([full] if needed > free else []),
    )


def without_gradient(space: SearchSpace, sampler: str) -> Iterator[str]:
    """Yield a warning where the sampler `gradient` meets dimensions that have none."""
    if isinstance(space, SeveralSpaces) and sampler == "gradient":
        flat = [name for name, part in space.spaces.items() if not part.differentiable]
        if flat:
            yield f"{' and '.join(flat)}: no gradient; CMA-ES searches there, and NSGA-II for a front"
        for part in space.spaces.values():
            yield from without_gradient(part, sampler) if part.differentiable else ()
        return
    names, smooth = tuple(space.distributions), set(space.differentiable)
    flat = [name for name in names if name not in smooth and not is_choice(name)]
    if sampler == "gradient" and flat:
        kinds = Counter(name.split("/")[0] for name in flat)
        listed = ", ".join(name if n == 1 else f"{name} ×{n}" for name, n in kinds.items())
        yield (
            f"there is no gradient by {len(flat)} of {len(names)} dimensions ({listed}): the sampler's "
            "CMA-ES part searches them"
        )


def _of_the_search(ready: Preflight, seconds: float | None, trials: int) -> Iterator[str]:
    search, dimensions = ready.campaign.search, len(ready.space.distributions)
    descends = sampler_class(ready.campaign).needs_gold
    if descends and trials < len(CHECKPOINTS):
        yield (
            f"search.trials: {trials} points of a descent, which ends after {CHECKPOINTS[trials - 1]} of "
            f"{CHECKPOINTS[-1]} steps; expected {len(CHECKPOINTS)} or more"
        )
    if not descends and trials < 2 * dimensions:
        yield (
            f"{trials} trials are few for {dimensions} dimensions; fewer layer groups or "
            "components, or more trials, would help"
        )
    if not descends and search.finalists > trials:
        yield (
            f"search.finalists: {search.finalists} of {trials} trials are all of them; expected some of the "
            "best"
        )
    if trials > MANY_TRIALS:
        yield f"search.trials: {trials} candidates; samplers learn little after some thousands"
    if seconds is not None and seconds > TOO_LONG:
        yield (
            f"all of it would take {duration(seconds)}; lower search.trials or items.search, or set "
            "search.hours"
        )


def _of_components(ready: Preflight) -> Iterator[str]:
    settings = ready.campaign.space
    for place, part in enumerate(settings.parts):
        if part.components:
            field = ".".join(map(str, (*settings.field(place), "components")))
            yield from _unused(ready, part.components, field)


def _unused(ready: Preflight, components: Sequence[str], field: str) -> Iterator[str]:
    """Yield a warning for each component that holds no tensor."""
    layout = Layout.of(ready.family.base)
    inside = {suffix for layer in layout.layers for suffix in layer}
    outside = (*layout.first, *layout.last)
    names = [*sorted(inside), *outside]
    found = Counter(component_of(components, name) for name in names)
    there = sorted({name.split(".")[0] for name in inside})
    there += sorted({name.removesuffix(".weight").split(".")[-1] for name in outside})
    for place, text in enumerate(components):
        if found[place]:
            continue
        if any(text in name for name in names):
            why = "matches only tensors that stand in an earlier component"
        else:
            why = "matches no tensor"
        yield f'{field}: "{text}" {why}; there are {", ".join(there)}'
    if not found[len(components)]:
        yield f"{field}: nothing is left for `{REST}`, whose numbers are searched for nothing"


def same_prompts(ready: Preflight) -> Iterator[str]:
    """Yield a warning where moments are to be taken of experts that all read the same prompts."""
    campaign, reads = ready.campaign, ready.space.needs.statistics
    alike = len(campaign.objectives) > 1 and not any(one.teacher for one in campaign.objectives)
    if alike and not campaign.statistics and reads & {"moment", "merged"}:
        yield (
            "objectives: without a `teacher` of each task every expert reads the prompts of all of them, and "
            "its moments tell little of what it does well"
        )


def _of_workers(ready: Preflight, machine: Here) -> Iterator[str]:
    workers, gpus = ready.campaign.workers, len(machine.gpus)
    count = 1 if workers.count in ("auto", 0) else int(workers.count)
    if workers.gpus and not gpus:
        yield (
            "workers.gpus: there is no GPU here, and neither memory nor time can be planned; search needs "
            "one, or --address of a cluster that has some, or gpus: 0"
        )
    elif workers.gpus and count * workers.gpus > gpus:
        yield (
            f"workers.gpus: {_workers(count)} of {workers.gpus:g} GPUs need {count * workers.gpus:g}, "
            f"there are {gpus} here; lower workers.count or workers.gpus, or join a cluster with --address"
        )
    backend = ready.campaign.scorer.backend
    if workers.gpus > 1 and backend not in SEVERAL_GPUS:
        yield (
            f"workers.gpus: a worker of the scorer {backend} computes on one GPU, and {workers.gpus:g} are "
            "kept for each; take 1"
        )
    if workers.cpus > machine.cores:
        yield f"workers.cpus: {workers.cpus:g} cores a worker, there are {machine.cores} here"
    elif count * workers.cpus > machine.cores:
        yield (
            f"workers.count: {_workers(count)} of {workers.cpus:g} cores share {machine.cores}; "
            f"more than {max(1, int(machine.cores // workers.cpus))} make nothing faster here"
        )


def _of_batches(ready: Preflight, memory: MemoryPlan | None) -> Iterator[str]:
    given = ready.campaign.workers.batch_tokens
    if given == "auto":
        return
    config, dtype = ready.family.base.config, torch_dtype(ready.campaign.models.dtype)
    need = given * token_bytes(config, dtype).forward
    if memory is not None and need > memory.passes:
        yield (
            f"workers.batch_tokens: a pass of {given} tokens takes {size(need)}, and a worker has "
            f"{size(memory.passes)} for its passes; lower it, or leave it at auto"
        )
    if given < FEWEST_BATCH_TOKENS:
        yield (
            f"workers.batch_tokens: passes of {given} tokens are slow, and few prompts are so short; leave "
            "it at auto"
        )


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Return a time for a person."""
    for name, length in (("years", 365 * 86400), ("days", 86400), ("h", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {name}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else "under 1 min"

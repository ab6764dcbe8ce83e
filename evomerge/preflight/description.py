"""A plan as lines for a person."""

from __future__ import annotations

from evomerge.preflight.campaign_plan import Plan
from evomerge.preflight.warnings import duration
from evomerge.workers.memory_plan import MemoryPlan, size


def describe(plan: Plan) -> str:
    """Return the plan as lines for a person."""
    steps = f", {plan.steps} gradients between them" if plan.steps else ""
    lines = [
        f"dimensions      {plan.dimensions}",
        f"trials          {plan.trials}, {plan.items_per_trial} items each{steps} "
        f"({plan.evaluations} evaluations with parents, baselines, finalists and holdout)",
        *([f"before them     {plan.preparation}"] if str(plan.preparation) else []),
        f"workers         {plan.workers}",
        *_memory(plan.memory),
        f"disk            {size(plan.disk_bytes)} ({size(plan.free_disk_bytes)} free)",
        f"estimated time  {_time(plan)}",
        *(f"{'' if i else 'tokenizer':15} {line}" for i, line in enumerate(plan.tokenizer)),
    ]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in plan.warnings), "ready"])


def _time(plan: Plan) -> str:
    if plan.seconds is None:
        return "cannot be estimated here: no GPU"
    ended = ", of which search.hours for the search" if plan.ended_by_hours else ""
    return f"{duration(plan.seconds)}{ended}"


def _memory(memory: MemoryPlan | None) -> list[str]:
    if memory is None:
        return ["memory          cannot be planned here: no GPU"]
    workers = f"{memory.sharing.node} worker{'s' * (memory.sharing.node != 1)}"
    host = (
        f"memory          {size(memory.host + memory.files)} ({size(memory.host_free)} free): "
        f"{workers} {size(memory.host)}, the models' files {size(memory.files)}"
    )
    if not memory.on_gpu:
        kept = (
            f"of a worker     {size(memory.weights)} live model, {_kept(memory, 'task vectors')}, "
            f"{size(memory.workspace)} while merging{_vllm(memory)}"
        )
        return [host, kept]
    shared = f" ({memory.sharing.device} workers on each)" if memory.sharing.device > 1 else ""
    gpus = [_of_a_gpu(f"of a GPU{shared}", memory)]
    if memory.devices:
        gpus = [
            f"GPUs a worker   {len(memory.devices)}, the models spread over them layer by layer"
        ]
        gpus += [_of_a_gpu(f"of GPU {n}", one) for n, one in enumerate(memory.devices)]
    streams = []
    if memory.streamed:
        streams = [
            f"streams         {size(memory.streamed)} from the host's memory to "
            f"{'its GPUs' if memory.devices else 'each GPU'} for every candidate"
        ]
    return [host, *gpus, *streams]


def _of_a_gpu(name: str, memory: MemoryPlan) -> str:
    return name.ljust(16) + (
        f"{size(memory.share)} a worker: {size(memory.weights)} live model, "
        f"{_kept(memory, 'models')}, {size(memory.workspace)} while merging, {size(memory.passes)} for "
        f"passes{_vllm(memory)}"
    )


def _vllm(memory: MemoryPlan) -> str:
    return f"; {size(memory.vllm)} vLLM, with weights of its own" if memory.vllm else ""


def _kept(memory: MemoryPlan, what: str) -> str:
    derived = f" and {size(memory.derived)} made of them" if memory.derived else ""
    if memory.inputs < memory.wanted:
        return f"{size(memory.inputs)} of {size(memory.wanted)} of {what}{derived}"
    return f"{size(memory.inputs)} {what}{derived}" if memory.wanted else f"no {what}"

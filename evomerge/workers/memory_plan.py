"""What a worker keeps where, as a function of sizes, dtypes, machine and workers.

The workers take their budgets from it, and `evomerge check` prints it, so what is printed is what happens.
On a GPU a worker has its share of one device: the live weights come first, then room for the passes, then
the models as they are stored; what does not fit streams from the files that the host maps into its memory,
for every candidate. Over several GPUs the models are spread layer by layer, and each of them is planned with
its part. On a CPU the models are views of their files, and what is kept are task vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from evomerge.merge import fused
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.devices import devices_of, gpu_memory, host_memory, torch_dtype
from evomerge.merge.memory import Memory
from evomerge.merge.methods import METHODS, Method
from evomerge.merge.methods.task_vectors import HELD
from evomerge.workers.model_sizes import Sizes, sizes_by_device, sizes_of
from evomerge.workers.placement import Sharing
from evomerge.workers.setup import WorkerSetup
from evomerge.workers.vllm_memory import VllmMemory

PROCESS_BYTES = 700 * 2**20
"""What a worker's Python, torch, transformers and lm-eval take before any model."""
GPU_PROCESS_BYTES = 3 * 2**30
"""The same on the host of a GPU: CUDA's own libraries too."""
CONTEXT_BYTES = 600 * 2**20
"""What CUDA takes on a device for each process."""

LEAST_FOR_PASSES = 2**30
"""With less, logits and passes of a few hundred tokens do not fit."""

_MATHS = 4  # bytes of a number in a merge: float32
_PASSES_PART = 5  # passes get at least this part of what the live weights leave
_KEPT_PART = 4  # of a host's free memory, what its workers' task vectors may take


@dataclass(frozen=True)
class Machine:
    """What a node has, in bytes.

    Attributes:
        host: Memory.
        host_free: Of that, what is free, or would be if the page cache gave it back.
        device: Memory of its smallest GPU; None: workers compute on the CPU.
    """

    host: int
    host_free: int
    device: int | None = None


@dataclass(frozen=True)
class MemoryPlan:
    """Where everything is, in bytes.

    Attributes:
        on_gpu: Whether `share` is of a GPU; otherwise of the host's memory.
        sharing: How many workers there are.
        share: What one worker may take of its device.
        weights: Its live model.
        workspace: What a merge takes at its peak.
        wanted: All that would be kept from one candidate to the next.
        inputs: Of that, the models or task vectors that are kept.
        derived: Of that, what is kept of orders and random numbers.
        streamed: What is read from the host's memory for every candidate.
        passes: What is left for forward and backward passes, keys and values.
        host: What all workers of a node take of its memory, files and `kept_on_host` apart.
        host_free: What is free there.
        files: The models' files, which all workers of a node share in the page cache.
        faults: What does not fit, and what to change; empty: it fits.
        vllm: What a worker's vLLM takes beside `share`, of its device or of `host`.
        kept_on_host: Of the host's memory, the most that a worker of GPUs keeps of what linear algebra
            computes there.
        devices: The same of each of a worker's GPUs, where it has several: `share`, `weights`, `wanted`,
            `inputs`, `derived`, `streamed` and `vllm` are then their sums, `workspace` the most and `passes`
            the least of them.
    """

    on_gpu: bool
    sharing: Sharing
    share: int
    weights: int
    workspace: int
    wanted: int
    inputs: int
    derived: int
    streamed: int
    passes: int
    host: int
    host_free: int
    files: int
    faults: tuple[str, ...] = ()
    vllm: int = 0
    kept_on_host: int = 0
    devices: tuple[MemoryPlan, ...] = ()

    @property
    def kept(self) -> int:
        """Bytes of the device that are kept from one candidate to the next, live weights apart."""
        return self.inputs + self.derived

    @property
    def fits(self) -> bool:
        """Whether weights, maths and the smallest passes find room; else `faults` begin with why not."""
        if self.devices:
            return all(one.fits for one in self.devices)
        least = self.weights + self.workspace + LEAST_FOR_PASSES
        return self.host <= self.host_free and not (self.on_gpu and least > self.share)

    def memories(self, count: int) -> list[Memory]:
        """Return what a worker keeps from one candidate to the next, on each of its `count` devices."""
        return [
            Memory(
                one.kept,
                for_inputs=one.inputs if one.on_gpu else 0,
                on_host=self.kept_on_host // count,
            )
            for one in self.devices or [self] * count
        ]

    @property
    def from_disk(self) -> int:
        """Bytes of the files for which the host's memory has no room."""
        return min(self.files, max(0, self.host + self.files - self.host_free))


def plan_memory(
    sizes: Sizes,
    machine: Machine,
    sharing: Sharing,
    methods: Iterable[Method],
    parts: Sequence[Sizes] = (),
    vllm: VllmMemory | None = None,
    *,
    one_pass: bool = False,
) -> MemoryPlan:
    """Plan what one of several equal workers of a node keeps, and where, for candidates of these methods.

    Args:
        sizes: Of the models.
        machine: Where it is.
        sharing: How many workers there are.
        methods: Of the candidates.
        parts: What of the models lies on each of a worker's GPUs, where it has several.
        vllm: What its engine takes, if it has one.
        one_pass: As of `WorkerSetup`.
    """
    beside = 0 if vllm is None else vllm.bytes(sizes.weights, machine.device)
    chosen = tuple(methods)
    algebra = max((_algebra(method, sizes) for method in chosen), default=0)
    device = torch.device("cpu" if machine.device is None else "cuda")
    few = len(sizes.models) - 1 <= fused.MOST
    one_pass = one_pass and few and fused.pays(device, sizes.tensors)
    if machine.device is None:
        return _with_faults(_on_cpus(sizes, machine, sharing, chosen, algebra, beside, one_pass))
    each = [
        _on_a_gpu(one, machine, sharing, chosen, algebra, max(1, len(parts)), beside, one_pass)
        for one in parts or [sizes]
    ]
    plan = replace(_together(each), files=sizes.files)
    spare = max(0, machine.host_free - plan.host - sizes.files)
    on_host = min(machine.host_free // _KEPT_PART, spare) // sharing.node
    return _with_faults(replace(plan, kept_on_host=on_host))


def plan_memory_here(checkpoints: Mapping[str, Checkpoint], setup: WorkerSetup) -> MemoryPlan:
    """Plan this worker's memory; on a GPU never with more than is free there now."""
    host, host_free = host_memory()
    itemsize, live = torch_dtype(setup.dtype).itemsize, setup.whole_models
    quantise = setup.quantise
    sizes = sizes_of(checkpoints, itemsize, live, setup.feed_forwards, quantise)
    methods = [METHODS[name] for name in setup.methods if name in METHODS]
    device: int | None = None
    parts: tuple[Sizes, ...] = ()
    if torch.device(setup.device).type == "cuda":
        gpus = map(torch.device, devices_of(setup.device, setup.gpus))
        device = min(_usable(each, setup.sharing) for each in gpus)
        parts = sizes_by_device(
            checkpoints,
            setup.gpus,
            itemsize,
            live,
            quantise=quantise,
            trust_remote_code=setup.trust_remote_code,
        )
    vllm = VllmMemory.of(setup.backend, setup.backend_arguments, setup.sharing)
    node, one_pass = Machine(host, host_free, device), setup.one_pass
    return plan_memory(sizes, node, setup.sharing, methods, parts, vllm, one_pass=one_pass)


def keep_to_share(setup: WorkerSetup) -> None:
    """Let a worker that shares a GPU run out of memory at its own share, not take its neighbours'."""
    device, sharing = torch.device(setup.device), setup.sharing.device
    if device.type == "cuda" and sharing > 1:
        total, _ = gpu_memory(device)
        torch.cuda.set_per_process_memory_fraction(1 / sharing - CONTEXT_BYTES / total)


def _workspace(method: Method, sizes: Sizes) -> int:
    """Return what a method's maths takes at its largest tensor, or where it holds most task vectors."""
    experts = max(1, len(sizes.models) - 1)

    def tensors(size: int) -> int:
        if not method.elects:
            return 1 + method.temporaries
        held = size * experts <= HELD
        return method.temporaries + (experts if held else 1 + method.recomputing)

    return max((_MATHS * size * tensors(size) for size in sizes.tensors), default=0)


def _algebra(method: Method, sizes: Sizes) -> int:
    """Return what a method's linear algebra takes of the host's memory at the largest matrix."""
    experts = max(1, len(sizes.models) - 1)
    of = method.matrix_bytes
    return 0 if of is None else max((of(m, n, experts) for m, n in sizes.matrices), default=0)


def _usable(device: torch.device, sharing: Sharing) -> int:
    """Return the memory of a GPU, or what of it its workers can have now if that is less."""
    total, free = gpu_memory(device)
    return min(total, (free + torch.cuda.memory_reserved(device)) * sharing.device)


def _peak(methods: Iterable[Method], sizes: Sizes) -> int:
    # TIES is among the baselines of every campaign.
    return max(_workspace(method, sizes) for method in (*methods, METHODS["ties"]))


def _derived(methods: Iterable[Method], sizes: Sizes, one_pass: bool) -> int:
    """Return what is kept on a GPU of what is computed: of one pass over it nothing."""
    by_steps = (m.derived_bytes for m in methods if not (one_pass and _is_one_pass(m)))
    return sizes.deltas * max(by_steps, default=0)


def _is_one_pass(method: Method) -> bool:
    """Tell whether a GPU merges by it in one pass."""
    return method.one_pass_bytes is not None and method.one_pass_on_gpus


def _on_a_gpu(
    sizes: Sizes,
    machine: Machine,
    sharing: Sharing,
    methods: tuple[Method, ...],
    algebra: int,
    count: int,
    vllm: int,
    one_pass: bool,
) -> MemoryPlan:
    """Plan one of the `count` GPUs of a worker, with what lies on it."""
    device, workspace = machine.device or 0, _peak(methods, sizes)
    share = device // sharing.device - CONTEXT_BYTES - vllm
    room = share - sizes.weights - workspace
    wanted = sum(sizes.models)
    inputs = max(0, min(wanted, room - room // _PASSES_PART))
    if inputs < wanted:  # what streams stands on the device while its tensor is merged
        room -= max(sizes.tensors, default=0) * (sum(sizes.models) // max(1, sizes.numbers))
        inputs = max(0, min(wanted, room - room // _PASSES_PART))
    derived = max(0, min(_derived(methods, sizes, one_pass), room // 2 - inputs))
    fault = ""
    if room < LEAST_FOR_PASSES:
        where = "of GPU memory" if count == 1 else f"on one of its {count} GPUs"
        need = share - room + LEAST_FOR_PASSES + CONTEXT_BYTES + vllm
        advice = (
            f"let fewer than {sharing.device} workers share a GPU (workers.gpus: 1)"
            if sharing.device > 1
            else f"take a larger GPU, or models.dtype: bfloat16, or workers.gpus: {2 * count}"
        )
        fault = (
            f"a worker needs {size(need)} {where} at least, and has "
            f"{size(device // sharing.device)}; {advice}"
        )
    elif vllm and vllm < sizes.weights + LEAST_FOR_PASSES:
        fault = (
            f"vLLM needs {size(sizes.weights + LEAST_FOR_PASSES)} at least for its own copy of the weights, "
            f"and has {size(vllm)}; raise scorer.args.gpu_memory_utilization"
        )
    return MemoryPlan(
        on_gpu=True,
        sharing=sharing,
        share=share,
        weights=sizes.weights,
        workspace=workspace,
        wanted=wanted,
        inputs=inputs,
        derived=derived,
        streamed=wanted - inputs,
        passes=max(0, room - inputs - derived),
        host=sharing.node * (GPU_PROCESS_BYTES + algebra),
        host_free=machine.host_free,
        files=sizes.files,
        faults=(fault,) if fault else (),
        vllm=vllm,
    )


def _together(each: Sequence[MemoryPlan]) -> MemoryPlan:
    """Return the plan of a worker's GPUs from that of each."""
    if len(each) == 1:
        return each[0]
    summed = ("share", "weights", "wanted", "inputs", "derived", "streamed", "vllm")
    return replace(
        each[0],
        **{field: sum(getattr(one, field) for one in each) for field in summed},
        workspace=max(one.workspace for one in each),
        passes=min(one.passes for one in each),
        faults=next((one.faults for one in each if one.faults), ()),
        devices=tuple(each),
    )


def _kept_on_cpus(method: Method, sizes: Sizes, one_pass: bool) -> tuple[int, int]:
    """Return bytes of the inputs that a method keeps, and of what it computes from them.

    Models of files need no memory where they are merged in one pass; adapters where nothing is left out of
    them, since they are then added up as factors, and otherwise what they make of the base is kept.
    """
    computed = sizes.computed // _MATHS
    mapped = max(0, sizes.deltas - computed)
    each, inputs = method.derived_bytes, _MATHS * mapped if method.reads_deltas else 0
    if method.one_pass_bytes is not None and one_pass:
        each, inputs = method.one_pass_bytes, 0
    if method.one_pass_bytes is None or method.derived_bytes:
        return inputs + sizes.computed, each * sizes.deltas
    return inputs, each * mapped


def _on_cpus(
    sizes: Sizes,
    machine: Machine,
    sharing: Sharing,
    methods: tuple[Method, ...],
    algebra: int,
    vllm: int,
    one_pass: bool,
) -> MemoryPlan:
    workspace = max(_peak(methods, sizes), algebra)
    kept = [_kept_on_cpus(method, sizes, one_pass) for method in methods]
    wanted = max((inputs for inputs, _ in kept), default=sizes.computed)
    derived = max((of_inputs for _, of_inputs in kept), default=0)
    least = sharing.node * (PROCESS_BYTES + sizes.weights + workspace + vllm)
    spare = max(0, machine.host_free - least - sizes.files)
    most = min(machine.host_free // _KEPT_PART, spare) // sharing.node
    inputs = min(wanted, most)
    derived = min(derived, most - inputs)
    return MemoryPlan(
        on_gpu=False,
        sharing=sharing,
        share=machine.host_free // sharing.node,
        weights=sizes.weights,
        workspace=workspace,
        wanted=wanted,
        inputs=inputs,
        derived=derived,
        streamed=0,
        passes=machine.host // 2 // sharing.node,
        host=least + sharing.node * (inputs + derived),
        host_free=machine.host_free,
        files=sizes.files,
        vllm=vllm,
    )


def _with_faults(plan: MemoryPlan) -> MemoryPlan:
    """Add what does not fit into the host's memory."""
    faults = list(plan.faults)
    if plan.host > plan.host_free:
        workers = f"{plan.sharing.node} worker{'s' * (plan.sharing.node > 1)}"
        advice = "lower workers.count" if plan.sharing.node > 1 else "take a larger machine"
        faults.append(
            f"{workers} need {size(plan.host)} of memory, {size(plan.host_free)} are free; {advice}"
        )
    elif plan.from_disk:
        faults.append(
            f"the models' files ({size(plan.files)}) do not fit into the memory that is left "
            f"({size(max(0, plan.host_free - plan.host))}): {size(plan.from_disk)} are read from disk "
            "for every candidate; take a machine with more memory, or fewer experts"
        )
    return replace(plan, faults=tuple(faults))


def size(count: int) -> str:
    """Return a number of bytes for a person."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"

"""Task vectors on a GPU, and what is kept of them: thresholds and scales, found there for many at once.

Nothing waits for the GPU: what is found stays there, and kernels are told its address.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from evomerge.merge.masks import signed
from evomerge.merge.methods.method import Term
from evomerge.merge.methods.tensors import MIN_NORM
from evomerge.merge.resident import ResidentInputs

COUNTED = 8192
"""Numbers whose magnitudes a program of the GPU counts, or adds up."""
ADDED = 1024
"""Sums that a program adds up at once."""
ALL_DRAWN = 1 << 24
LEVELS = ((26, 5), (21, 5), (16, 5), (11, 5), (6, 5), (0, 6))
"""A magnitude's bits, the highest first: how many are below, and how many these are."""
BELOW_ZERO = -(1 << 31) + 1
"""Bits of the float32 number right below 0, as a whole number."""
EXACT = {"enable_fp_fusion": False}
Form = tuple[Any, ...]
"""What a kernel is compiled for."""


@dataclass(frozen=True)
class View:
    """An input, or the base, as a kernel reads it.

    Attributes:
        tensor: As it is stored.
        address: Of its first number.
        even: Address and size are multiples of 16: the GPU reads 16 bytes at a time.
    """

    tensor: torch.Tensor
    address: int
    even: bool

    @classmethod
    def of(cls, tensor: torch.Tensor) -> View:
        """Return what a kernel reads of a contiguous tensor."""
        address = tensor.data_ptr()
        return cls(tensor, address, address % 16 == 0 and tensor.numel() % 16 == 0)


class Vector:
    """A task vector, and what is kept of it.

    Attributes:
        limit: Record of the magnitudes above which entries are kept (`gpu_kernel`).
        top: Of those above which they are dropped.
        key: Of random numbers, as a signed number.
        cut: Of 2^24, what a random number lies below that keeps its entry.
        scale: Of what is kept; float32, no dimensions.
        form: What the kernels that read a task vector are compiled for.
    """

    def __init__(self, inputs: ResidentInputs, term: Term, own: View, base: View) -> None:
        self.inputs, self.term, self.own, self.base = inputs, term, own, base
        self.device, kept = own.tensor.device, term.kept
        self.limit, self.top = _limit(-1.0, self.device), _limit(math.inf, self.device)
        self.scale = _one(self.device)
        self.key, self.cut = 0, ALL_DRAWN
        if kept.density is not None:
            self.key = signed(inputs.mask_key(term.index))
            self.cut = math.ceil(float(np.float32(kept.density)) * ALL_DRAWN)
        elif kept.count == 0:
            self.limit = _limit(math.inf, self.device)
        self.form = (
            triton_type(own.tensor.dtype),
            triton_type(base.tensor.dtype),
            own.even and base.even,
        )

    @property
    def rules(self) -> tuple[bool, bool, bool]:
        """Whether there are limits, tops and random numbers."""
        everything, nothing = _limit(-1.0, self.device), _limit(math.inf, self.device)
        drawn = self.term.kept.density is not None
        return self.limit is not everything, self.top is not nothing, drawn

    @property
    def addresses(self) -> list[int]:
        """The first columns of a table of task vectors."""
        return [self.inputs.numel, 0, self.own.address, self.base.address]

    @property
    def kept(self) -> tuple[int, ...]:
        """The columns that say what is kept, and how it is scaled."""
        records = self.limit.data_ptr(), self.top.data_ptr()
        return (*records, self.key, self.cut, self.scale.data_ptr())


def find_limits(vectors: Sequence[Vector]) -> None:
    """Find the magnitudes above which entries are kept, and dropped, where they are not known."""
    missing = []
    for vector in vectors:
        kept = vector.term.kept
        if not kept.count or kept.count >= vector.inputs.numel:
            continue
        wanted = [("limit", kept.skipped + kept.count)]
        if kept.skipped:
            wanted.append(("top", kept.skipped))
        for name, count in wanted:
            known = vector.inputs.known(name, vector.term.index, count)
            if known is None:
                missing.append((vector, name, count))
            else:
                setattr(vector, name, known)
    for form, jobs in grouped(missing, lambda job: job[0].form):
        records = _selected([job[0] for job in jobs], [job[2] for job in jobs], form)
        for (vector, name, count), record in zip(jobs, records, strict=True):
            setattr(vector, name, vector.inputs.keep(name, vector.term.index, record, count))


def _selected(vectors: Sequence[Vector], counts: Sequence[int], form: Form) -> torch.Tensor:
    """Return limits that the `counts` largest entries pass, of equals the first: records, int64 `[n, 3]`."""
    kernel, device = kernels("gpu_count_kernel"), vectors[0].device
    table, owners = table_of([[*one.addresses, 0] for one in vectors], COUNTED, device)
    read, base_type, even = form
    how = {"width": 5, "read": read, "base_type": base_type, "even": even, "block": COUNTED} | EXACT
    everywhere, first = (len(owners),), table[:, 1]
    missing = _whole(counts, device)
    found = torch.zeros(len(vectors), dtype=torch.int32, device=device)
    for shift, bits in LEVELS:
        bins = torch.zeros(len(vectors), 1 << bits, dtype=torch.int32, device=device)
        kernel.count[everywhere](table, owners, found, bins, shift=shift, bits=bits, **how)
        larger = torch.nn.functional.pad(bins.flip(1).cumsum(1), (1, 0))
        at = (larger[:, 1:] < missing[:, None]).sum(1, keepdim=True)
        missing -= larger.gather(1, at)[:, 0]
        found = (found << bits) | ((1 << bits) - 1 - at[:, 0]).to(torch.int32)
    table[:, 4] = found
    equal = torch.empty(len(owners), dtype=torch.int32, device=device)
    kernel.equals[everywhere](table, owners, equal, **how)
    ends = torch.nn.functional.pad(equal.cumsum(0), (1, 0))
    wanted = ends[first] + missing
    block = torch.searchsorted(ends[1:], wanted)
    places = torch.empty(len(vectors), dtype=torch.int64, device=device)
    kernel.position[(len(vectors),)](table, block - first, wanted - ends[block], places, **how)
    below = torch.where(found > 0, found - 1, BELOW_ZERO)
    return torch.stack([places, below.long(), found.long()], 1)


def find_scales(vectors: Sequence[Vector]) -> None:
    """Find what gives kept entries the L1 norm of the whole task vector, where it is not known."""
    missing = []
    for vector in vectors:
        variant = vector.term.kept, vector.key
        known = vector.inputs.known("scale", vector.term.index, variant)
        if known is None:
            missing.append((vector, variant))
        else:
            vector.scale = known
    if not missing:
        return
    norms = {
        id(one): known
        for one, _ in missing
        if (known := one.inputs.known("norm", one.term.index, None)) is not None
    }
    unknown = [vector for vector, _ in missing if id(vector) not in norms]
    for vector, norm in _norms(unknown, of_kept=False):
        norms[id(vector)] = vector.inputs.keep("norm", vector.term.index, norm, None)
    rest = {id(vector): norm for vector, norm in _norms([one for one, _ in missing], of_kept=True)}
    whole, own = (torch.stack([each[id(one)] for one, _ in missing]) for each in (norms, rest))
    usable = (whole >= MIN_NORM) & (own >= MIN_NORM)
    scales = torch.where(usable, whole / own, 1.0).float()
    for (vector, variant), scale in zip(missing, scales, strict=True):
        vector.scale = vector.inputs.keep("scale", vector.term.index, scale, variant)


def _norms(vectors: Sequence[Vector], *, of_kept: bool) -> Iterable[tuple[Vector, torch.Tensor]]:
    """Yield the L1 norm of each task vector, or of what is kept of it; float64, no dimensions."""

    def form_of(vector: Vector) -> Form:
        read, base_type, even = vector.form
        return (read, base_type, *(vector.rules if of_kept else (False,) * 3), even)

    kernel = kernels("gpu_count_kernel")
    for form, some in grouped(vectors, form_of):
        device = some[0].device
        table, owners = table_of([[*one.addresses, *one.kept] for one in some], COUNTED, device)
        sums = torch.empty(len(owners), dtype=torch.float64, device=device)
        totals = torch.empty(len(some), dtype=torch.float64, device=device)
        kernel.magnitudes[(len(owners),)](table, owners, sums, 9, *form, COUNTED, **EXACT)
        ends = torch.nn.functional.pad(table[:, 1], (0, 1), value=len(owners))
        kernel.add_up[(len(some),)](sums, ends, totals, ADDED)
        yield from zip(some, totals, strict=True)


def table_of(
    rows: Sequence[Sequence[int]], block: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put rows on the device, with the number of each one's first block, and whose each block is."""
    table = np.array(rows, np.int64)
    blocks = -(-table[:, 0] // block)
    ends = list(accumulate(blocks.tolist()))
    table[1:, 1] = ends[:-1]
    numbers = torch.arange(len(rows), dtype=torch.int32, device=device)
    counts = _whole(blocks.tolist(), device)
    owners = torch.repeat_interleave(numbers, counts, output_size=ends[-1])
    return torch.from_numpy(table).to(device, non_blocking=True), owners


def grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> Iterable[tuple[Any, list[Any]]]:
    """Return items by what `key` says of them, in their order."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found.items()


@cache
def kernels(name: str) -> Any:  # noqa: ANN401 - a module that need not be there
    """Return a module of this room that needs Triton."""
    return import_module(f"evomerge.merge.{name}")


@cache
def triton_type(dtype: torch.dtype) -> Any:  # noqa: ANN401 - Triton's
    """Return Triton's name of a dtype."""
    return getattr(import_module("triton.language"), str(dtype).removeprefix("torch."))


@lru_cache(1 << 16)
def bits_of(number: float) -> int:
    """Return the bits of a number rounded to float32, as a whole number with a sign."""
    return int(np.float32(number).view(np.int32))


@cache
def _limit(magnitude: float, device: torch.device) -> torch.Tensor:
    """Return a limit that is the same for all entries."""
    return _whole([-1, bits_of(magnitude), bits_of(magnitude)], device)


@cache
def _one(device: torch.device) -> torch.Tensor:
    return torch.ones((), device=device)


def _whole(numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)

"""Merges that are sums, each in one pass over a GPU's memory, many tensors a launch: with Triton.

To the bit what the method's own maths gives, without task vectors or masks in memory. The host never waits
for the GPU: thresholds and norms are found there, and read there.
"""

from __future__ import annotations

import math
import os
import shutil
import sysconfig
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evomerge.merge.masks import signed
from evomerge.merge.methods.method import Sum, Term
from evomerge.merge.methods.tensors import MIN_NORM
from evomerge.merge.resident import ResidentInputs

BLOCK, REPEATS = 1024, 4
"""Numbers that a program of the GPU merges at once, and how often: what it reads first counts less."""
COUNTED = 8192
"""Numbers whose magnitudes a program counts, or adds up."""
GATHERED = 1 << 28
"""Numbers that are gathered before they are launched: the GPU begins while more are gathered."""
ALL_DRAWN = 1 << 24
LEVELS = ((26, 5), (21, 5), (16, 5), (11, 5), (6, 5), (0, 6))
"""A magnitude's bits, the highest first: how many are below, and how many these are."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
BELOW_ZERO = -(1 << 31) + 1
"""Bits of the float32 number right below 0, as a whole number."""
EXACT = {"enable_fp_fusion": False}
NOT_READ = (0,) * 5
"""Columns of a term of which everything is kept."""
Form = tuple[Any, ...]
"""What a kernel is compiled for."""


@cache
def available() -> bool:
    """Tell whether Triton is installed, 3.6 at least, with a C compiler and Python's headers, which it needs.

    Earlier ones round tiny quotients to 0.
    """
    if find_spec("triton") is None:
        return False
    version = [int(part) for part in import_module("triton").__version__.split(".")[:2]]
    has_compiler = "CC" in os.environ or any(map(shutil.which, ("clang", "gcc")))
    headers = Path(sysconfig.get_config_var("INCLUDEPY"), "Python.h")
    return version >= [3, 6] and has_compiler and headers.exists()


@dataclass(frozen=True)
class _View:
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
    def of(cls, tensor: torch.Tensor) -> _View:
        address = tensor.data_ptr()
        return cls(tensor, address, address % 16 == 0 and tensor.numel() % 16 == 0)


class Launches:
    """Merges of tensors that are gathered, and done together.

    A tensor whose inputs are not kept on the device is merged at once, so that no two of them are there.
    """

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._size = 0

    def add(
        self, inputs: ResidentInputs, total: Sum, out: torch.Tensor, dtype: torch.dtype
    ) -> bool:
        """Merge one tensor, at the latest with `finish`; arguments and result as of `fused.write`."""
        if not (out.dtype in DTYPES and dtype in DTYPES and out.is_contiguous()):
            return False
        indices = [term.index for term in total.terms]
        if total.base is not None:
            indices.append(total.base)
        views = _views(inputs, indices)
        if views is None:
            return False
        self._pieces.append(_Piece(inputs, total, out, dtype, views))
        self._size += inputs.numel
        if self._size >= GATHERED or any(inputs.views[index] is None for index in indices):
            self.finish()
        return True

    def finish(self) -> None:
        """Launch what is gathered."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        for device, some in _grouped(pieces, lambda piece: piece.out.device):
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                _merge(some, device)


def _views(inputs: ResidentInputs, indices: Sequence[int]) -> list[_View] | None:
    """Return inputs of one dtype, and the base where it is the last; None: the kernels cannot read one."""
    if not inputs.views:
        inputs.views.extend([None] * len(inputs.models))
    found = []
    for index in indices:
        view = inputs.views[index]
        if view is None:
            if not inputs.stays(index):
                return None
            stored = inputs.stored(index)
            if stored.dtype not in DTYPES:
                return None
            view = _View.of(stored.contiguous())
            if inputs.is_kept(index) and view.tensor is stored:
                inputs.views[index] = view
        found.append(view)
    return found


class _Piece:
    """One tensor to be merged.

    Attributes:
        views: Of the terms, in their order.
        base: What task vectors are relative to, if there is any.
        vectors: The terms as task vectors, if entries of them are dropped.
    """

    def __init__(
        self,
        inputs: ResidentInputs,
        total: Sum,
        out: torch.Tensor,
        dtype: torch.dtype,
        views: Sequence[_View],
    ) -> None:
        self.total, self.out, self.dtype = total, out, dtype
        terms = total.terms
        self.views, self.base = views[: len(terms)], None if total.base is None else views[-1]
        if len({view.tensor.dtype for view in self.views}) > 1:
            self.views = [_View.of(view.tensor.float()) for view in self.views]
        self.vectors: list[_Vector] = []
        if total.drops:
            assert self.base is not None  # what drops entries has task vectors
            self.vectors = [
                _Vector(inputs, term, own, self.base)
                for term, own in zip(terms, self.views, strict=True)
            ]
        self.scales = any(vector.term.kept.rescale for vector in self.vectors)

    @property
    def form(self) -> Form:
        """What `gpu_kernel.merge` is compiled for."""
        total, base = self.total, self.base
        rules: Iterable[bool] = (False,) * 3
        if self.vectors:
            rules = map(any, zip(*(vector.rules for vector in self.vectors), strict=True))
        even = _View.of(self.out).even and (base is None or base.even)
        return (
            len(self.views),
            _type(self.views[0].tensor.dtype),
            None if base is None else _type(base.tensor.dtype),
            _type(self.out.dtype),
            _type(self.dtype),
            *rules,
            self.scales,
            total.elect,
            total.divisor is None,
            total.divisor not in (None, 1),
            total.factor != 1,
            even and all(view.even for view in self.views),
        )

    @property
    def row(self) -> list[int]:
        """The row of its table."""
        total, base = self.total, 0 if self.base is None else self.base.address
        divisor = 1.0 if total.divisor is None else total.divisor
        row = [self.out.numel(), 0, self.out.data_ptr(), base, _bits(divisor), _bits(total.factor)]
        kept = [vector.kept for vector in self.vectors] or [NOT_READ] * len(self.views)
        for view, term, rule in zip(self.views, total.terms, kept, strict=True):
            row += (view.address, _bits(term.weight), *rule)
        return row


class _Vector:
    """A task vector, and what is kept of it.

    Attributes:
        limit: Record of the magnitudes above which entries are kept (`gpu_kernel`).
        top: Of those above which they are dropped.
        key: Of random numbers, as a signed number.
        cut: Of 2^24, what a random number lies below that keeps its entry.
        scale: Of what is kept; float32, no dimensions.
        form: What the kernels that read a task vector are compiled for.
    """

    def __init__(self, inputs: ResidentInputs, term: Term, own: _View, base: _View) -> None:
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
        self.form = _type(own.tensor.dtype), _type(base.tensor.dtype), own.even and base.even

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


def _merge(pieces: Sequence[_Piece], device: torch.device) -> None:
    vectors = [vector for piece in pieces for vector in piece.vectors]
    _find_limits(vectors)
    _find_scales([vector for vector in vectors if vector.term.kept.rescale])
    for form, some in _grouped(pieces, lambda piece: piece.form):
        table, owners = _table([piece.row for piece in some], BLOCK * REPEATS, device)
        how = *form, BLOCK, REPEATS
        _kernel().merge[(len(owners),)](table, owners, table.shape[1], *how, **EXACT)


def _find_limits(vectors: Sequence[_Vector]) -> None:
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
    for form, jobs in _grouped(missing, lambda job: job[0].form):
        records = _selected([job[0] for job in jobs], [job[2] for job in jobs], form)
        for (vector, name, count), record in zip(jobs, records, strict=True):
            setattr(vector, name, vector.inputs.keep(name, vector.term.index, record, count))


def _selected(vectors: Sequence[_Vector], counts: Sequence[int], form: Form) -> torch.Tensor:
    """Return limits that the `counts` largest entries pass, of equals the first: records, int64 `[n, 3]`."""
    kernel, device = _kernel(), vectors[0].device
    table, owners = _table([[*one.addresses, 0] for one in vectors], COUNTED, device)
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


def _find_scales(vectors: Sequence[_Vector]) -> None:
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


def _norms(vectors: Sequence[_Vector], *, of_kept: bool) -> Iterable[tuple[_Vector, torch.Tensor]]:
    """Yield the L1 norm of each task vector, or of what is kept of it; float64, no dimensions."""

    def form_of(vector: _Vector) -> Form:
        read, base_type, even = vector.form
        return (read, base_type, *(vector.rules if of_kept else (False,) * 3), even)

    kernel = _kernel()
    for form, some in _grouped(vectors, form_of):
        device = some[0].device
        table, owners = _table([[*one.addresses, *one.kept] for one in some], COUNTED, device)
        sums = torch.empty(len(owners), dtype=torch.float64, device=device)
        totals = torch.empty(len(some), dtype=torch.float64, device=device)
        kernel.magnitudes[(len(owners),)](table, owners, sums, 9, *form, COUNTED, **EXACT)
        ends = torch.nn.functional.pad(table[:, 1], (0, 1), value=len(owners))
        kernel.add_up[(len(some),)](sums, ends, totals, BLOCK)
        yield from zip(some, totals, strict=True)


def _table(
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


def _grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> Iterable[tuple[Any, list[Any]]]:
    found: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found.items()


@cache
def _kernel() -> Any:  # noqa: ANN401 - a module that need not be there
    return import_module("evomerge.merge.gpu_kernel")


@cache
def _type(dtype: torch.dtype) -> Any:  # noqa: ANN401 - Triton's
    return getattr(import_module("triton.language"), str(dtype).removeprefix("torch."))


@lru_cache(1 << 16)
def _bits(number: float) -> int:
    return int(np.float32(number).view(np.int32))


@cache
def _limit(magnitude: float, device: torch.device) -> torch.Tensor:
    """Return a limit that is the same for all entries."""
    return _whole([-1, _bits(magnitude), _bits(magnitude)], device)


@cache
def _one(device: torch.device) -> torch.Tensor:
    return torch.ones((), device=device)


def _whole(numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)

"""Merges that are sums, each in one pass over a GPU's memory, many tensors a launch: with Triton.

To the bit what the method's own maths gives, without task vectors or masks in memory. The host never waits
for the GPU: thresholds and norms are found there, and read there.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from evomerge.merge.gpu_vectors import (
    EXACT,
    Form,
    Vector,
    View,
    bits_of,
    find_limits,
    find_scales,
    grouped,
    kernels,
    table_of,
    triton_type,
)
from evomerge.merge.methods.method import Sum
from evomerge.merge.resident import ResidentInputs

BLOCK, REPEATS = 1024, 4
"""Numbers that a program of the GPU merges at once, and how often: what it reads first counts less."""
GATHERED = 1 << 28
"""Numbers that are gathered before they are launched: the GPU begins while more are gathered."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
NOT_READ = (0,) * 5
"""Columns of a term of which everything is kept."""


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


class Launches:
    """Merges of tensors that are gathered, and done together.

    A tensor whose inputs are not kept on the device as they are read is merged at once, so that no two of
    them are there.
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
        if any(term.kept.by_rank is not None for term in total.terms):
            return False
        indices = [term.index for term in total.terms]
        if total.base is not None:
            indices.append(total.base)
        views = _views(inputs, indices)
        if views is None:
            return False
        piece = _Piece(inputs, total, out, dtype, views)
        self._pieces.append(piece)
        self._size += inputs.numel
        copied = piece.converts or any(inputs.views[index] is None for index in indices)
        if copied or self._size >= GATHERED:
            self.finish()
        return True

    def finish(self) -> None:
        """Launch what is gathered."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        for device, some in grouped(pieces, lambda piece: piece.out.device):
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                _merge(some, device)


def _views(inputs: ResidentInputs, indices: Sequence[int]) -> list[View] | None:
    """Return inputs as the kernels read them; None: they cannot read one."""
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
            view = View.of(stored.contiguous())
            if inputs.is_kept(index) and view.tensor is stored:
                inputs.views[index] = view
        found.append(view)
    return found


class _Piece:
    """One tensor to be merged.

    Attributes:
        views: Of the terms, in their order.
        converts: These are float32 copies, since the inputs have several dtypes.
        base: What task vectors are relative to, if there is any.
        vectors: The terms as task vectors, if entries of them are dropped.
    """

    def __init__(
        self,
        inputs: ResidentInputs,
        total: Sum,
        out: torch.Tensor,
        dtype: torch.dtype,
        views: Sequence[View],
    ) -> None:
        self.total, self.out, self.dtype = total, out, dtype
        terms = total.terms
        self.views, self.base = views[: len(terms)], None if total.base is None else views[-1]
        self.converts = len({view.tensor.dtype for view in self.views}) > 1
        if self.converts:
            self.views = [View.of(view.tensor.float()) for view in self.views]
        self.vectors: list[Vector] = []
        if total.drops:
            assert self.base is not None  # what drops entries has task vectors
            self.vectors = [
                Vector(inputs, term, own, self.base)
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
        even = View.of(self.out).even and (base is None or base.even)
        return (
            len(self.views),
            triton_type(self.views[0].tensor.dtype),
            None if base is None else triton_type(base.tensor.dtype),
            triton_type(self.out.dtype),
            triton_type(self.dtype),
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
        row = [
            self.out.numel(),
            0,
            self.out.data_ptr(),
            base,
            bits_of(divisor),
            bits_of(total.factor),
        ]
        kept = [vector.kept for vector in self.vectors] or [NOT_READ] * len(self.views)
        for view, term, rule in zip(self.views, total.terms, kept, strict=True):
            row += (view.address, bits_of(term.weight), *rule)
        return row


def _merge(pieces: Sequence[_Piece], device: torch.device) -> None:
    vectors = [vector for piece in pieces for vector in piece.vectors]
    find_limits(vectors)
    find_scales([vector for vector in vectors if vector.term.kept.rescale])
    for form, some in grouped(pieces, lambda piece: piece.form):
        table, owners = table_of([piece.row for piece in some], BLOCK * REPEATS, device)
        how = *form, BLOCK, REPEATS
        kernels("gpu_kernel").merge[(len(owners),)](table, owners, table.shape[1], *how, **EXACT)

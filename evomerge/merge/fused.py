"""A merge that is a sum, written in one pass over the memory: with numba on a CPU, with Triton on a GPU.

To the bit what the method's own maths gives, without task vectors or masks in memory. What a GPU does is in
`fused_gpu`; all else here is of a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch

from evomerge.merge import fused_gpu
from evomerge.merge.methods.method import Sum, Term
from evomerge.merge.resident import ResidentInputs

FEWEST = 1 << 20
"""Numbers of a model from which on it pays; the eager maths takes what is smaller, and compiles nothing."""
ALONE = 1 << 20
"""Numbers of a tensor that are left to one thread."""
MOST = 8
"""Inputs; the machine code grows with their number."""
ZERO, ONE, INFINITY = np.float32(0), np.float32(1), np.float32(np.inf)
ALL = -1, np.float32(-1), np.float32(-1)
NOTHING = -1, INFINITY, INFINITY
ALL_DRAWN = 1 << 24
_STORED = {torch.bfloat16: torch.uint16, torch.float16: torch.int16, torch.float32: torch.float32}
_WRITTEN = {
    (torch.bfloat16, torch.bfloat16): torch.uint16,
    (torch.float32, torch.bfloat16): torch.uint16,
    (torch.float32, torch.float32): torch.float32,
    (torch.bfloat16, torch.float32): torch.int32,
}
Array = np.ndarray[Any, Any]


@cache
def available() -> bool:
    """Tell whether numba is installed."""
    return find_spec("numba") is not None


def pays(device: torch.device, sizes: Iterable[int]) -> bool:
    """Tell whether a model's tensors are large enough in all, and what compiles the loop is installed."""
    enough = any(size >= FEWEST for size in accumulate(sizes))
    installed = {"cpu": available, "cuda": fused_gpu.available}.get(device.type)
    return enough and installed is not None and installed()


def write(
    inputs: ResidentInputs,
    total: Sum,
    out: torch.Tensor,
    dtype: torch.dtype,
    launches: fused_gpu.Launches | None = None,
) -> bool:
    """Merge one tensor.

    Args:
        inputs: What it is made of.
        total: How.
        out: Where to.
        dtype: What the result is rounded to before it is written.
        launches: Of a GPU: it may be merged as late as these are finished; None: it is merged now.

    Returns:
        Whether that is possible here; otherwise nothing was written.
    """
    if len(total.terms) > MOST or inputs.dtype != torch.float32 or _is_low_rank(inputs, total):
        return False
    if _is_gpu(out.device):
        gathered = launches or fused_gpu.Launches()
        added = gathered.add(inputs, total, out, dtype)
        if launches is None:
            gathered.finish()
        return added
    if out.device.type != "cpu":
        return False
    arrays = _views(inputs, [term.index for term in total.terms])
    base = () if total.base is None else _views(inputs, [total.base])
    if arrays is None or base is None:
        return False
    how = inputs, total, arrays, base[0] if base else None
    form = _WRITTEN.get((dtype, out.dtype)) if out.is_contiguous() else None
    if form is not None:
        _merge(*how, _flat(out, form))
    else:
        made = torch.empty(out.shape, dtype=torch.float32)
        _merge(*how, _flat(made, torch.float32))
        out.copy_(made.to(dtype))
    return True


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _is_low_rank(inputs: ResidentInputs, total: Sum) -> bool:
    """Tell whether the method sums factors, without forming what they make."""
    plain = not total.drops and not total.elect
    return plain and all(inputs.low_rank(term.index) is not None for term in total.terms)


def _merge(
    inputs: ResidentInputs, total: Sum, arrays: tuple[Array, ...], base: Array | None, target: Array
) -> None:
    kernel = _kernel()
    weights = tuple([np.float32(term.weight) for term in total.terms])
    rules = [_Rule(inputs, term) for term in total.terms] if total.drops else []
    scales = None
    if total.drops and any(term.kept.rescale for term in total.terms):
        scales = tuple(map(partial(_scale, inputs, base), total.terms, rules, arrays))
    divisor = None if total.divisor in (None, 1) else np.float32(total.divisor)
    factor = None if total.factor == 1 else np.float32(total.factor)
    how = scales, total.elect or None, total.divisor is None or None, divisor, factor

    def work(start: int, stop: int) -> None:
        for part, bounds, tops in _parts(rules, start, stop):
            drawn = _drawn(rules, kernel.BLOCK)
            kernel.merge(arrays, base, target, *part, weights, bounds, tops, *drawn, *how)

    _in_parts(inputs.numel, kernel.PIECE, work)


@cache
def _kernel() -> Any:  # noqa: ANN401 - a module that need not be there
    return import_module("evomerge.merge.kernel")


Limit = tuple[int, np.float32, np.float32]
"""A position, the magnitude above which entries up to there pass, and the one for those behind it."""


class _Rule:
    """What is kept of a task vector, as the machine code takes it.

    Attributes:
        bound: Above which entries are kept.
        top: Above which entries are dropped; None: none are.
        key: Of random numbers; None: none are drawn.
        cut: Of 2^24, what a random number lies below that keeps its entry.
        ranks: Of all entries; None: they do not count.
        lowest: The same as a number, where ranks count: of rank 0.
        step: How much it rises with each rank.
    """

    def __init__(self, inputs: ResidentInputs, term: Term) -> None:
        kept, index = term.kept, term.index
        self.bound = ALL
        self.top: Limit | None = None
        self.key: int | None = None
        self.cut = ALL_DRAWN
        self.ranks: Array | None = None
        self.lowest, self.step = ONE, ZERO
        if kept.by_rank is not None and not inputs.is_base(index):
            self.key = inputs.mask_key(index)
            self.ranks = inputs.ranks(index).numpy().reshape(-1)
            self.lowest, self.step = map(np.float32, kept.by_rank)
        elif kept.density is not None:
            self.key = inputs.mask_key(index)
            self.cut = math.ceil(float(np.float32(kept.density)) * ALL_DRAWN)
        elif kept.count is not None and kept.count < inputs.numel:
            self.bound = NOTHING
            if kept.count:
                self.bound = _limit(inputs, index, kept.skipped + kept.count)
            if kept.skipped:
                self.top = _limit(inputs, index, kept.skipped, slot=1)

    def below(self, ranks: Array | None) -> Any:  # noqa: ANN401 - what numba takes
        """Return what random numbers lie below, with ranks where they count for one input at least."""
        if ranks is None:
            return np.uint32(self.cut)
        return ranks if self.ranks is None else self.ranks, self.lowest, self.step


def _limit(inputs: ResidentInputs, index: int, count: int, slot: int = 0) -> Limit:
    """Return it of the last of the `count` largest entries: of its equals the first ones pass."""
    assert inputs.base is not None
    own, base = inputs.views[index], inputs.views[inputs.base]
    assert own is not None  # `write` found them
    assert base is not None

    def find(start: int, stop: int, bits: int, number: int) -> int:
        part = own[start:stop], base[start:stop]
        return start + int(_kernel().position(*part, np.int64(bits), number))

    select = partial(selected, own, base, count)
    last, low, high = inputs.limit(index, count, select, find, slot)
    return int(last), np.float32(low), np.float32(high)


def selected(own: Array, base: Array, count: int) -> tuple[float, int]:
    """Return what `masks.ranked` returns, by counting magnitudes: by the upper half of their bits, the lower.

    Args:
        own: An input, `[n]`.
        base: What its task vector is relative to.
        count: 1 to n.
    """
    bits, missing = 0, count
    for coarse in (True, False):
        counts = np.zeros(1 << 16, np.int64)
        _kernel().count(own, base, np.int64(-1 if coarse else bits), counts)
        ends = counts[::-1].cumsum()
        at = int(np.searchsorted(ends, missing))
        missing -= int(ends[at] - counts[::-1][at])
        bits = bits << 16 | (len(counts) - 1 - at)
    last = _kernel().position(own, base, np.int64(bits), missing)
    return float(np.uint32(bits).view(np.float32)), int(last)


def _parts(
    rules: Sequence[_Rule], start: int, stop: int
) -> list[tuple[tuple[int, int], tuple[Any, ...] | None, tuple[Any, ...] | None]]:
    """Cut numbers where a threshold changes.

    Args:
        rules: One an input; none: all entries are kept.
        start: First number.
        stop: Behind the last.

    Returns:
        Start and stop, and of each input the magnitudes above which entries are kept, and dropped; None: all
        are kept, none are dropped.
    """
    bounds = [rule.bound for rule in rules]
    tops = [rule.top or NOTHING for rule in rules]
    dropped = any(rule.top is not None for rule in rules)
    if not dropped and all(bound is ALL for bound in bounds):
        return [((start, stop), None, None)]
    cuts = {last + 1 for last, _, _ in bounds + tops if start <= last < stop - 1}
    return [
        ((at, end), _above(bounds, at), _above(tops, at) if dropped else None)
        for at, end in pairwise(sorted({start, stop, *cuts}))
    ]


def _above(limits: Sequence[Limit], at: int) -> tuple[np.float32, ...]:
    return tuple([low if at <= last else high for last, low, high in limits])


def _drawn(rules: Sequence[_Rule], block: int) -> tuple[tuple[Any, ...] | None, ...]:
    """Return keys, room for random numbers, the same as halves, and cuts; all None where none are drawn."""
    if all(rule.key is None for rule in rules):
        return None, None, None, None
    drawn = tuple(np.empty(block // 2, np.uint64) for _ in rules)
    ranks = next((rule.ranks for rule in rules if rule.ranks is not None), None)
    return (
        tuple(np.uint64(rule.key or 0) for rule in rules),
        drawn,
        tuple(each.view(np.uint32) for each in drawn),
        tuple(rule.below(ranks) for rule in rules),
    )


def _scale(
    inputs: ResidentInputs, base: Array | None, term: Term, rule: _Rule, array: Array
) -> np.float32:
    """Return what gives a task vector the L1 norm back that it had (`methods.tensors.rescaled`)."""
    if not term.kept.rescale:
        return ONE
    whole, own = (partial(_norm, array, base, rules) for rules in ([], [rule]))
    return np.float32(inputs.scale(term.index, (term.kept, rule.key), whole, own))


def _norm(array: Array, base: Array | None, rules: Sequence[_Rule]) -> float:
    kernel = _kernel()
    sums = np.zeros(-(-len(array) // kernel.PIECE))

    def work(start: int, stop: int) -> None:
        for part, bounds, tops in _parts(rules, start, stop):
            drawn = _drawn(rules, kernel.BLOCK)
            kernel.magnitudes((array,), base, *part, bounds, tops, *drawn, sums)

    _in_parts(len(array), kernel.PIECE, work)
    return math.fsum(sums)


def _views(inputs: ResidentInputs, indices: Sequence[int]) -> tuple[Array, ...] | None:
    """Return inputs as arrays of one type; None: the machine code cannot read one of them."""
    if not inputs.views:
        inputs.views.extend(_view(inputs, index) for index in range(len(inputs.models)))
    found = tuple(view for index in indices if (view := inputs.views[index]) is not None)
    if len(found) < len(indices):
        return None
    if len({view.dtype for view in found}) > 1:
        return tuple(_flat(inputs.stored(index).float(), torch.float32) for index in indices)
    return found


def _view(inputs: ResidentInputs, index: int) -> Array | None:
    """Return an input as an array, by whose type the machine code tells its dtype; None: it knows it not."""
    if not inputs.stays(index):
        return None
    stored = inputs.stored(index)
    form = _STORED.get(stored.dtype)
    return None if form is None else _flat(stored, form)


def _flat(tensor: torch.Tensor, dtype: torch.dtype) -> Array:
    return tensor.contiguous().view(dtype).numpy().reshape(-1)


def _in_parts(numel: int, piece: int, work: Callable[[int, int], None]) -> None:
    """Share numbers out among as many threads as torch uses."""
    threads = torch.get_num_threads()
    if threads == 1 or numel <= ALONE:
        work(0, numel)
        return
    size = -(-numel // (threads * piece)) * piece
    starts = range(0, numel, size)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, starts, (min(start + size, numel) for start in starts)))

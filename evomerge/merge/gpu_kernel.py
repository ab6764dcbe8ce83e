"""Sums of models and task vectors on a GPU: one pass over the memory, many tensors a launch.

Needs Triton, which comes with PyTorch for GPUs. Every step is that of the eager maths (`methods.tensors`):
float32, in the same order, each operation rounded by itself; nothing is contracted (`enable_fp_fusion=False`
at each launch), so the results are equal to the bit.

What a launch works on is a table on the device, int64, a row a tensor, or a task vector
(`gpu_count_kernel`), in which addresses, whole numbers and the bits of float32 numbers stand. Each is cut
into blocks, one a program; `owners` says whose each is. A row begins with how many numbers there are,
which block is the first, and two addresses: of the merged tensor, or of the input; of the base. Here
there follow divisor and factor and, for each term, the address of the input, its weight, what is kept of
it, and the address of its scale. What is kept are the addresses of two limits, and key and cut of random
numbers as in `merge.kernel`.

A limit of magnitudes is a record of three numbers, int64: a position, and the bits of the magnitude that
entries up to there must exceed, and of that for those behind it.
"""

from __future__ import annotations

import triton
import triton.language as tl

GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
MIX1 = tl.constexpr(0xBF58476D1CE4E5B9)
MIX2 = tl.constexpr(0x94D049BB133111EB)


@triton.jit
def merge(
    table,
    owners,
    width: tl.constexpr,
    terms: tl.constexpr,
    read: tl.constexpr,
    base_type: tl.constexpr,
    out_type: tl.constexpr,
    rounded: tl.constexpr,
    bounds: tl.constexpr,
    tops: tl.constexpr,
    draws: tl.constexpr,
    scales: tl.constexpr,
    elect: tl.constexpr,
    by_agreeing: tl.constexpr,
    divides: tl.constexpr,
    multiplies: tl.constexpr,
    even: tl.constexpr,
    block: tl.constexpr,
    repeats: tl.constexpr,
):
    """Merge `repeats` blocks of one tensor.

    Args:
        table: `[tensors, width]`.
        owners: Row of each block, int32.
        width: Columns.
        terms: Inputs.
        read: Dtype of the inputs.
        base_type: Of the base; None: there is none.
        out_type: Of the merged tensor.
        rounded: What numbers are rounded to before they are stored.
        bounds: Whether entries below a limit become 0.
        tops: Whether those above one do.
        draws: Whether entries are drawn.
        scales: Whether what is kept is scaled.
        elect: Whether only what agrees with the elected sign is summed.
        by_agreeing: Whether the sum is divided by the agreeing weights.
        divides: Whether it is divided by a number.
        multiplies: Whether it is multiplied by one.
        even: All addresses and sizes are multiples of 16.
        block: Numbers that are merged at once.
        repeats: How often; what `owners` says is of so many of them.
    """
    row, first = block_of(table, owners, width, block * repeats)
    size = tl.load(row)
    out = tl.load(row + 2)
    base = tl.load(row + 3)
    divisor = _float(row + 4)
    factor = _float(row + 5)
    sources = ()
    weights = ()
    rules = ()
    factors = ()
    for i in tl.static_range(terms):
        term = row + (6 + 7 * i)
        sources = sources + (tl.load(term),)
        weights = weights + (_float(term + 1),)
        rules = rules + (load_rule(term + 2, bounds, tops, draws),)
        factors = factors + (tl.load(_pointer(tl.load(term + 6), tl.float32)) if scales else 1.0,)
    for step in range(repeats):
        start = first + step * block
        inside = is_inside(size, start, block, even)
        near = tl.zeros([block], tl.float32)
        if base_type is not None:
            near = load_numbers(base, start, inside, base_type, even, block)
        parts = ()
        for i in tl.static_range(terms):
            number = load_numbers(sources[i], start, inside, read, even, block)
            if base_type is not None:
                number = number - near
            number = keep(number, rules[i], start, bounds, tops, draws, block)
            if scales:
                number = number * factors[i]
            parts = parts + (number * weights[i],)
        total = parts[0]
        for i in tl.static_range(1, terms):
            total = total + parts[i]
        if elect:
            sign = tl.where(total >= 0.0, 1.0, -1.0)
            total = tl.zeros([block], tl.float32)
            agreeing = tl.zeros([block], tl.float32)
            for i in tl.static_range(terms):
                along = sign * parts[i]
                total = total + tl.where(along > 0.0, along, 0.0)
                agreeing = agreeing + tl.where(along > 0.0, weights[i], 0.0)
            total = total * sign
            if by_agreeing:
                total = tl.div_rn(total, tl.where(agreeing != 0.0, agreeing, 1.0))
        if divides:
            total = tl.div_rn(total, tl.zeros([block], tl.float32) + divisor)
        if multiplies:
            total = total * factor
        if base_type is not None:
            total = total + near
        _write(out, start, inside, _round(total, rounded), out_type, even, block)


@triton.jit
def block_of(table, owners, width: tl.constexpr, block: tl.constexpr):
    """Return the row of what this program works on, and its first number."""
    program = tl.program_id(0)
    row = table + tl.load(owners + program).to(tl.int64) * width
    return row, (program - tl.load(row + 1)) * block


@triton.jit
def is_inside(size, start, block: tl.constexpr, even: tl.constexpr):
    """Tell which of the numbers from `start` on there are."""
    left = tl.maximum(tl.minimum(size - start, block), 0).to(tl.int32)
    if even:
        left = tl.multiple_of(left, 16)
    return tl.arange(0, block) < left


@triton.jit
def load_numbers(
    address, start, inside, stored: tl.constexpr, even: tl.constexpr, block: tl.constexpr
):
    """Return numbers at an address, as float32."""
    source = _pointer(address, stored) + start + tl.arange(0, block)
    if even:
        source = tl.multiple_of(source, 16)
    return tl.load(source, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _write(
    address, start, inside, numbers, stored: tl.constexpr, even: tl.constexpr, block: tl.constexpr
):
    if stored == tl.bfloat16:
        target = _pointer(address, tl.uint16) + start + tl.arange(0, block)
        found = (_bfloat16(numbers) >> 16).to(tl.uint16)
    else:
        target = _pointer(address, stored) + start + tl.arange(0, block)
        found = numbers.to(stored)
    if even:
        target = tl.multiple_of(target, 16)
    tl.store(target, found, mask=inside)


@triton.jit
def _pointer(address, kind: tl.constexpr):
    return address.to(tl.pointer_type(kind))


@triton.jit
def _round(numbers, to: tl.constexpr):
    """Round float32 numbers to those that a dtype has."""
    if to == tl.bfloat16:
        numbers = _bfloat16(numbers).to(tl.float32, bitcast=True)
    if to == tl.float16:
        numbers = numbers.to(tl.float16).to(tl.float32)
    return numbers


@triton.jit
def _bfloat16(numbers):
    """Round to nearest even; return the bits of a float32, uint32. NaN is 0x7FC0, as PyTorch has it."""
    bits = numbers.to(tl.uint32, bitcast=True)
    found = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, 0x7FC00000, found).to(tl.uint32)


@triton.jit
def _float(cell):
    """Return a float32 number whose bits stand in the table."""
    return tl.load(cell).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def load_rule(cell, bounds: tl.constexpr, tops: tl.constexpr, draws: tl.constexpr):
    """Return what is kept: two limits, each with a position, and the key and cut of random numbers."""
    limit = (tl.full([], 0, tl.int64), 0.0, 0.0)
    top = (tl.full([], 0, tl.int64), 0.0, 0.0)
    key = tl.full([], 0, tl.uint64)
    cut = tl.full([], 0, tl.uint32)
    if bounds:
        limit = _limit(cell)
    if tops:
        top = _limit(cell + 1)
    if draws:
        key = tl.load(cell + 2).to(tl.uint64, bitcast=True)
        cut = tl.load(cell + 3).to(tl.uint32)
    return limit, top, key, cut


@triton.jit
def _limit(cell):
    record = _pointer(tl.load(cell), tl.int64)
    return tl.load(record), _float(record + 1), _float(record + 2)


@triton.jit
def keep(
    number,
    rule,
    start,
    bounds: tl.constexpr,
    tops: tl.constexpr,
    draws: tl.constexpr,
    block: tl.constexpr,
):
    """Return entries of a task vector, 0 for those that are dropped."""
    limit, top, key, cut = rule
    if bounds:
        number = tl.where(_is_above(number, limit, start, block), number, 0.0)
    if tops:
        number = tl.where(_is_above(number, top, start, block), 0.0, number)
    if draws:
        number = number * tl.where((_drawn(key, start, block) >> 8) < cut, 1.0, 0.0)
    return number


@triton.jit
def _is_above(number, limit, start, block: tl.constexpr):
    last, low, high = limit
    until = tl.minimum(tl.maximum(last - start, -1), block).to(tl.int32)
    return tl.abs(number) > tl.where(tl.arange(0, block) <= until, low, high)


@triton.jit
def _drawn(key, start, block: tl.constexpr):
    """Return the random numbers of `masks.uniform` before they are shifted: uint32, two of one hash."""
    pair = start // 2 + 1 + tl.arange(0, block // 2)
    state = key + pair.to(tl.uint64) * GOLDEN
    state = (state ^ (state >> 30)) * MIX1
    state = (state ^ (state >> 27)) * MIX2
    state = state ^ (state >> 31)
    return tl.interleave((state & 0xFFFFFFFF).to(tl.uint32), (state >> 32).to(tl.uint32))

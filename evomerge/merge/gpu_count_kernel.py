"""What is counted and added up over task vectors on a GPU, many a launch: magnitudes, positions, L1 norms.

Tables are those of `gpu_kernel`; behind its addresses a row has what is kept (`magnitudes`), or the bits
of the magnitude that is looked for.
"""

from __future__ import annotations

import triton
import triton.language as tl

from evomerge.merge.gpu_kernel import block_of, is_inside, keep, load_numbers, load_rule


@triton.jit
def magnitudes(
    table,
    owners,
    sums,
    width: tl.constexpr,
    read: tl.constexpr,
    base_type: tl.constexpr,
    bounds: tl.constexpr,
    tops: tl.constexpr,
    draws: tl.constexpr,
    even: tl.constexpr,
    block: tl.constexpr,
):
    """Add up the magnitudes of what is kept of one block of a task vector, float64, into `sums[block]`."""
    row, start = block_of(table, owners, width, block)
    number = _difference(row, start, read, base_type, even, block)
    number = keep(
        number, load_rule(row + 4, bounds, tops, draws), start, bounds, tops, draws, block
    )
    tl.store(sums + tl.program_id(0), tl.sum(tl.abs(number).to(tl.float64), 0))


@triton.jit
def add_up(sums, ends, totals, block: tl.constexpr):
    """Add up what the blocks of a task vector gave, in their order, into `totals[row]`; `ends`: cumulated."""
    row = tl.program_id(0)
    at = tl.load(ends + row)
    stop = tl.load(ends + row + 1)
    total = tl.zeros([block], tl.float64)
    while at < stop:
        places = at + tl.arange(0, block)
        total += tl.load(sums + places, mask=places < stop, other=0.0)
        at += block
    tl.store(totals + row, tl.sum(total, 0))


@triton.jit
def count(
    table,
    owners,
    found,
    counts,
    width: tl.constexpr,
    read: tl.constexpr,
    base_type: tl.constexpr,
    shift: tl.constexpr,
    bits: tl.constexpr,
    even: tl.constexpr,
    block: tl.constexpr,
):
    """Count the magnitudes of one block of a task vector by some bits, of those that begin as `found` says.

    Args:
        table: `[task vectors, width]`.
        owners: Row of each block.
        found: The bits above these ones, int32 `[task vectors]`.
        counts: Int32 `[task vectors, 2^bits]`, added to; the first one counts all others, too: who
            counts down from the largest does not reach it too early.
        width: Columns.
        read: Dtype of the inputs.
        base_type: Of the bases.
        shift: How many bits are below these ones.
        bits: How many these ones are; few: counting is slow.
        even: As of `merge`.
        block: Numbers of a block.
    """
    row, start = block_of(table, owners, width, block)
    owner = tl.load(owners + tl.program_id(0))
    magnitude = _magnitude(row, start, read, base_type, even, block)
    counted = is_inside(tl.load(row), start, block, even) & (
        (magnitude >> shift >> bits) == tl.load(found + owner)
    )
    bins = tl.where(counted, (magnitude >> shift) & ((1 << bits) - 1), 0)
    each = tl.histogram(bins, 1 << bits)
    at = tl.arange(0, 1 << bits)
    tl.atomic_add(counts + (owner << bits) + at, each, mask=each > 0)


@triton.jit
def equals(
    table,
    owners,
    counts,
    width: tl.constexpr,
    read: tl.constexpr,
    base_type: tl.constexpr,
    even: tl.constexpr,
    block: tl.constexpr,
):
    """Count what has the wanted magnitude in one block of a task vector, into `counts[block]`."""
    row, start = block_of(table, owners, width, block)
    same = _is_wanted(row, start, read, base_type, even, block)
    tl.store(counts + tl.program_id(0), tl.sum(same.to(tl.int32), 0))


@triton.jit
def position(
    table,
    blocks,
    numbers,
    positions,
    width: tl.constexpr,
    read: tl.constexpr,
    base_type: tl.constexpr,
    even: tl.constexpr,
    block: tl.constexpr,
):
    """Find one entry of a task vector with the wanted magnitude.

    Args:
        table: `[task vectors, width]`.
        blocks: In which block of each it is, counted from its first, int64.
        numbers: Which it is there of those that have the magnitude, from 1, int64.
        positions: Where to, int64 `[task vectors]`.
        width: Columns.
        read: Dtype of the inputs.
        base_type: Of the bases.
        even: As of `merge`.
        block: Numbers of a block.
    """
    owner = tl.program_id(0)
    row = table + owner.to(tl.int64) * width
    start = tl.load(blocks + owner) * block
    same = _is_wanted(row, start, read, base_type, even, block)
    hit = same & (tl.cumsum(same.to(tl.int32), 0) == tl.load(numbers + owner))
    place = tl.sum(tl.where(hit, tl.arange(0, block), 0), 0)
    tl.store(positions + owner, start + place)


@triton.jit
def _difference(
    row,
    start,
    read: tl.constexpr,
    base_type: tl.constexpr,
    even: tl.constexpr,
    block: tl.constexpr,
):
    inside = is_inside(tl.load(row), start, block, even)
    own = load_numbers(tl.load(row + 2), start, inside, read, even, block)
    return own - load_numbers(tl.load(row + 3), start, inside, base_type, even, block)


@triton.jit
def _magnitude(
    row,
    start,
    read: tl.constexpr,
    base_type: tl.constexpr,
    even: tl.constexpr,
    block: tl.constexpr,
):
    """Return magnitudes as the whole numbers that have their bits; 0 where there is no number."""
    number = _difference(row, start, read, base_type, even, block)
    return number.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _is_wanted(
    row,
    start,
    read: tl.constexpr,
    base_type: tl.constexpr,
    even: tl.constexpr,
    block: tl.constexpr,
):
    magnitude = _magnitude(row, start, read, base_type, even, block)
    wanted = tl.load(row + 4).to(tl.int32)
    return is_inside(tl.load(row), start, block, even) & (magnitude == wanted)

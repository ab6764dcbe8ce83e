"""Sums of models and task vectors as machine code: one loop over the numbers of a tensor, all in registers.

Needs numba, which compiles the loop for each number of inputs, dtype and rule when it is first asked for, and
keeps it on disk. Every step is that of the eager maths (`methods.tensors`): float32, in the same order, each
operation rounded by itself. Without `fastmath` LLVM neither reorders nor contracts, so the results are equal
to the bit.

Arrays stand for tensors by their type: uint16 holds bfloat16, int16 float16, float32 itself; int32 is written
as float32 that was rounded to bfloat16.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

BLOCK = 2048
"""Numbers whose random numbers are drawn at once."""
PIECE = 1 << 16
"""Numbers whose magnitudes are added up at once; a multiple of `BLOCK`."""
LANES = 64
ZERO, ONE, GRID = np.float32(0), np.float32(1), np.float32(2.0**-24)
GOLDEN, MIX1, MIX2 = (
    np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@njit(nogil=True, cache=True, error_model="numpy")
def merge(
    inputs,
    base,
    out,
    start,
    stop,
    weights,
    bounds,
    tops,
    keys,
    drawn,
    halves,
    cuts,
    scales,
    elect,
    by_agreeing,
    divisor,
    factor,
):
    """Merge the numbers from `start` to `stop` of one tensor.

    Args:
        inputs: Arrays `[n]`, a tuple.
        base: What task vectors are relative to, and the sum is added to; None: nothing.
        out: Where to, `[n]`.
        start: First number; even.
        stop: Behind the last.
        weights: One an input, float32, a tuple like those below.
        bounds: What is not above in magnitude becomes 0; None: nothing does.
        tops: What is above becomes 0; None: nothing does.
        keys: Of the random numbers; None: none are drawn.
        drawn: Room for random numbers, uint64 `[BLOCK / 2]`; or None.
        halves: The same as uint32; or None.
        cuts: Of 2^24, what a random number lies below that keeps its entry; or each a tuple: the ranks of the
            entries, `[n]`, and, as float32, the bound at rank 0 and what each rank adds to it; or None.
        scales: Factors of what is kept; None: none.
        elect: Sum only what agrees with the elected sign; None: sum all.
        by_agreeing: Divide by the agreeing weights; None: do not.
        divisor: Of the sum, float32; None: 1.
        factor: Of the sum, float32; None: 1.
    """
    for block in range(start, stop, BLOCK):
        at, end = np.uint64(block), np.uint64(min(block + BLOCK, stop))
        if keys is not None:
            for k in range(len(inputs)):
                _draw(keys[k], block, end - at, drawn[k])
        for j in range(at, end):  # unsigned: an index is never taken from the end
            near = _wide(base[j]) if base is not None else None
            place = j - at
            total = _total(
                None, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales
            )
            if elect is not None:
                sign = ONE if total >= ZERO else -ONE
                total, agreeing = _agreeing(
                    (ZERO, ZERO),
                    sign,
                    j,
                    near,
                    inputs,
                    weights,
                    bounds,
                    tops,
                    halves,
                    place,
                    cuts,
                    scales,
                )
                total *= sign
                if by_agreeing is not None:
                    total /= agreeing if agreeing != ZERO else ONE
            if divisor is not None:
                total /= divisor
            if factor is not None:
                total *= factor
            if base is not None:
                total += near
            _store(out, j, total)


def _total(total, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales):
    """Add the parts of these inputs to a sum; None: there is none yet."""


@overload(_total)
def _total_overload(total, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales):
    if len(inputs) == 0:
        return lambda total, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales: (
            total
        )

    def add(total, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales):
        part = _part(j, near, inputs, weights, bounds, tops, halves, place, cuts, scales)
        return _total(
            _plus(total, part),
            j,
            near,
            inputs[1:],
            weights[1:],
            _rest(bounds),
            _rest(tops),
            _rest(halves),
            place,
            _rest(cuts),
            _rest(scales),
        )

    return add


def _agreeing(sums, sign, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales):
    """Add the parts that have a sign to one sum, and their weights to another."""


@overload(_agreeing)
def _agreeing_overload(
    sums, sign, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales
):
    if len(inputs) == 0:
        return (
            lambda sums, sign, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales: (
                sums
            )
        )

    def add(sums, sign, j, near, inputs, weights, bounds, tops, halves, place, cuts, scales):
        along = sign * _part(j, near, inputs, weights, bounds, tops, halves, place, cuts, scales)
        total = sums[0] + (along if along > ZERO else ZERO)
        agreeing = sums[1] + (weights[0] if along > ZERO else ZERO)
        return _agreeing(
            (total, agreeing),
            sign,
            j,
            near,
            inputs[1:],
            weights[1:],
            _rest(bounds),
            _rest(tops),
            _rest(halves),
            place,
            _rest(cuts),
            _rest(scales),
        )

    return add


def _plus(total, part):
    """Return the sum; there may be no total yet."""


@overload(_plus)
def _plus_overload(total, part):
    if total == types.none:
        return lambda total, part: part
    return lambda total, part: total + part


def _rest(values):
    """Return a tuple or an array without its first, or None."""


@overload(_rest)
def _rest_overload(values):
    return (lambda values: None) if values == types.none else (lambda values: values[1:])


@njit
def _part(j, near, inputs, weights, bounds, tops, halves, place, cuts, scales):
    """Return what the first input adds."""
    number = _wide(inputs[0][j])
    if near is not None:
        number = number - near
    if bounds is not None:
        number = number if abs(number) > bounds[0] else ZERO
    if tops is not None:
        number = ZERO if abs(number) > tops[0] else number
    if cuts is not None:
        number = number * (ONE if _is_kept(j, halves[0][place] >> np.uint32(8), cuts[0]) else ZERO)
    if scales is not None:
        number = number * scales[0]
    return number * weights[0]


def _is_kept(j, number, cut):
    """Tell whether a random number, of 2^24, is below its entry's bound."""


@overload(_is_kept)
def _is_kept_overload(j, number, cut):
    if not isinstance(cut, types.BaseTuple):
        return lambda j, number, cut: number < cut

    def compare(j, number, cut):
        ranks, lowest, step = cut
        return np.float32(number) * GRID < np.float32(ranks[j]) * step + lowest

    return compare


@njit(nogil=True, cache=True, error_model="numpy")
def magnitudes(inputs, base, start, stop, bounds, tops, keys, drawn, halves, cuts, sums):
    """Add up the magnitudes of what is kept of a task vector, in pieces.

    Args:
        inputs: As of `merge`, one; and so the next ones.
        base: An array.
        start: First number; even where random numbers are drawn.
        stop: Behind the last.
        bounds: Or None.
        tops: Or None.
        keys: Or None.
        drawn: Or None.
        halves: Or None.
        cuts: Or None.
        sums: Float64 `[pieces]` of the whole tensor, added to.
    """
    lanes = np.empty(LANES, np.float64)
    for piece in range(start, stop, PIECE):
        lanes[:] = 0
        for block in range(piece, min(piece + PIECE, stop), BLOCK):
            at, size = np.uint64(block), np.uint64(min(BLOCK, stop - block))
            if keys is not None:
                _draw(keys[0], block, size, drawn[0])
            for first in range(np.uint64(0), size, np.uint64(LANES)):
                for lane in range(min(np.uint64(LANES), size - first)):
                    j = at + first + lane
                    number = _part(
                        j,
                        _wide(base[j]),
                        inputs,
                        (ONE,),
                        bounds,
                        tops,
                        halves,
                        first + lane,
                        cuts,
                        None,
                    )
                    lanes[lane] += np.float64(abs(number))
        sums[piece // PIECE] += lanes.sum()


@njit(nogil=True, cache=True)
def count(own, base, coarse, counts):
    """Count the magnitudes of a task vector by half of their bits.

    Args:
        own: An input, `[n]`.
        base: What it is relative to.
        coarse: Upper half of those that are counted by the lower; -1: all are, by the upper.
        counts: Int64 `[2^16]`, added to.
    """
    for j in range(np.uint64(0), np.uint64(len(own))):
        bits = _magnitude(own, base, j)
        if coarse < 0:
            counts[bits >> 16] += 1
        elif bits >> 16 == coarse:
            counts[bits & 0xFFFF] += 1


@njit(nogil=True, cache=True)
def position(own, base, wanted, number):
    """Return where the `number`-th magnitude with these bits is; one is there."""
    size = np.uint64(len(own))
    for block in range(np.uint64(0), size, np.uint64(BLOCK)):
        end, equal = min(block + np.uint64(BLOCK), size), 0
        for j in range(block, end):
            equal += _magnitude(own, base, j) == wanted
        if equal < number:
            number -= equal
            continue
        for j in range(block, end):
            if _magnitude(own, base, j) == wanted:
                number -= 1
                if number == 0:
                    return j
    return size


@njit
def _magnitude(own, base, j):
    return np.int64(_as_bits(_wide(own[j]) - _wide(base[j])) & np.uint32(0x7FFFFFFF))


@njit
def _draw(key, at, size, drawn):
    """Draw the random numbers of `masks.uniform`, two in one; `at` is even."""
    counter = key + np.uint64(at // 2) * GOLDEN
    for pair in range((size + np.uint64(1)) // np.uint64(2)):
        counter += GOLDEN
        state = (counter ^ (counter >> np.uint64(30))) * MIX1
        state = (state ^ (state >> np.uint64(27))) * MIX2
        drawn[pair] = state ^ (state >> np.uint64(31))


@intrinsic
def _as_float(_typing, bits):
    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def _as_bits(_typing, number):
    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


def _wide(stored):
    """Return what is stored as float32."""


@overload(_wide)
def _wide_overload(stored):
    if stored == types.uint16:
        return lambda stored: _as_float(np.uint32(stored) << np.uint32(16))
    if stored == types.int16:
        return _from_float16
    return lambda stored: stored


def _from_float16(stored):
    bits = np.uint32(np.uint16(stored))
    magnitude = (bits & np.uint32(0x7FFF)) << np.uint32(13)
    number = _as_float(magnitude) * np.float32(2.0**112)
    exponent = np.uint32(0x7F800000) if (bits & np.uint32(0x7C00)) == 0x7C00 else np.uint32(0)
    sign = (bits & np.uint32(0x8000)) << np.uint32(16)
    return _as_float(_as_bits(number) | exponent | sign)


@njit
def _rounded(number):
    """Round to bfloat16, to nearest even; return its bits."""
    bits = _as_bits(number)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    found = (bits + np.uint32(0x7FFF) + even) >> np.uint32(16)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.uint32(0x7FC0) if is_nan else np.uint32(found)


def _store(out, j, number):
    """Round a number once, and store it."""


@overload(_store)
def _store_overload(out, j, number):
    if out.dtype == types.uint16:

        def store(out, j, number):
            out[j] = np.uint16(_rounded(number))
    elif out.dtype == types.int32:

        def store(out, j, number):
            out[j] = np.int32(_rounded(number) << np.uint32(16))
    else:

        def store(out, j, number):
            out[j] = number

    return store

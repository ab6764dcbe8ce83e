"""Which entries of a task vector are kept: the same ones on any machine, in any order.

Random masks come from a counter-based generator: entry i of a tensor draws from a hash of (key, i), and
the key is a hash of (seed, expert, tensor). A mask keeps u < density with u fixed, so that of two
densities the smaller keeps a subset of what the larger keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xxhash

CHUNK = 1 << 16  # pairs of elements hashed at once, so that the passes stay in the cache
GROUP = 1 << 15  # entries whose magnitudes are counted together; their number fits into 16 bits
COARSE = 1 << 15  # magnitudes that are float32 numbers with 7 bits of mantissa, as bfloat16's are
Bits = np.ndarray[Any, np.dtype[Any]]
FindEqual = Callable[[int, int, int, int], int]
"""Start, stop, bits, number → where in between the number-th magnitude with these bits is; one is there."""
GOLDEN = 0x9E3779B97F4A7C15
MIX1 = 0xBF58476D1CE4E5B9
MIX2 = 0x94D049BB133111EB


def mask_key(seed: int, expert: int, tensor: str) -> int:
    """Return the 64-bit key of one task vector's random numbers.

    Args:
        seed: The recipe's.
        expert: Position of the model among the recipe's models (the base first), so that the same merge
            draws the same masks wherever its models are stored.
        tensor: The tensor's name in that model.
    """
    return xxhash.xxh3_64_intdigest(f"{seed}/{expert}/{tensor}".encode())


def uniform(key: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Draw `count` numbers, float32 in [0, 1) on a grid of 2^-24.

    Number i is a half of splitmix64's output i // 2 (Steele et al. 2014) after the state `key`: exact
    integer arithmetic, and so equal on every device; for MPS it is done on the CPU.
    """
    if torch.device(device).type == "mps":
        return uniform(key, count).to(device)
    numbers = torch.empty(count + count % 2, dtype=torch.float32, device=device)
    pairs = numbers.view(-1, 2)
    for start in range(0, pairs.shape[0], CHUNK):
        stop = min(start + CHUNK, pairs.shape[0])
        state = torch.arange(start + 1, stop + 1, dtype=torch.int64, device=device)
        state.mul_(signed(GOLDEN)).add_(signed(key))
        _xor_shifted(state, 30).mul_(signed(MIX1))
        _xor_shifted(state, 27).mul_(signed(MIX2))
        _xor_shifted(state, 31)
        halves = state.view(torch.int32).view(-1, 2)
        pairs[start:stop].copy_((halves >> 8) & 0xFFFFFF).mul_(2.0**-24)
    return numbers[:count]


def magnitude_order(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort a flat task vector by falling magnitude; among equals the first stays first.

    Returns:
        The negated magnitudes (ascending), and the positions they come from (int32), both `[n]`.
    """
    ascending, order = torch.sort(delta.abs().neg_(), stable=True)
    return ascending, order.to(torch.int32)


def compact_order(
    read: Callable[[int, int], torch.Tensor], numel: int, most: int
) -> tuple[torch.Tensor, ...]:
    """Return what `ranked` needs to find any entry of the order of magnitudes.

    A difference of two bfloat16 numbers mostly is one, too: such entries are counted by magnitude and group,
    and only the others are sorted. That is about a third of a byte an entry of bfloat16 models, and eight of
    float32 models. It is read in groups, twice.

    Args:
        read: Start and stop → these entries of the task vector, float32, on the CPU.
        numel: How many it has.
        most: Bytes; nothing is returned where it would be more.

    Returns:
        Of each magnitude that is counted, falling, its bits, how many entries are larger, and how many of
        those counted are at least as large; the counts, `[groups, magnitudes]`; of the others, by falling
        magnitude, their bits and their positions.
    """
    totals = np.zeros(COARSE + 1, np.int64)
    places, others, size = [], [], 0
    starts = range(0, numel, GROUP)
    for start in starts:
        bits, fine = _bits(read(start, start + GROUP))
        size += 8 * len(fine)
        if size > most:
            return ()
        places.append((fine + start).astype(np.int32))
        others.append(bits[fine])
        totals += _counted(bits, fine)
    keys = np.flatnonzero(totals[:COARSE])[::-1].copy()
    counts = np.empty((len(starts), len(keys)), np.uint16)
    for row, start in zip(counts, starts, strict=True):
        row[:] = _counted(*_bits(read(start, start + GROUP)))[keys]
    fallen = torch.from_numpy(np.concatenate(others))
    found, order = torch.sort(fallen, descending=True, stable=True)
    edges, ends = (keys << 16).astype(np.int32), totals[keys].cumsum()
    larger = np.searchsorted(-found.numpy(), -edges) + ends - totals[keys]
    made = (edges, larger, ends, counts, found.numpy(), np.concatenate(places)[order.numpy()])
    return tuple(map(torch.from_numpy, made))


def _bits(delta: torch.Tensor) -> tuple[Bits, Bits]:
    """Return magnitudes as whole numbers, and the places of those with more than 7 bits of mantissa."""
    bits = _magnitudes(delta)
    return bits, np.flatnonzero(bits & 0xFFFF)


def _magnitudes(delta: torch.Tensor) -> Bits:
    return delta.abs().numpy().view(np.int32)


def _counted(bits: Bits, fine: Bits) -> Bits:
    coarse = bits >> 16
    coarse[fine] = COARSE
    return np.bincount(coarse, minlength=COARSE + 1)


def ranked(order: tuple[torch.Tensor, ...], count: int, find: FindEqual) -> tuple[float, int]:
    """Return magnitude and position of the entry that is last among the `count` largest, of equals the first.

    Args:
        order: What `compact_order` returned.
        count: 1 to n.
        find: Finds an entry of the task vector among its equals.
    """
    edges, larger, ends, counts = (one.numpy() for one in order[:4])
    at = int(larger.searchsorted(count)) - 1
    if at >= 0:
        column = counts[:, at].cumsum(dtype=np.int64)
        missing = count - int(larger[at])
        if missing <= column[-1]:
            group = int(column.searchsorted(missing))
            missing -= int(column[group - 1]) if group else 0
            start = group * GROUP
            return _magnitude(edges[at]), find(start, start + GROUP, int(edges[at]), missing)
    rest = count - 1 - (int(ends[at]) if at >= 0 else 0)
    found, positions = (one.numpy() for one in order[4:])
    return _magnitude(found[rest]), int(positions[rest])


def row_ranks(delta: torch.Tensor) -> torch.Tensor:
    """Return the place of each entry by rising magnitude in its row, from 0; of equals the first is lower.

    Args:
        delta: Of any shape; a row is an entry of the first axis, and a vector is one row.

    Returns:
        Shaped as `delta`; int32, on a CPU uint16 where a row has at most 2^16 entries.
    """
    rows = delta.flatten(1) if delta.ndim > 1 else delta.reshape(1, -1)
    if delta.device.type == "cpu" and delta.dtype == torch.float32:
        return torch.from_numpy(_row_ranks(_magnitudes(rows))).view(delta.shape)
    order = torch.sort(rows.abs(), dim=1, stable=True).indices
    places = torch.arange(rows.shape[1], dtype=torch.int32, device=delta.device)
    ranks = torch.empty_like(order, dtype=torch.int32)
    return ranks.scatter_(1, order, places.expand_as(order)).view(delta.shape)


def _row_ranks(bits: Bits) -> np.ndarray[Any, Any]:
    """Sort magnitudes with their places behind them as one number: numpy sorts such several times as fast."""
    width = bits.shape[1]
    ranks = np.empty(bits.shape, np.uint16 if width <= 1 << 16 else np.int32)
    rows = max(1, CHUNK // max(1, width))
    for start in range(0, len(bits), rows):
        some = slice(start, start + rows)
        keys = bits[some].astype(np.uint64) << np.uint64(32) | np.arange(width, dtype=np.uint64)
        keys.sort(axis=1)
        places = (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)
        np.put_along_axis(ranks[some], places, np.arange(width, dtype=ranks.dtype)[None], 1)
    return ranks


def in_order(values: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Return what stands at these places, from 0, of values in rising order.

    Args:
        values: `[n]`, contiguous; they are rearranged.
        places: Any.
    """
    if values.device.type == "cpu":
        values.numpy().partition(places)  # in place; several times as fast as kthvalue
        return values[list(places)].clone()
    return torch.stack([values.kthvalue(place + 1).values for place in places])


def largest(
    delta: torch.Tensor,
    count: int,
    order: tuple[torch.Tensor, ...] | None = None,
    skipped: int = 0,
) -> torch.Tensor:
    """Return a flat task vector with all but its `count` largest magnitudes set to 0.

    Exactly `count` entries are kept (zeros among them are kept as zeros); of equal magnitudes the first, on
    any device. mergekit 0.1.5 takes those that `torch.argsort` without `stable` puts first, whose order among
    equals torch leaves open: the magnitudes that are kept are the same, an entry on the threshold may be
    another one. bfloat16 checkpoints have many such entries (1.0 %
    of the zoo's at density 0.5 differ from mergekit's on a CPU, none of them off the threshold).

    Args:
        delta: `[n]`, float32 or float64.
        count: 1 to n.
        order: What `magnitude_order` returned, to save the selection.
        skipped: How many of the largest are left out before counting; at most n - count.
    """
    if skipped:
        return largest(delta, skipped + count, order).sub_(largest(delta, skipped, order))  # exact
    if count >= delta.numel():
        return delta.clone()
    if order is None:
        # The (count + 1)-th largest: hardshrink keeps what lies strictly above it.
        bound = float(in_order(delta.abs(), [delta.numel() - count - 1])[0])
        sparse = torch.nn.functional.hardshrink(delta, bound)
        missing = count - int(sparse.count_nonzero())
        if missing and bound:
            equal = (delta == bound).logical_or_(delta == -bound).nonzero().view(-1)[:missing]
            sparse[equal] = delta[equal]
        return sparse
    ascending, positions = order
    bound = -float(ascending[count])
    sparse = torch.nn.functional.hardshrink(delta, bound)
    if float(ascending[count - 1]) == -bound and bound:
        first = int(torch.searchsorted(ascending, ascending[count], right=False))
        equal = positions[first:count].long()
        sparse[equal] = delta[equal]
    return sparse


def largest_by(
    delta: torch.Tensor,
    scores: torch.Tensor,
    count: int,
    order: tuple[torch.Tensor, ...] | None = None,
    skipped: int = 0,
) -> torch.Tensor:
    """As `largest`, by scores in place of the task vector's own magnitudes.

    Args:
        delta: `[n]`.
        scores: `[n]`, at least 0.
        count: 1 to n.
        order: What `magnitude_order` returned for `scores`, to save the selection.
        skipped: As of `largest`.
    """
    if skipped:
        kept = largest_by(delta, scores, skipped + count, order)
        return kept.sub_(largest_by(delta, scores, skipped, order))  # exact
    if count >= delta.numel():
        return delta.clone()
    if order is not None:
        sparse, places = torch.zeros_like(delta), order[1][:count].long()
        sparse[places] = delta[places]
        return sparse
    bound = in_order(scores.clone(), [delta.numel() - count - 1])[0]
    above = scores > bound
    missing = count - int(above.sum())
    above[(scores == bound).nonzero().view(-1)[:missing]] = True
    return torch.where(above, delta, 0)


def _magnitude(bits: np.int32) -> float:
    return float(bits.view(np.float32))


def _xor_shifted(state: torch.Tensor, bits: int) -> torch.Tensor:
    """Return state ^= state >>> bits; int64 shifts keep the sign, so it is masked away."""
    shifted = (state >> bits).bitwise_and_((1 << (64 - bits)) - 1)
    return state.bitwise_xor_(shifted)


def signed(value: int) -> int:
    """Return the int64 number with the bits of an unsigned one."""
    return value - (1 << 64) if value >= 1 << 63 else value

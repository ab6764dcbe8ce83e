"""Sums over whole tensors and over task vectors: the arithmetic that the methods share.

Element-wise operations are correctly rounded and in a fixed order, without fused multiply-add or matrix
product, and sums over a tensor are float64: the result is the same to the bit on any device and with any
number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import cycle, repeat

import torch

from evomerge.merge.methods.method import Inputs

NORM_AS_0 = 1e-8  # of a vector whose angle is asked for
MIN_NORM = 1e-7  # rescaling is skipped below (mergekit)
CHUNK = 1 << 20  # elements; bounds the float64 copies
PIECES = {"cpu": 1 << 16}  # elements whose products stay in the cache
PIECE_ELSEWHERE = 1 << 24
_WITHOUT_FLOAT64 = ("mps",)
Weight = float | torch.Tensor
"""Of a whole tensor; or of each of its rows, `[rows, 1, ...]`, `[1, 1, ...]` where they are alike."""


def difference(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a - b, rounded once; both are converted to `dtype` before, without whole copies of both."""
    return a - b if a.dtype == dtype else a.to(dtype).sub_(b)


def l1_norm(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of magnitudes; float64, no dimensions, on the tensor's device (of MPS: on the CPU)."""
    flat = summable(tensor).reshape(-1)
    total = flat.new_zeros((), dtype=torch.float64)
    for piece in torch.split(flat, PIECES.get(flat.device.type, PIECE_ELSEWHERE)):
        total += piece.abs().sum(dtype=torch.float64)
    return total


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the cosine of two tensors as vectors; a norm of 0 counts as 1."""
    norm_a, norm_b = math.sqrt(dot(a, a)), math.sqrt(dot(b, b))
    scale = (norm_a if norm_a > NORM_AS_0 else 1.0) * (norm_b if norm_b > NORM_AS_0 else 1.0)
    return max(-1.0, min(1.0, dot(a, b) / scale))


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product of two tensors as vectors, multiplied and summed in float64."""
    x, y = summable(a).reshape(-1), summable(b).reshape(-1)
    pieces = zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True)
    return sum((float((one.double() * other.double()).sum()) for one, other in pieces), 0.0)


def dots_along(a: torch.Tensor, b: torch.Tensor, axis: int) -> torch.Tensor:
    """Return inner products along the last axis (-1) or the first (0), multiplied and summed in float64.

    Returns:
        Float64 on the CPU, like the tensors, with length 1 along the axis.
    """
    if a.ndim < 2:
        return torch.full([1] * a.ndim, dot(a, b), dtype=torch.float64)
    x, y = summable(a), summable(b)
    step = max(1, CHUNK * len(a) // max(1, a.numel()))
    pieces = zip(torch.split(x, step), torch.split(y, step), strict=True)
    sums = [(one.double() * other.double()).sum(axis, keepdim=True) for one, other in pieces]
    return (torch.cat(sums) if axis else torch.stack(sums).sum(0)).cpu()


def gram(tensor: Callable[[int], torch.Tensor], indices: Sequence[int]) -> torch.Tensor:
    """Return the inner products of several tensors with each other as vectors; float64 `[n, n]`, on the CPU.

    Args:
        tensor: Index → tensor; two at a time are in memory.
        indices: Which.
    """
    found = torch.empty(len(indices), len(indices), dtype=torch.float64)
    for i, index in enumerate(indices):
        one = tensor(index)
        for j, other in enumerate(indices[: i + 1]):
            found[i, j] = found[j, i] = dot(one, one if i == j else tensor(other))
    return found


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product of two tensors of one shape: products in their dtype, summed in float64.

    Some times faster than `dot`, and a float32 product's last bit less exact.
    """
    x, y = summable(a).reshape(-1), summable(b).reshape(-1)
    piece = PIECES.get(x.device.type, PIECE_ELSEWHERE)
    total = x.new_zeros((), dtype=torch.float64)
    for one, other in zip(torch.split(x, piece), torch.split(y, piece), strict=True):
        total += (one * other).sum(dtype=torch.float64)
    return float(total)


def row_products(gradient: torch.Tensor, tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return ⟨g[row], t[row]⟩ for each row of each tensor; float64 `[tensors, rows]`, on the CPU.

    Products are in the dtype of the maths, and so are the sums over a row.
    """
    return torch.stack(list(map(partial(_row_inner, gradient), tensors))).cpu().double()


def divisor_of(weights: Sequence[Weight], smallest: float) -> Weight:
    """Return Σ w, which normalises a sum; 1 where its magnitude is below `smallest`."""
    total = sum(weights)
    if isinstance(total, torch.Tensor):
        return total.masked_fill(total.abs() < smallest, 1)
    return total if abs(total) >= smallest else 1.0


def divided(total: torch.Tensor, divisor: Weight) -> torch.Tensor:
    """Divide in place, each entry rounded once: by a number, GPUs multiply by its reciprocal."""
    if not isinstance(divisor, torch.Tensor):
        divisor = total.new_full((), divisor)
    return total.div_(divisor)


def rescaled(sparse: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Return a sparsified task vector with the L1 norm it had, unless that or its own is all but 0.

    Args:
        sparse: The task vector.
        norm: Of the whole one; float64, no dimensions.
    """
    own = l1_norm(sparse)
    usable = (norm >= MIN_NORM) & (own >= MIN_NORM)
    factor = torch.where(usable, norm / own, torch.ones_like(own))
    return sparse * factor.to(sparse.dtype)


def weighted_sum(tensors: Iterable[torch.Tensor], weights: Sequence[Weight]) -> torch.Tensor:
    """Return Σ w t in the order given, each product and each sum rounded once; tensors one at a time."""
    source = iter(
        tensors
    )  # a loop over pairs would keep each tensor until the next one is computed
    total = next(source) * weights[0]
    product = torch.empty_like(total)
    for weight in weights[1:]:
        total.add_(torch.mul(next(source), weight, out=product))
    return total


def masked(
    delta: torch.Tensor, numbers: torch.Tensor, density: float | torch.Tensor
) -> torch.Tensor:
    """Return a task vector without the entries whose number is not below `density`, or that entry's."""
    kept = torch.empty_like(delta)
    torch.lt(numbers, density, out=kept)  # 0 or 1
    return kept.mul_(delta)


def elected_sum(
    deltas: Iterable[torch.Tensor],
    weights: Sequence[Weight],
    votes: Sequence[Weight] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Elect a sign for each entry and sum what agrees with it (TIES' elect and disjoint merge).

    Exact zeros agree with neither sign.

    Args:
        deltas: Read twice.
        weights: One a delta.
        votes: Weights in the election; None: the same.

    Returns:
        The sum of the agreeing weighted deltas, and the sum of their weights; both shaped as a delta.
    """
    signs = _signs(weighted_sum(deltas, votes or weights))
    mark = repeat(torch.empty_like(signs))
    return _agreeing_sum(_products(deltas, weights, mark), weights, signs, mark)


def elected_derivatives(
    deltas: Iterable[torch.Tensor], weights: Sequence[Weight], *, normalize: bool, together: bool
) -> Iterator[torch.Tensor]:
    """Yield m, the elected sum over D; 1/D; and D ∂m/∂w_i for each i. D: the agreeing weights, or 1.

    The elected signs are held fixed, so the derivatives are exact wherever no entry is about to change its
    sign, and say nothing of what such a change would bring. A weight of 0 is taken to be about to rise: its
    model agrees where its delta has the elected sign, and where no other model has a say.

    Args:
        deltas: Read twice; three times unless `together`.
        weights: One a delta; of whole tensors, or by row.
        normalize: Whether m is divided.
        together: Each derivative has memory of its own; otherwise the next one overwrites it.
    """
    first = next(iter(deltas))
    marks = [torch.empty_like(first) for _ in range(len(weights) if together else 1)]
    del first
    signs = _signs(_added_up(_products(deltas, weights, cycle(marks))))
    products = marks if together else _products(deltas, weights, cycle(marks))
    mixed, divisor = _agreeing_sum(products, weights, signs, cycle(marks))
    lowest = [float(w.min()) if isinstance(w, torch.Tensor) else w for w in weights]
    unopposed = mixed == 0 if min(lowest) <= 0 else None
    average = None
    if normalize:
        indivisible = torch.eq(divisor, 0, out=torch.empty_like(divisor))
        mixed.div_(divisor.add_(indivisible))
        divisor.reciprocal_()
        average = mixed if unopposed is None else mixed * indivisible.neg_().add_(1)
        del indivisible
    else:
        divisor.fill_(1)
    yield mixed
    del mixed  # what is not needed is not held while task vectors are computed
    yield divisor
    del divisor
    away = None if average is None else torch.empty_like(signs)
    source = iter(deltas)
    for weight, mark in zip(weights, cycle(marks), strict=False):
        delta = next(source)
        if not together or unopposed is not None:
            _mark(delta, weight, signs, unopposed, out=mark)
        mark.mul_(delta if average is None else torch.sub(delta, average, out=away))
        del delta
        yield mark


def summed_gradients(
    found: torch.Tensor, weights: Sequence[Weight], smallest: float | None
) -> tuple[torch.Tensor, float]:
    """Return ⟨g, ∂m/∂w_i⟩ by the weight of each row, and ⟨g, m⟩, of m = Σ w t / W.

    Args:
        found: ⟨g[row], t[row]⟩ of each t, as of `row_products`.
        weights: Of whole tensors, or by row.
        smallest: W is Σ w, and 1 where that is smaller; None: W is 1.

    Returns:
        Float64 `[tensors, rows]` on the CPU, and a number.
    """
    factors = _factors(weights)
    mixed = (factors * found).sum(0)
    if smallest is not None:
        total = factors.sum(0)
        divides = total.abs() >= smallest
        total.masked_fill_(~divides, 1)
        mixed = mixed / total
        found = (found - divides * mixed) / total
    return found, float(mixed.sum())


def elected_gradients(
    gradient: torch.Tensor, derivatives: Iterable[torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """As `summed_gradients`, from what `elected_derivatives` yields."""
    parts = iter(derivatives)
    by_factor = float(row_products(gradient, (next(parts),)).sum())
    return row_products(gradient * next(parts), parts), by_factor


def summable(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor where there is float64: on its device, or on the CPU."""
    return tensor.cpu() if tensor.device.type in _WITHOUT_FLOAT64 else tensor


def weight_gradients(
    inputs: Inputs, indices: Sequence[int], found: torch.Tensor
) -> tuple[tuple[float, ...], torch.Tensor | None]:
    """Return the gradients by the weights of all inputs, and by those of their rows where that is wanted.

    Args:
        inputs: The inputs; those that are not in `indices` have gradients of 0.
        indices: Which inputs are differentiated.
        found: Their gradients, `[indices, rows]`.
    """
    rows = found.new_zeros(len(inputs.models), found.shape[1])
    rows[list(indices)] = found
    return tuple(rows.sum(1).tolist()), rows if inputs.by_row else None


def _products(
    tensors: Iterable[torch.Tensor], weights: Sequence[Weight], out: Iterable[torch.Tensor]
) -> Iterator[torch.Tensor]:
    source = iter(tensors)
    for weight, product in zip(weights, out, strict=False):
        yield torch.mul(next(source), weight, out=product)


def _added_up(products: Iterator[torch.Tensor]) -> torch.Tensor:
    total = next(products).clone()
    for product in products:
        total.add_(product)
    return total


def _signs(total: torch.Tensor) -> torch.Tensor:
    """Turn sums into their signs, 1 or -1; 1 where a sum is 0."""
    return torch.ge(total, 0, out=total).mul_(2).sub_(1)


def _agreeing_sum(
    products: Iterable[torch.Tensor],
    weights: Sequence[Weight],
    signs: torch.Tensor,
    marks: Iterable[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `elected_sum`; `marks`, which may be the products, get 1 where one agrees, 0 elsewhere."""
    total, agreeing = torch.zeros_like(signs), torch.zeros_like(signs)
    along = torch.empty_like(signs)
    for product, weight, mark in zip(products, weights, marks, strict=False):
        torch.mul(product, signs, out=along)  # > 0 where it agrees
        torch.gt(along, 0, out=mark)
        # Products with 0 or 1 are exact, so nothing is lost where they are fused with the sum.
        total.addcmul_(along, mark)
        if isinstance(weight, torch.Tensor):
            agreeing.addcmul_(mark, weight)
        else:
            agreeing.add_(mark, alpha=weight)
    return total.mul_(signs), agreeing


def _mark(
    delta: torch.Tensor,
    weight: Weight,
    signs: torch.Tensor,
    unopposed: torch.Tensor | None,
    *,
    out: torch.Tensor,
) -> None:
    """Write 1 where a delta agrees with the elected signs, 0 elsewhere."""
    rising = torch.as_tensor(weight == 0, device=delta.device)
    factor = torch.as_tensor(weight, dtype=delta.dtype, device=delta.device).masked_fill(rising, 1)
    torch.mul(delta, factor, out=out).mul_(signs)
    torch.gt(out, 0, out=out)
    if unopposed is not None and bool(rising.any()):
        out.masked_fill_(unopposed & rising & (delta != 0), 1)


def _row_inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the inner product of each row of two tensors of one shape; `[rows]`."""
    rows, size = a.shape[0] if a.ndim else 1, a.numel()
    if size == rows:
        return (a * b).view(rows)
    piece = PIECES.get(a.device.type, PIECE_ELSEWHERE)
    if size <= piece:
        return (a * b).flatten(1).sum(1)
    step = max(1, piece * rows // size)
    pairs = zip(torch.split(a, step), torch.split(b, step), strict=True)
    return torch.cat([(one * other).flatten(1).sum(1) for one, other in pairs])


def _factors(weights: Sequence[Weight]) -> torch.Tensor:
    """Return weights as they multiply `row_products`: float64 `[weights, rows]` or `[weights, 1]`."""
    flat = [each.view(-1) for each in weights if isinstance(each, torch.Tensor)]
    if len(flat) < len(weights):
        rows = len(flat[0]) if flat else 1
        flat = [
            each.view(-1).cpu().double()
            if isinstance(each, torch.Tensor)
            else torch.full((rows,), each, dtype=torch.float64)
            for each in weights
        ]
    return torch.stack(flat).cpu().double()

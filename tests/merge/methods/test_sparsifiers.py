"""Which entries breadcrumbs and DELLA keep, against plain references in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.merge.masks import mask_key, row_ranks, uniform

quiet = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def kept_of(merge, method, delta, **own):
    """Return what a method leaves of one task vector, not rescaled."""
    base = torch.zeros_like(delta)
    return merge(method, [base, delta], [{}, {"weight": 1.0, **own}], rescale=False)


@quiet
@given(st.integers(1, 60), st.floats(0, 0.999), st.floats(0, 1), st.integers(0, 99))
def test_breadcrumbs_keep_the_largest_behind_the_outliers(merge, n, density, gamma, seed):
    """Positions in rising magnitude as mergekit states them, but one entry at least."""
    delta = torch.from_numpy(np.random.default_rng(seed).permutation(n).astype(np.float32) + 1)
    found = kept_of(merge, "breadcrumbs", delta, density=density, gamma=gamma)
    count = 0 if density == 0 else max(1, int(density * n))
    first = max(0, n - count - int(gamma * n))
    rising = delta.sort().indices[first : first + count]
    expected = torch.zeros_like(delta)
    expected[rising] = delta[rising]
    assert torch.equal(found, expected)


def test_breadcrumbs_of_one_entry_keep_it_where_mergekit_keeps_none(merge):
    """1 % of 50 entries is none by mergekit's rounding: the task vector would be lost."""
    delta = torch.arange(1.0, 51)
    found = kept_of(merge, "breadcrumbs", delta, density=0.01, gamma=0.1)
    assert found.nonzero().tolist() == [[44]]  # behind the 5 outliers


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties", "della", "della_linear"])
def test_density_0_is_the_base_and_density_1_task_arithmetic(method, merge):
    tensors = [torch.randn(6, 5) for _ in range(3)]
    none = [{}, *[{"weight": 0.7, "density": 0.0}] * 2]
    assert torch.equal(merge(method, tensors, none), tensors[0])
    alike = [tensors[0], tensors[1], tensors[1]]  # the same expert twice: no sign is outvoted
    whole = [{}, *[{"weight": 0.7, "density": 1.0}] * 2]
    found = merge(method, alike, whole, normalize=True)
    assert torch.allclose(found, tensors[1], atol=1e-6)


def reference_ranks(delta):
    rows = np.abs(delta.numpy().reshape(len(delta) if delta.ndim > 1 else 1, -1))
    return np.argsort(np.argsort(rows, axis=1, kind="stable"), axis=1, kind="stable")


@pytest.mark.parametrize(
    "shape", [(7,), (5, 8), (3, 2, 4), (6, 1), (1,), (0,), (0, 3), (3, 0), (2, 70_000)]
)
def test_ranks_are_those_of_a_stable_sort(shape):
    delta = torch.randint(-3, 4, shape).float()
    found = row_ranks(delta)
    assert found.dtype == (torch.uint16 if shape[-1] < 1 << 16 else torch.int32)
    assert found.shape == shape
    expected = reference_ranks(delta) if delta.numel() else np.zeros(shape)
    assert np.array_equal(found.numpy().reshape(expected.shape), expected)


@pytest.mark.parametrize("shape", [(4000,), (40, 100), (10, 20, 20), (4000, 1), (2000, 2)])
@pytest.mark.parametrize(("density", "epsilon"), [(0.4, 0.15), (0.9, 0.15), (0.1, 0.4), (0.5, 0.0)])
def test_della_keeps_by_rank(shape, density, epsilon, merge):
    """A float64 reference, also where mergekit raises: width 1, and density ± epsilon beyond 0 or 1."""
    delta = torch.randn(shape)
    found = kept_of(merge, "della_linear", delta, density=density, epsilon=epsilon)
    ranks = reference_ranks(delta)
    width = ranks.shape[1]
    spread = min(epsilon, density, 1 - density)
    place = ranks / (width - 1) if width > 1 else np.full(ranks.shape, 0.5)
    probability = density - spread + 2 * spread * place
    numbers = uniform(mask_key(0, 1, "w"), delta.numel()).double().numpy().reshape(ranks.shape)
    sure = np.abs(numbers - probability) > 1e-6
    kept = (found != 0).numpy().reshape(ranks.shape)
    assert np.array_equal(kept[sure], (numbers < probability)[sure])
    assert np.array_equal(found[found != 0].numpy(), delta[found != 0].numpy())
    assert kept.mean() == pytest.approx(density, abs=4 * (density * (1 - density) / 4000) ** 0.5)


def test_della_gives_the_norm_back(merge):
    delta = torch.randn(200, 10)
    own = [{}, {"weight": 1.0, "density": 0.5, "epsilon": 0.2}]
    found = merge("della_linear", [torch.zeros_like(delta), delta], own)
    assert found.abs().sum().item() == pytest.approx(delta.abs().sum().item(), rel=1e-5)


@pytest.mark.parametrize("method", ["breadcrumbs", "della_linear"])
def test_smaller_densities_keep_a_subset_of_entries(method, merge):
    """Masks are nested along density, so a search sees no needless noise."""
    delta = torch.randn(50, 8)
    few, many = (
        kept_of(merge, method, delta, density=density, **extra)
        for density in (0.3, 0.5)
        for extra in [{"gamma": 0.05} if method == "breadcrumbs" else {"epsilon": 0.1}]
    )
    assert not ((few != 0) & (many == 0)).any()

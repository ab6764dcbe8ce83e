from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from evomerge.inference import attention
from evomerge.inference.attention import Share, attend, cascading
from evomerge.inference.cache import PreambleCache

LAYER = SimpleNamespace(layer_idx=0)
WIDTH = 8


def preamble(key_heads, length, generator):
    cache = PreambleCache()
    states = [torch.randn(1, key_heads, length, WIDTH, generator=generator) for _ in range(2)]
    cache.update(*states, 0)
    cache.close(length)
    return cache


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
    st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    st.integers(1, 4),
)
def test_equals_attention_to_both_in_a_row(seed, begins_with, heads, length):
    """`begins_with`: of each row 0, 1: which preamble; 2: none."""
    generator = torch.Generator().manual_seed(seed)
    (heads, key_heads), rows = heads, len(begins_with)
    query = torch.randn(rows, heads, length, WIDTH, generator=generator)
    key, value = (
        torch.randn(rows, key_heads, length + 2, WIDTH, generator=generator) for _ in range(2)
    )
    visible = torch.ones(length, length + 2, dtype=torch.bool).tril(diagonal=2)
    mask = torch.zeros(1, 1, length, length + 2).masked_fill(
        ~visible, torch.finfo(torch.float32).min
    )
    kept = [preamble(key_heads, size, generator) for size in (3, 7)]
    of = torch.tensor(begins_with)
    shares = [
        Share(cache, None if bool((of == number).all()) else (of == number).nonzero()[:, 0])
        for number, cache in enumerate(kept)
        if number in begins_with
    ]
    found, _ = attend(LAYER, query, key, value, mask, scaling=0.3, preambles=shares)
    for row, number in enumerate(begins_with):
        keys, values, seen = key[row : row + 1], value[row : row + 1], visible
        if number < 2:
            before, before_values = kept[number].states(0)
            keys = torch.cat([before, keys], 2)
            values = torch.cat([before_values, values], 2)
            seen = torch.cat([torch.ones(length, before.shape[2], dtype=torch.bool), visible], 1)
        expected = scaled_dot_product_attention(
            query[row : row + 1], keys, values, attn_mask=seen, scale=0.3, enable_gqa=True
        )
        assert torch.allclose(found[row], expected[0].transpose(0, 1), atol=1e-5)


def test_only_where_attention_is_scaled_dot_products(subject):
    module = subject("gemma2").module
    with pytest.raises(ValueError, match="attention is eager, not sdpa"), cascading(module):
        pass
    with pytest.raises(ValueError, match="attention is None"), cascading(torch.nn.Linear(1, 1)):
        pass


def test_the_usual_attention_is_back_afterwards(llama):
    config = llama.module.config
    with cascading(llama.module):
        assert config._attn_implementation != "sdpa"
    assert config._attn_implementation == "sdpa"


def test_the_kernel_for_cuda_is_given_what_it_asks_for(monkeypatch):
    """No GPU is needed: a stand-in checks what PyTorch's kernel refuses, and answers as it does."""
    asked = []

    def kernel(query, key, value, bias, weights, *, scale):
        assert weights
        assert query.shape[1] == key.shape[1]  # no grouped heads
        if bias is not None:
            assert bias.shape == (*query.shape[:3], key.shape[2])
            assert bias.stride(2) % 8 == 0  # rows begin at multiples of 16 bytes
        asked.append(bias is not None)
        found, weight = flash(query, key, value, attn_mask=bias, scale=scale)
        padded = torch.nn.functional.pad(weight, (0, -weight.shape[2] % 32), value=torch.inf)
        return found, padded, None, None

    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 2, WIDTH, generator=generator)
    key, value = (torch.randn(3, 2, 5, WIDTH, generator=generator) for _ in range(2))
    mask = torch.zeros(1, 1, 2, 5)
    shares = [Share(preamble(2, 7, generator), None)]
    expected, _ = attend(LAYER, query, key, value, mask, preambles=shares)
    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_efficient_attention", kernel)
    monkeypatch.setattr(attention, "_flash", attention._efficient)
    found, _ = attend(LAYER, query, key, value, mask, preambles=shares)
    assert asked == [True, False]
    torch.testing.assert_close(found, expected)

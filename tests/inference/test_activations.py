"""Second moments of activations, against a plain forward of transformers with hooks of the test's own."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.inference.activations import moments_by_tensor, second_moments

SEQUENCES = [(3, 4, 5), (6,), (7, 8, 9), (3, 4, 5), (10, 11, 12, 13, 14), (5, 9)]


@pytest.fixture(scope="module")
def module(llama_family):
    return AutoModelForCausalLM.from_pretrained(llama_family.experts[0]).eval()


@pytest.fixture(scope="module")
def seen(module):
    """Every vector that entered each linear layer, sequence by sequence, float64."""
    found = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, inputs, name=name: found.setdefault(name, []).append(inputs[0][0].double())
        )
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    with torch.no_grad():
        for sequence in SEQUENCES:
            module(input_ids=torch.tensor([sequence]))
    for handle in handles:
        handle.remove()
    return {name: torch.cat(vectors) for name, vectors in found.items()}


@pytest.mark.parametrize("batch_tokens", [1, 6, 2048])
def test_they_are_those_of_a_plain_forward(module, seen, batch_tokens):
    found = second_moments(module, SEQUENCES, full=True, batch_tokens=batch_tokens)
    assert found.keys() == seen.keys() - {"lm_head"}
    assert len(found) == 7 * module.config.num_hidden_layers
    for name, one in found.items():
        vectors = seen[name]
        assert one.count == len(vectors) == sum(map(len, SEQUENCES))
        assert torch.allclose(one.squares, vectors.square().mean(0), rtol=1e-5, atol=1e-9), name
        expected = vectors.T @ vectors / len(vectors)
        assert torch.allclose(one.products.double(), expected, rtol=1e-4, atol=1e-6), name
        assert torch.allclose(one.products.diagonal().double(), one.squares, rtol=1e-4), name


def test_all_pairs_are_kept_only_where_they_are_asked_for(module):
    assert all(one.products is None for one in second_moments(module, SEQUENCES).values())
    squares, moments = moments_by_tensor(module, SEQUENCES)
    assert moments == {}
    weights = module.state_dict()
    for name, one in squares.items():
        assert one.shape == (1, weights[name].shape[1])
        assert one.dtype == torch.float32


def test_no_hook_is_left_and_the_same_is_found_again(module):
    first, second = (second_moments(module, SEQUENCES, full=True) for _ in range(2))
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    for name, one in first.items():
        assert torch.equal(one.squares, second[name].squares)
        assert torch.equal(one.products, second[name].products)

"""Mean hidden states are those that transformers gives of each sequence alone."""

from __future__ import annotations

import pytest
import torch

from evomerge.errors import ModelError
from evomerge.inference import states
from evomerge.inference.states import distances, mean_states
from tests.scoring_family import ARCHITECTURES, tiny_module

TOKENS = [[5, 9, 11], [7], [5, 9, 11, 200, 3, 4, 8], [5, 9, 11], [41, 42]]
SHARED = [*range(10, 50)]


def alone(module: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found = module(input_ids=torch.tensor([tokens]), output_hidden_states=True).hidden_states
    return torch.stack([each[0].float().mean(dim=0) for each in found])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_they_are_those_of_each_sequence_alone(architecture: str) -> None:
    module = tiny_module(architecture)
    expected = torch.stack([alone(module, tokens) for tokens in TOKENS])
    for most in (1, 8, 2048):
        found = mean_states(module, TOKENS, batch_tokens=most)
        assert found.shape == (5, 3, 32)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    last_and_first = mean_states(module, TOKENS, [2, 0])
    torch.testing.assert_close(last_and_first, expected[:, [2, 0]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_sequences_begin_with_is_read_once(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tiny_module(architecture)
    tokens = [[*SHARED, *range(60, 61 + n)] for n in range(1, 12)] + [[3, 4]]
    expected = torch.stack([alone(module, each) for each in tokens])
    read = []
    monkeypatch.setattr(
        states._Reader,
        "_states",
        lambda self, rows, own=states._Reader._states: (
            read.append(sum(map(len, rows))) or own(self, rows)
        ),
    )
    found = mean_states(module, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert sum(read) < sum(map(len, tokens)) / 3
    assert len(read) == 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_behind_the_last_that_is_asked_for_are_not_computed(architecture: str) -> None:
    module = tiny_module(architecture)
    computed: list[int] = []
    (layers,) = [
        each for each in module.base_model.children() if isinstance(each, torch.nn.ModuleList)
    ]
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: computed.append(number))
    for deepest, expected in ((0, []), (1, [0]), (2, [0, 1])):
        computed.clear()
        mean_states(module, [[5, 9, 11]], [deepest])
        assert computed == expected


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    module = tiny_module("llama")
    module.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match="LlamaModel has no one list of its 7 layers"):
        mean_states(module, [[5, 9, 11]])


def test_distances_are_shares_of_the_states_lengths() -> None:
    one = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 4.0], [1.0, 0.0]]])  # [n, layers, d]
    other = torch.tensor([[[0.0, 3.0], [1.0, 0.0]], [[0.0, 4.0], [1.0, 0.0]]])
    found = distances([one, other, -one])
    assert found.shape == (2, 3, 3)
    assert found[0, 0, 1].item() == pytest.approx(18**0.5 / 7)
    assert found[1, 0, 1].item() == 0
    assert found[:, 0, 2].tolist() == pytest.approx([2.0, 2.0])
    torch.testing.assert_close(found, found.transpose(1, 2))

from __future__ import annotations

import threading

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.combine.ensemble_states import mean_states, states
from tests.conftest import Family

PROMPTS = [[5, 9, 11, 3], [7, 2], [4, 4, 8]]


@pytest.fixture
def model(llama_family: Family) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(llama_family.base).eval()


@torch.no_grad()
def test_states_are_those_of_transformers_and_no_deeper_layer_runs(model: PreTrainedModel) -> None:
    deepest, ran = model.config.num_hidden_layers, []
    for layer, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    tokens = torch.tensor([prompt + [0] * (4 - len(prompt)) for prompt in PROMPTS])
    mask = torch.tensor([[1] * len(prompt) + [0] * (4 - len(prompt)) for prompt in PROMPTS])
    whole = model.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    for layer in range(deepest + 1):
        ran.clear()
        assert torch.equal(states(model, tokens, mask, layer), whole.hidden_states[layer])
        assert ran == list(range(layer))
        means = mean_states(model, PROMPTS, layer)
        for row, prompt, mean in zip(whole.hidden_states[layer], PROMPTS, means, strict=True):
            torch.testing.assert_close(mean, row[: len(prompt)].mean(dim=0))


@torch.no_grad()
def test_another_thread_goes_on_through_all_layers(model: PreTrainedModel) -> None:
    tokens, found = torch.tensor([PROMPTS[0]]), []
    expected = model(tokens).logits

    def ask() -> None:
        with torch.no_grad():
            found.append(model(tokens).logits)

    def meanwhile(*_: object) -> None:
        if not found and threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=ask)
            other.start()
            other.join(10)

    model.model.layers[0].register_forward_pre_hook(meanwhile)
    states(model, tokens, torch.ones_like(tokens), 2)
    assert torch.equal(found[0], expected)

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from evomerge.score.forward import Forward, additive

ARCHITECTURES = ("llama", "qwen2", "gpt_neox", "gemma2")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gives_the_modules_own_logits_where_they_are_read(subject, architecture):
    module = subject(architecture).module
    forward = Forward(module)
    tokens = torch.randint(3, 200, (3, 20))
    rows = torch.tensor([0, 7, 25, 59])
    with torch.no_grad():
        expected = module(tokens).logits.reshape(-1, forward.vocabulary)[rows]
        assert torch.allclose(forward(tokens, rows), expected, atol=1e-4)
        assert not module.get_output_embeddings()._forward_pre_hooks


def test_computes_only_the_logits_that_are_read(llama):
    forward = Forward(llama.module)
    seen = []
    handle = llama.module.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: seen.append(tuple(output.shape))
    )
    forward(torch.randint(3, 200, (3, 20)), torch.tensor([5, 6]))
    handle.remove()
    assert seen == [(1, 2, 259)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probe_finds_that_masks_are_honoured(subject, architecture):
    assert Forward(subject(architecture).module).takes_masks


def test_probe_finds_that_masks_are_not_honoured():
    assert not Forward(Plain()).takes_masks


def test_a_module_without_output_embeddings_works():
    module = Plain()
    tokens = torch.randint(0, 50, (2, 4))
    expected = module(tokens).logits.reshape(-1, 50)[[1, 6]]
    assert torch.equal(Forward(module)(tokens, torch.tensor([1, 6])), expected)


def test_slopes_flow_through(llama):
    forward = Forward(llama.module)
    logits = forward(torch.randint(3, 200, (1, 8)), torch.tensor([7]))
    logits.logsumexp(1).sum().backward()
    weight = llama.module.get_output_embeddings().weight
    assert float(weight.grad.abs().sum()) > 0
    llama.module.zero_grad(set_to_none=True)


def test_windows_are_read_from_the_configuration(subject):
    assert Forward(subject("gemma2").module).window == 64
    assert Forward(subject("llama").module).window is None


def test_additive_mask():
    mask = additive(torch.tensor([True, False]), torch.float32)
    assert mask.tolist() == [0.0, torch.finfo(torch.float32).min]


class Plain(nn.Module):
    """A recurrent model: the order of tokens is all it knows, masks are none of its business."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 50)
        self.mix = nn.GRU(50, 50, batch_first=True)

    def forward(self, input_ids, **_):
        return SimpleNamespace(logits=self.mix(self.embed(input_ids))[0])

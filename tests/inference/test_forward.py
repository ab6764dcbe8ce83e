from types import SimpleNamespace

import pytest
import torch
from torch import nn

from evomerge.inference.attention import Share
from evomerge.inference.forward import Forward, additive

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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_mlp_computes_only_what_is_read(subject, architecture):
    module = subject(architecture).module
    forward = Forward(module)
    mlp = next(child for name, child in module.named_modules() if name.endswith("layers.1.mlp"))
    seen = []
    handle = mlp.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape[:2]))
    tokens, rows = torch.randint(3, 200, (3, 20)), torch.tensor([0, 7, 59])
    with torch.no_grad():
        found = forward(tokens, rows)
        expected = module(tokens).logits.reshape(-1, forward.vocabulary)[rows]
    graph = forward(tokens, rows)
    whole = forward(tokens, rows, recomputed=True)  # in a backward pass it would miss the hook
    handle.remove()
    assert seen == [(1, 3), (3, 20), (1, 3), (3, 20)]
    weights = list(module.parameters())
    gradients, others = (
        torch.autograd.grad(each.square().sum(), weights, allow_unused=True)
        for each in (graph, whole)
    )
    for one, other in zip(gradients, others, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one - other).norm() <= 1e-3 * other.norm()
    assert torch.allclose(found, expected, atol=1e-4)
    assert not mlp._forward_hooks
    assert not mlp._forward_pre_hooks


def test_a_last_mlp_that_mixes_tokens_is_left_alone(llama):
    mlp = llama.module.model.layers[-1].mlp
    mixing = mlp.register_forward_hook(lambda _, __, output: output + output.mean(1, keepdim=True))
    forward = Forward(llama.module)
    tokens = torch.randint(3, 200, (2, 9))
    with torch.no_grad():
        found = forward(tokens, torch.tensor([4]))
        expected = llama.module(tokens).logits[0, 4]
    mixing.remove()
    assert torch.allclose(found[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "cascades"),
    [("llama", True), ("qwen2", True), ("gpt_neox", True), ("gemma2", False)],
)
def test_preambles_are_attended_to_apart(subject, architecture, cascades):
    module = subject(architecture).module
    forward = Forward(module)
    assert not forward.cascades  # gradients are recorded here
    with torch.no_grad():
        assert forward.cascades == cascades
        if not cascades:
            return
        tokens = torch.randint(3, 200, (3, 20))
        tokens[:, :12] = tokens[0, :12]
        rows = torch.tensor([7, 9, 23])
        found = forward(
            tokens[:, 12:],
            rows,
            visible=torch.ones(1, 1, 8, 8, dtype=torch.bool).tril(),
            positions=torch.arange(12, 20).expand(3, -1),
            preambles=[Share(forward.read_preamble(tokens[:1, :12]), None)],
        )
        expected = module(tokens).logits[:, 12:].reshape(-1, forward.vocabulary)[rows]
    assert torch.allclose(found, expected, atol=1e-4)


def test_gradients_flow_through(llama):
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

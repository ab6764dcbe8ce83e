"""Mixed ensembles: the formula, one member alone, caches shared by all members, members that are kept."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Mix
from evomerge.combine.mixed import MixedMembers, MixedModel, mixed
from evomerge.errors import MergeError
from evomerge.inference.drafts import Drafts
from evomerge.inference.forward import Forward
from evomerge.inference.generation import Prompt, generate
from evomerge.inference.stopping import Stopping
from evomerge.merge.live import LiveModel
from evomerge.scoring import Scorer
from tests.scoring_family import ARCHITECTURES, subject, tiny_module

__all__ = ["subject"]

PREFIX = "one two three four five six seven, "
PROMPTS = [*(PREFIX * 2 + f"{n} abc"[: 3 + n % 4] for n in range(8)), "de", "fg hij kl" * 3]
METRICS = {
    "choice": ("acc", "gold_probability"),
    "written": ("exact_match,first", "gold_loglikelihood"),
    "rolling": ("gold_loglikelihood",),
}


def members(architecture: str, count: int = 3) -> list[PreTrainedModel]:
    return [tiny_module(architecture, seed=seed) for seed in range(count)]


def test_it_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 11)) * 4
    weights, temperature = (0.2, 0.5, 0.3), 1.7
    scaled = logits / temperature
    shares = np.exp(scaled) / np.exp(scaled).sum(-1, keepdims=True)
    expected = {
        "probabilities": np.log(np.einsum("m,mnv->nv", weights, shares)),
        "logits": np.einsum("m,mnv->nv", weights, scaled),
    }
    for over in expected:
        found = mixed(torch.from_numpy(logits).float(), weights, over, temperature)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected[over], rtol=1e-5, atol=1e-5)


def test_a_mix_of_half_precision_is_computed_in_single() -> None:
    logits = torch.randn(2, 3, 7).to(torch.bfloat16)
    found = mixed(logits, (0.5, 0.5))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, mixed(logits.float(), (0.5, 0.5)))
    assert mixed(logits[:1], (1.0,)).dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_member_alone_gives_its_own_logits(architecture: str) -> None:
    tokens = torch.tensor([[5, 9, 30, 7]])
    alone = [each(input_ids=tokens).logits for each in members(architecture)]
    model = MixedModel(members(architecture))
    for number, expected in enumerate(alone):
        for over in ("probabilities", "logits"):
            model.weigh({number: 1.0}, over)  # type: ignore[arg-type]
            assert torch.equal(model(input_ids=tokens).logits, expected)
    model.weigh({2: 0.5, 0: 0.5}, "logits")
    expected = 0.5 * (alone[2] + alone[0])
    torch.testing.assert_close(model(input_ids=tokens).logits, expected)


def test_equal_members_are_one_of_them() -> None:
    module = tiny_module("llama")
    model = MixedModel([module, copy.deepcopy(module)])
    model.weigh({0: 0.3, 1: 0.7})
    tokens = torch.tensor([[5, 9, 30, 7]])
    expected = module(input_ids=tokens).logits.log_softmax(-1)
    torch.testing.assert_close(model(input_ids=tokens).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_passes_read_what_is_asked_only_and_cascade(architecture: str) -> None:
    model = MixedModel(members(architecture))
    model.weigh({0: 0.2, 2: 0.8})
    forward = Forward(model)
    one = Forward(tiny_module(architecture))
    assert (forward.vocabulary, forward.takes_masks) == (one.vocabulary, one.takes_masks)
    assert forward._cascades == one._cascades
    assert len(forward._last_mlps) == 3 * len(one._last_mlps)
    tokens = torch.tensor([[5, 9, 30, 7], [6, 3, 0, 0]])
    rows = torch.tensor([1, 3, 5])
    seen = []
    heads = [each.get_output_embeddings() for each in model.mixed]
    handles = [
        head.register_forward_hook(lambda *given: seen.append(given[2].shape[1])) for head in heads
    ]
    with torch.no_grad():
        found = forward(tokens, rows)
        for handle in handles:
            handle.remove()
        expected = model(input_ids=tokens).logits.reshape(8, -1)[rows]
    assert seen == [3, 3]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def alone(module: nn.Module, stopping: Stopping, prompt: Prompt) -> list[int]:
    """Token by token, without a cache."""
    made: list[int] = []
    while len(made) < prompt.limit:
        logits = module(input_ids=torch.tensor([[*prompt.tokens, *made]])).logits
        made.append(int(logits[0, -1].argmax()))
        if made[-1] == 2 or stopping.is_over(made, prompt.rule):
            break
    return made


@pytest.mark.parametrize("over", ["probabilities", "logits"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_with_caches_is_that_without(subject: Any, architecture: str, over: Any) -> None:
    tokenizer = subject(architecture).tokenizer
    model = MixedModel(members(architecture))
    model.weigh({1: 0.5, 0: 0.2, 2: 0.3}, over)
    forward = Forward(model)
    stopping = Stopping(tokenizer, [2], forward.vocabulary)
    rule = stopping.rule(["\n", "ab"])
    prompts = [
        Prompt(tokenizer.encode(text), rule, 16 - n % 3, False) for n, text in enumerate(PROMPTS)
    ]
    sizes = {"batch_tokens": 120, "cache_tokens": 10**6}
    with torch.inference_mode():
        expected = [alone(model, stopping, prompt) for prompt in prompts]
        assert generate(forward, stopping, prompts, **sizes) == expected
        drafts = Drafts()
        generate(forward, stopping, prompts, **sizes, drafts=drafts)
        assert generate(forward, stopping, prompts, **sizes, drafts=drafts) == expected
    assert len({tuple(each) for each in expected}) > 3


def test_models_that_compute_by_the_number_of_a_layer_are_refused() -> None:
    module = tiny_module("llama")
    own = module.model.layers[1].self_attn
    own.register_forward_hook(lambda part, _, found: (found[0] * (1 + part.layer_idx), *found[1:]))
    with pytest.raises(MergeError, match="LlamaForCausalLM computes by the number of a layer"):
        MixedModel([tiny_module("llama"), module])


@pytest.fixture(scope="module")
def live(llama_family: Any) -> LiveModel:
    return LiveModel(llama_family.models, dtype="float32")


def ensemble(live: LiveModel, **mix: Any) -> Ensemble:
    base, *experts = live.checkpoints
    parents = {
        f"e{n}": Merge("passthrough", (one,), dtype="float32") for n, one in enumerate(experts)
    }
    best = Merge("linear", tuple(experts), fixed={"weight": 1.0}, dtype="float32")
    weights = mix.pop("weights")
    return Ensemble(base, {**parents, "best": best}, mix=Mix(weights, **{"top_k": 4, **mix}))


def test_members_are_those_of_the_candidate(live: LiveModel) -> None:
    tokens = torch.tensor([[5, 9, 30, 7]])
    members, expected = MixedMembers(live), {}
    made = ensemble(live, weights={"e0": 1.0})
    for name, one in made.members.items():
        live.write(one)
        expected[name] = live.module(input_ids=tokens).logits
    for name, logits in expected.items():
        model = members.build(ensemble(live, weights={name: 1.0}))
        assert torch.equal(model(input_ids=tokens).logits, logits)
    model = members.build(ensemble(live, weights={"best": 0.3, "e1": 0.6, "e2": 0.1}, top_k=2))
    shares = [expected["best"].softmax(-1) / 3, expected["e1"].softmax(-1) * 2 / 3]
    found = model(input_ids=tokens).logits.exp()
    torch.testing.assert_close(found, shares[0] + shares[1], rtol=1e-4, atol=1e-6)


def test_members_that_are_there_are_not_written_again(
    live: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Merge] = []
    own = LiveModel.write
    monkeypatch.setattr(
        LiveModel, "write", lambda self, merge: written.append(merge) or own(self, merge)
    )
    members = MixedMembers(live)
    weights = {"e0": 0.5, "e1": 0.3, "best": 0.2}
    first = members.build(ensemble(live, weights=weights))
    again = members.build(ensemble(live, weights={**weights, "best": 0.9}, over="logits"))
    assert first is again
    assert len(written) == 3
    members.build(ensemble(live, weights={"e0": 0.5, "e2": 0.3, "best": 0.2}))
    assert written[3:] == [ensemble(live, weights=weights).members["e2"]]


def test_the_order_in_which_members_came_changes_nothing(live: LiveModel) -> None:
    tokens, weights = torch.tensor([[5, 9, 30, 7]]), {"e0": 0.5, "e1": 0.3, "e2": 0.2}
    made = ensemble(live, weights=weights)
    expected = MixedMembers(live).build(made)(input_ids=tokens).logits
    other = MixedMembers(live)
    for name in ("e2", "best", "e1"):
        other.build(ensemble(live, weights={name: 1.0}))
    assert torch.equal(other.build(made)(input_ids=tokens).logits, expected)


def test_two_names_of_one_model_count_twice(live: LiveModel) -> None:
    base, one, two, *_ = live.checkpoints
    parents = {n: Merge("passthrough", (m,), dtype="float32") for n, m in (("a", one), ("b", two))}
    twice = Ensemble(
        base, {**parents, "c": parents["a"]}, mix=Mix({"a": 0.25, "b": 0.5, "c": 0.25}, top_k=3)
    )
    once = Ensemble(base, parents, mix=Mix({"a": 0.5, "b": 0.5}, top_k=2))
    tokens = torch.tensor([[5, 9, 30, 7]])
    found = [MixedMembers(live).build(each)(input_ids=tokens).logits for each in (twice, once)]
    assert torch.equal(*found)


def test_scores_of_one_member_alone_are_its_own(subject: Any) -> None:
    llama = subject("llama")
    expected = Scorer(llama.items(*METRICS)).score(tiny_module("llama", seed=1), "search", METRICS)
    for over in ("probabilities", "logits"):
        model = MixedModel(members("llama"))
        model.weigh({1: 1.0}, over)  # type: ignore[arg-type]
        found = Scorer(llama.items(*METRICS)).score(model, "search", METRICS)
        assert found.tasks == expected.tasks

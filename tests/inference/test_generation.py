import copy

import pytest
import torch
from accelerate import dispatch_model
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.inference.drafts import Drafts
from evomerge.inference.failures import Collapsed, NotFinite
from evomerge.inference.forward import Forward
from evomerge.inference.generation import Prompt, generate
from evomerge.inference.stopping import Stopping
from tests.pseudo_devices import DEVICE, pseudo_devices

PROMPTS = [f"{'abc de fg hij ' * 3}"[: 5 + 3 * (n % 9)] + str(n) for n in range(20)]


def setting(module, tokenizer, until=("\n", "ab"), limit=20):
    forward = Forward(module)
    stopping = Stopping(tokenizer, [2], forward.vocabulary)
    rule = stopping.rule(list(until))
    prompts = [
        Prompt(tokenizer.encode(text), rule, limit - n % 3, False) for n, text in enumerate(PROMPTS)
    ]
    return forward, stopping, prompts


def alone(module, stopping, prompt):
    """Token by token, without a cache."""
    tokens = list(prompt.tokens)
    made = []
    while len(made) < prompt.limit:
        made.append(int(module(torch.tensor([tokens + made])).logits[0, -1].argmax()))
        if made[-1] == 2 or stopping.is_over(made, prompt.rule):
            break
    return made


@pytest.mark.parametrize("cache_tokens", [10**6, 150])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "gemma2"])
def test_equals_each_prompt_alone(subject, architecture, cache_tokens):
    one = subject(architecture)
    forward, stopping, prompts = setting(one.module, one.tokenizer)
    with torch.inference_mode():
        found = generate(forward, stopping, prompts, batch_tokens=100, cache_tokens=cache_tokens)
        assert found == [alone(one.module, stopping, prompt) for prompt in prompts]
    assert len({len(each) for each in found}) > 1


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_equal_lengths_where_masks_or_windows_forbid_mixing(subject, architecture):
    one = subject(architecture)
    forward, stopping, prompts = setting(one.module, one.tokenizer)
    forward.takes_masks = False
    with torch.inference_mode():
        found = generate(forward, stopping, prompts, batch_tokens=100, cache_tokens=10**6)
        assert found == [alone(one.module, stopping, prompt) for prompt in prompts]


def test_a_window_shorter_than_the_sequences(subject):
    one = subject("gemma2")
    forward, stopping, prompts = setting(one.module, one.tokenizer)
    longer = [Prompt(p.tokens * 6, p.rule, p.limit, False) for p in prompts[:4]]
    assert max(len(prompt.tokens) for prompt in longer) > forward.window
    with torch.inference_mode():
        found = generate(forward, stopping, longer, batch_tokens=500, cache_tokens=10**6)
        assert found == [alone(one.module, stopping, prompt) for prompt in longer]


def test_equal_prompts_are_continued_once(llama):
    forward, stopping, prompts = setting(llama.module, llama.tokenizer)
    shapes = []
    handle = llama.module.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    with torch.inference_mode():
        found = generate(forward, stopping, prompts[:1] * 5, batch_tokens=100, cache_tokens=1000)
    handle.remove()
    assert set(shapes) == {1}
    assert found == found[:1] * 5


def test_nothing_to_continue(llama):
    forward, stopping, _ = setting(llama.module, llama.tokenizer)
    assert generate(forward, stopping, [], batch_tokens=10, cache_tokens=10) == []


def test_the_same_token_for_everyone_is_a_collapse(llama):
    forward, stopping, prompts = setting(llama.module, llama.tokenizer)
    handle = llama.module.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: torch.zeros_like(output).index_fill(-1, torch.tensor([70]), 1.0)
    )
    try:
        with torch.inference_mode(), pytest.raises(Collapsed, match="token 70 over and over"):
            generate(forward, stopping, prompts, batch_tokens=100, cache_tokens=10**6)
    finally:
        handle.remove()


def test_nan_is_found(llama):
    forward, stopping, prompts = setting(llama.module, llama.tokenizer)
    handle = llama.module.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: output * torch.nan
    )
    try:
        with torch.inference_mode(), pytest.raises(NotFinite):
            generate(forward, stopping, prompts, batch_tokens=100, cache_tokens=10**6)
    finally:
        handle.remove()


drafted = st.lists(
    st.lists(st.integers(3, 258), max_size=30) | st.tuples(st.integers(0, 20), st.integers(0, 20)),
    min_size=20,
    max_size=20,
)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "gemma2"])
def test_no_draft_changes_the_text(subject, architecture):
    one = subject(architecture)
    forward, stopping, prompts = setting(one.module, one.tokenizer)

    def generated(drafts):
        with torch.inference_mode():
            return generate(
                forward, stopping, prompts, batch_tokens=100, cache_tokens=10**4, drafts=drafts
            )

    expected = generated(None)

    @settings(max_examples=12, deadline=None)
    @given(drafted, drafted)
    def check(first, second):
        drafts = Drafts()
        for guesses in (first, second):
            for prompt, text, right in zip(prompts, guesses, expected, strict=True):
                # A tuple stands for the right text with a token changed, added or left out.
                if isinstance(text, tuple):
                    place = text[0] % len(right)
                    text = [*right[:place], 3 + text[1], *right[place + text[1] % 3 :]]
                drafts.add(prompt.key, text)
        assert generated(drafts) == expected
        assert generated(drafts) == expected

    check()


def forwards(module):
    shapes = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    return shapes, handle


def test_a_right_draft_is_read_in_one_pass(llama):
    forward, stopping, prompts = setting(llama.module, llama.tokenizer)
    drafts = Drafts()
    with torch.inference_mode():
        first = generate(
            forward, stopping, prompts, batch_tokens=5000, cache_tokens=10**4, drafts=drafts
        )
        shapes, handle = forwards(llama.module)
        again = generate(
            forward, stopping, prompts, batch_tokens=5000, cache_tokens=10**4, drafts=drafts
        )
    handle.remove()
    assert len(shapes) == 1
    assert again == first


def test_what_prompts_begin_with_is_read_once(llama):
    forward, stopping, prompts = setting(llama.module, llama.tokenizer)
    shared = [40 + n % 50 for n in range(60)]
    longer = [Prompt(shared + p.tokens, p.rule, p.limit, False) for p in prompts]
    shapes, handle = forwards(llama.module)
    with torch.inference_mode():
        found = generate(forward, stopping, longer, batch_tokens=5000, cache_tokens=10**4)
        handle.remove()
        assert found == [alone(llama.module, stopping, prompt) for prompt in longer]
    assert shapes[0][0] == 1
    assert shapes[0][1] >= len(shared)
    assert shapes[1][1] <= max(len(prompt.tokens) for prompt in longer) - len(shared)


def beginnings(prompts):
    begin = ([40 + n % 50 for n in range(60)], [50 + n % 30 for n in range(90)], [])
    return [Prompt(begin[n % 3] + p.tokens, p.rule, p.limit, False) for n, p in enumerate(prompts)]


@pytest.mark.parametrize("cascades", [True, False])
def test_layers_on_several_devices(llama, cascades, monkeypatch):
    forward, stopping, prompts = setting(llama.module, llama.tokenizer)
    mixed = beginnings(prompts)
    with torch.inference_mode():
        expected = generate(forward, stopping, mixed, batch_tokens=500, cache_tokens=10**4)
    module = copy.deepcopy(llama.module)
    names = [name for name, _ in module.named_modules() if name.count(".") == 2]
    layers = [name for name in names if ".layers." in name]
    places = {name: torch.device(DEVICE, 1 + n % 2) for n, name in enumerate(layers)}
    others = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
    places |= dict.fromkeys(others, torch.device(DEVICE, 0))
    with pseudo_devices(monkeypatch):
        dispatch_model(module, places)
        spread = Forward(module)
        assert spread._cascades
        spread._cascades &= cascades
        with torch.inference_mode():
            found = generate(spread, stopping, mixed, batch_tokens=500, cache_tokens=10**4)
    assert found == expected


@pytest.mark.parametrize("cascades", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_some_begin_with_this_some_with_that_some_with_nothing(subject, architecture, cascades):
    one = subject(architecture)
    forward, stopping, prompts = setting(one.module, one.tokenizer)
    forward._cascades &= cascades
    mixed = beginnings(prompts)
    drafts = Drafts()
    with torch.inference_mode():
        expected = [alone(one.module, stopping, prompt) for prompt in mixed]
        for number, text in enumerate(expected):  # some right, some wrong after a few tokens
            drafts.add(mixed[number].key, [*text[: number % 4], 70, *text[5:]])
        for known in (None, drafts):
            found = generate(
                forward, stopping, mixed, batch_tokens=500, cache_tokens=10**4, drafts=known
            )
            assert found == expected

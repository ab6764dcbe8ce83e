import pytest
import torch
from transformers import (
    GPTNeoConfig,
    GPTNeoForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from evomerge.errors import ModelError
from evomerge.inference.encoding import Reading
from evomerge.inference.engine import Engine
from evomerge.inference.generation import Prompt


def test_a_recurrent_model_is_refused(llama):
    config = MambaConfig(vocab_size=259, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ModelError, match="MambaForCausalLM is recurrent"):
        Engine(MambaForCausalLM(config), llama.tokenizer)


def test_a_model_with_layers_that_keep_a_state_is_refused(llama):
    config = Lfm2Config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
    )
    with pytest.raises(ModelError, match="Lfm2ForCausalLM is recurrent"):
        Engine(Lfm2ForCausalLM(config), llama.tokenizer)


@pytest.mark.parametrize("window", [16, 64])
def test_local_layers_of_gpt_neo_are_windows(llama, window):
    """Its mask counts columns of the cache, so that no two lengths go together beyond the window."""
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=llama.module.config.vocab_size,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=window,
        max_position_embeddings=256,
        intermediate_size=64,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
    )
    module = GPTNeoForCausalLM(config).eval()
    engine = Engine(module, llama.tokenizer)
    rule = engine.encoder.stopping.rule([])
    prompts = [torch.randint(3, 250, (length,)).tolist() for length in (5, 25, 60, 40)]
    readings = [
        Reading([*prompt, 7, 8][:-1], [7, 8], (), place, False)
        for place, prompt in enumerate(prompts)
        for _ in range(2)
    ]
    with torch.inference_mode():
        written = engine.write([Prompt(prompt, rule, 12, False) for prompt in prompts])
        read, _ = engine.read(engine.plan(readings), len(readings))
    for place, prompt in enumerate(prompts):
        tokens = torch.tensor([prompt])
        whole = module.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=12, do_sample=False
        )
        expected = whole[0, len(prompt) :].tolist()
        assert written[place] == expected[: len(written[place])]
        assert len(written[place]) == len(expected) or expected[len(written[place])] == 2
        with torch.inference_mode():
            logits = module(torch.tensor([[*prompt, 7]])).logits[0, -2:].log_softmax(-1)
        own = float(logits[0, 7] + logits[1, 8])
        assert read[2 * place].item() == pytest.approx(own, abs=1e-3)


def test_generation_ends_where_the_configuration_says(llama):
    ends = Engine(llama.module, llama.tokenizer).encoder.stopping.ending_tokens
    engine = Engine(llama.module, llama.tokenizer)
    assert ends(engine.encoder.stopping.rule([])) == (2,)
    before = llama.module.generation_config.eos_token_id
    try:
        llama.module.generation_config.eos_token_id = [5, 6]
        engine = Engine(llama.module, llama.tokenizer)
    finally:
        llama.module.generation_config.eos_token_id = before
    assert engine.encoder.stopping.ending_tokens(engine.encoder.stopping.rule([])) == (2, 5, 6)


def test_planned_once_read_often(llama):
    engine = Engine(llama.module, llama.tokenizer, batch_tokens=30)
    readings = [Reading([70 + i] * 9, [80], (), i, False) for i in range(7)]
    batches = engine.plan(readings)
    assert max(batch.tokens.numel() for batch in batches) <= 30
    with torch.inference_mode():
        first, second = (engine.read(batches, 7)[0].tolist() for _ in range(2))
    assert first == second
    assert engine.write([]) == []


def test_so_many_tokens_are_written_whatever_they_are(llama):
    engine = Engine(llama.module, llama.tokenizer)
    written = []
    llama.module.register_forward_pre_hook(
        lambda module, args, kwargs: written.append(1), with_kwargs=True
    )
    written.clear()
    engine.continue_by([[70, 71, 72], [73] * 9], 5)
    once = len(written)
    assert once >= 5
    engine.continue_by([[70, 71, 72], [73] * 9], 5)
    assert len(written) == 2 * once  # nothing is guessed from what was written before

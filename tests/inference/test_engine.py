import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from evomerge.errors import ModelError
from evomerge.inference.encoding import Reading
from evomerge.inference.engine import Engine


def test_a_recurrent_model_is_refused(llama):
    config = MambaConfig(vocab_size=259, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ModelError, match="MambaForCausalLM is recurrent"):
        Engine(MambaForCausalLM(config), llama.tokenizer)


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

import pytest
import torch
from transformers import GenerationConfig

from evomerge.errors import ModelError
from evomerge.inference.engine import Engine
from evomerge.inference.generation import Prompt
from evomerge.inference.processors import processors


def test_nothing_asked():
    assert processors(None) is None
    assert processors(GenerationConfig(do_sample=True, temperature=0.7, top_p=0.8)) is None


def test_what_is_not_honoured_is_refused():
    with pytest.raises(ModelError, match="asks for min_new_tokens: 3, which is not honoured"):
        processors(GenerationConfig(min_new_tokens=3))


@pytest.mark.parametrize(
    "options", [{"min_new_tokens": 1}, {"forced_eos_token_id": 1}, {"forced_bos_token_id": 0}]
)
def test_one_and_the_first_tokens_are_asked_for_too(options):
    with pytest.raises(ModelError, match="is not honoured"):
        processors(GenerationConfig(**options))


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"min_length": 1}, {"guidance_scale": 1.0}])
def test_what_changes_nothing_is_no_request(options):
    assert processors(GenerationConfig(**options)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.6},
        {"no_repeat_ngram_size": 2},
        {"suppress_tokens": list(range(60, 110))},
    ],
)
def test_texts_are_those_of_generate(llama, monkeypatch, options):
    plain = llama.module.generation_config
    config = GenerationConfig(**plain.to_dict() | options)
    prompts = ["red green blue", "seven nine", "a stone in the river"]
    with torch.inference_mode():
        unchanged = texts(llama, prompts)
        monkeypatch.setattr(llama.module, "generation_config", config)
        expected = []
        for prompt in prompts:
            tokens = llama.tokenizer(prompt, return_tensors="pt")
            made = llama.module.generate(**tokens, max_new_tokens=20, do_sample=False)
            expected.append(made[0, tokens["input_ids"].shape[1] :].tolist())
        found = texts(llama, prompts)
    assert found == expected
    assert found != unchanged


def texts(subject, prompts):
    engine = Engine(subject.module, subject.tokenizer)
    rule = engine.encoder.stopping.rule([])
    asked = [Prompt(each, rule, 20, False) for each in engine.encoder.prompts(prompts)]
    first = engine.write(asked)
    assert engine.write(asked) == first  # with drafts
    return first

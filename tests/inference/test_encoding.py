import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evomerge.errors import TaskError
from evomerge.inference.encoding import Encoder

PAIRS = [
    ("Question: what", " red"),
    ("Question: what  ", "red"),
    ("", "red apple"),
    ("", "<s>red"),
    ("<s>chat", " yes"),
    ("a\n", "b"),
]


@pytest.fixture
def encoder(llama):
    return Encoder(llama.tokenizer, llama.module.config)


def hflm_pairs(llama):
    """What HFLM hands to its own forward passes."""
    seen = []
    model = HFLM(pretrained=llama.module, tokenizer=llama.tokenizer, batch_size=1)
    model._loglikelihood_tokens = lambda requests, **_: seen.extend(requests)
    model.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in PAIRS])
    return [(context, continuation) for _, context, continuation in seen]


def test_pairs_are_hflms(llama, encoder):
    assert encoder.pairs(PAIRS) == hflm_pairs(llama)


def test_an_answer_is_what_is_generated_behind_its_prompt(llama, encoder):
    for prompt, answer in PAIRS:
        ((before, written),) = encoder.answers([(prompt, answer)])
        if prompt:  # a token is a byte here: all of it stays before the answer
            assert before == encoder.prompts([prompt])[0]
            assert llama.tokenizer.decode(written).strip() == answer.strip()
    assert encoder.answers([("a\n", "b")]) != encoder.pairs([("a\n", "b")])


def test_spaces_that_the_tokenizer_joins_with_the_answer_are_scored(encoder, monkeypatch):
    plain = Encoder.prompts
    monkeypatch.setattr(
        Encoder, "prompts", lambda self, texts: [[*each[:-1], 255] for each in plain(self, texts)]
    )
    assert encoder.answers(PAIRS[-1:]) == encoder.pairs(PAIRS[-1:])


def test_prompts_are_hflms(llama, encoder):
    model = HFLM(pretrained=llama.module, tokenizer=llama.tokenizer, batch_size=1)
    for text in ("Question", "<s>chat"):
        assert encoder.prompts([text])[0] == model.tok_batch_encode([text])[0][0].tolist()


def test_context_length_is_the_models(encoder):
    assert encoder.max_length == 256


def test_too_long_is_cut_from_the_left_as_hflm_cuts(encoder):
    context, continuation = list(range(300)), [7, 8, 9]
    (reading,) = encoder.readings([(context, continuation)], [0], [()])
    assert reading.tokens == (context + continuation)[-257:-1]
    assert reading.targets == continuation
    assert reading.truncated
    (whole,) = encoder.readings([(context[:100], continuation)], [0], [()])
    assert whole.tokens == [*context[:100], 7, 8]
    assert not whole.truncated


def test_an_end_reads_one_token_more(encoder):
    (reading,) = encoder.readings([([1, 2], [7, 8])], [0], [(5, 6)])
    assert reading.tokens == [1, 2, 7, 8]
    (cut,) = encoder.readings([([1], list(range(300)))], [0], [(5,)])
    assert len(cut.tokens) == 256
    assert len(cut.targets) + 1 == 256


def test_windows_cover_every_token_once(encoder):
    text = "word " * 120
    windows = encoder.windows(text)
    assert [token for _, targets in windows for token in targets] == encoder.encode([text])[0]
    assert all(len(context) + len(targets) - 1 <= 256 for context, targets in windows)


def test_empty_continuation(encoder):
    with pytest.raises(TaskError, match="brings no tokens"):
        encoder.pairs([("context", "")])

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from evomerge.inference.stopping import Stopping


@pytest.fixture
def stopping(llama):
    return Stopping(llama.tokenizer, [2], 259)


def token(llama, sign):
    return llama.tokenizer.encode(sign, add_special_tokens=False)[0]


def test_tables_tell_tokens_apart(llama, stopping):
    rule = stopping.rule(["\n", "ab"])
    assert rule.strings == ("\n", "ab", "</s>")
    assert bool(rule.ends[2])
    assert bool(rule.ends[token(llama, "\n")])
    assert bool(rule.may_end[token(llama, "b")])
    assert not rule.may_end[token(llama, "a")]
    assert not rule.ends[token(llama, "b")]


@given(text=st.text(alphabet="abx\n>", max_size=12))
def test_a_generation_stops_where_its_text_first_holds_a_stop_string(llama_stopping, text):
    llama, stopping = llama_stopping
    rule = stopping.rule(["\n", "ab"])
    tokens = llama.tokenizer.encode(text, add_special_tokens=False)
    expected = next(
        (n for n in range(1, len(text) + 1) if "ab" in text[:n] or "\n" in text[:n]), None
    )
    found = next(
        (
            n
            for n in range(1, len(tokens) + 1)
            if rule.ends[tokens[n - 1]]
            or (rule.may_end[tokens[n - 1]] and stopping.is_over(tokens[:n], rule))
        ),
        None,
    )
    assert found == expected
    cut = text.split("\n")[0].split("ab")[0]
    assert stopping.text(tokens, rule) == cut


@pytest.fixture(scope="module")
def llama_stopping(subject):
    llama = subject("llama")
    return llama, Stopping(llama.tokenizer, [2], 259)


def test_a_character_of_several_bytes_is_looked_at(llama, stopping):
    rule = stopping.rule(["é"])
    tokens = llama.tokenizer.encode("é", add_special_tokens=False)
    assert len(tokens) == 2
    assert bool(rule.may_end[tokens[1]])
    assert stopping.is_over(tokens, rule)
    assert not stopping.is_over(tokens[:1], rule)


def test_end_of_sequence_leaves_no_text(llama, stopping):
    rule = stopping.rule([])
    assert stopping.text([token(llama, "x"), 2], rule) == "x"


def test_tokens_that_end_an_answer(llama, stopping):
    ends = stopping.ending_tokens(stopping.rule(["ab"]))
    assert ends == tuple(sorted({2, token(llama, "a"), token(llama, "<")} - {token(llama, "<")}))


def test_rules_are_made_once(stopping):
    assert stopping.rule(["\n"]) is stopping.rule(["\n"])


def test_white_space_between_a_prompt_and_its_answer_is_kept_where_asked():
    """Tokenizers of the sentencepiece kind decode none at a text's start."""
    pieces = ["<unk>", "</s>", "\u2581France", "\u2581is", "\u2581Paris", "n", "."]
    model = models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    stopping = Stopping(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>"), [1], 7
    )
    rule = stopping.rule(["."])
    assert stopping.text([4, 6, 4], rule) == "Paris"
    assert stopping.text([4, 6, 4], rule, behind=[2, 3]) == " Paris"
    assert stopping.text([5, 1], rule, behind=[2, 3]) == "n"
    assert stopping.text([], rule, behind=[2, 3]) == ""
    assert stopping.text([4], rule, behind=[]) == "Paris"

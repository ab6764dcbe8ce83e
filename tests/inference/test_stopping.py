import pytest
from hypothesis import given
from hypothesis import strategies as st

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

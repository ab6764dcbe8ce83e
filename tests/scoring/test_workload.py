from dataclasses import replace

import pytest

from evomerge.errors import TaskError
from evomerge.inference.encoding import Encoder
from evomerge.scoring.workload import Excerpt, Need, gather, lay_out


def laid_out(llama, name, *, requests, gold, prepare=lambda task: None, search=5):
    (leaf,) = llama.items(name, search=search).leaves(name, "search")
    prepare(leaf)
    encoder = Encoder(llama.tokenizer, llama.module.config, [2], 259)
    return lay_out([Need(leaf, requests, gold)], encoder)


def test_only_what_is_needed(llama):
    assert len(laid_out(llama, "choice", requests=True, gold=True).readings) == 20
    assert len(laid_out(llama, "choice", requests=False, gold=True).readings) == 5
    work = laid_out(llama, "written", requests=False, gold=True)
    assert (len(work.readings), len(work.prompts)) == (5, 0)
    work = laid_out(llama, "written", requests=True, gold=False)
    assert (len(work.readings), len(work.prompts)) == (0, 5)


def test_choices_share_a_group_and_documents_do_not(llama):
    groups = [each.group for each in laid_out(llama, "choice", requests=True, gold=False).readings]
    assert [groups.count(group) for group in dict.fromkeys(groups)] == [4] * 5


def test_gold_answers_end_unless_the_limit_ends_them(llama):
    def long_answers(leaf):
        for doc in leaf.docs:
            doc["answer"] = "x" * (24 if doc is leaf.docs[0] else 23)

    work = laid_out(llama, "written", requests=False, gold=True, prepare=long_answers)
    assert [bool(each.ends) for each in work.readings] == [False, True, True, True, True]


def test_long_texts_are_windows(llama):
    work = laid_out(llama, "rolling", requests=True, gold=False, search=40)
    (part,) = work.parts
    assert len(work.readings) > 40
    assert sorted(set(part.of_requests)) == list(range(40))


def test_generation_that_leaves_no_room(llama):
    def greedy_for(tokens):
        def prepare(leaf):
            for requests in leaf.requests:
                requests[0].args[1]["max_gen_toks"] = tokens

        return prepare

    with pytest.raises(TaskError, match="up to 256 tokens, but the model's context is 256"):
        laid_out(llama, "written", requests=True, gold=False, prepare=greedy_for(256))
    cut = laid_out(llama, "written", requests=True, gold=False, prepare=greedy_for(250))
    assert all(len(prompt.tokens) == 6 and prompt.truncated for prompt in cut.prompts)
    assert cut.parts[0].cut == set(range(5))


@pytest.mark.parametrize(
    ("option", "message"),
    [({"do_sample": True, "temperature": 0.7}, "samples"), ({"num_beams": 3}, "num_beams")],
)
def test_only_greedy_generation(llama, option, message):
    def prepare(leaf):
        leaf.requests[0][0].args[1].update(option)

    with pytest.raises(TaskError, match=message):
        laid_out(llama, "written", requests=True, gold=False, prepare=prepare)


@pytest.mark.parametrize(
    ("name", "gold"),
    [
        ("choice", False),
        ("choice", True),
        ("written", False),
        ("written", True),
        ("rolling", False),
    ],
)
def test_excerpts_are_as_if_the_chosen_documents_had_been_laid_out_alone(llama, name, gold):
    (leaf,) = llama.items(name, search=6).leaves(name, "search")
    positions = [1, 4]
    part = replace(
        leaf,
        ids=tuple(leaf.ids[n] for n in positions),
        docs=tuple(leaf.docs[n] for n in positions),
        requests=tuple(leaf.requests[n] for n in positions),
    )
    encoder = Encoder(llama.tokenizer, llama.module.config, [2], 259)
    whole = lay_out([Need(leaf, not gold, gold)], encoder)
    alone = lay_out([Need(part, not gold, gold)] * 2, encoder)
    found = gather([Excerpt(whole, part, positions)] * 2)
    assert found.prompts == alone.prompts
    assert [replace(each, group=0) for each in found.readings] == [
        replace(each, group=0) for each in alone.readings
    ]
    assert _shape(found) == _shape(alone)
    assert found.parts == alone.parts


def _shape(work):
    """Which readings stand in one group."""
    groups = [each.group for each in work.readings]
    return [groups.index(group) for group in groups]

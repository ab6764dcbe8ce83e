import pytest

from evomerge.errors import TaskError
from evomerge.inference.encoding import Encoder
from evomerge.scoring.tokenised import TokenisedLeaf


def tokenised(llama, name, *, prepare=lambda leaf: None, search=5):
    (leaf,) = llama.items(name, search=search).leaves(name, "search")
    prepare(leaf)
    return TokenisedLeaf(leaf, Encoder(llama.tokenizer, llama.module.config, [2], 259))


def test_choices_share_a_group_and_documents_do_not(llama):
    found = tokenised(llama, "choice").requests
    assert [len(requests) for requests in found] == [4] * 5
    groups = [{reading.group for (reading,) in requests} for requests in found]
    assert all(len(each) == 1 for each in groups)
    assert len(set.union(*groups)) == 5


def test_the_gold_answer_of_a_choice_is_one_of_its_requests(llama):
    found = tokenised(llama, "choice")
    for doc, golds, requests in zip(found.leaf.docs, found.golds, found.requests, strict=True):
        assert golds is requests[doc["label"]]


def test_gold_answers_end_unless_the_limit_ends_them(llama):
    def long_answers(leaf):
        for doc in leaf.docs:
            doc["answer"] = "x" * (24 if doc is leaf.docs[0] else 23)

    golds = tokenised(llama, "written", prepare=long_answers).golds
    assert [bool(each.ends) for (each,) in golds] == [False, True, True, True, True]


def test_long_texts_are_windows(llama):
    found = tokenised(llama, "rolling", search=40).requests
    assert all(len(requests) == 1 for requests in found)
    windows = [window for (readings,) in found for window in readings]
    assert len(windows) > 40
    assert len({each.group for each in windows}) == len(windows)


def test_generation_that_leaves_no_room(llama):
    def greedy_for(tokens):
        def prepare(leaf):
            for requests in leaf.requests:
                requests[0].args[1]["max_gen_toks"] = tokens

        return prepare

    with pytest.raises(TaskError, match="up to 256 tokens, but the model's context is 256"):
        tokenised(llama, "written", prepare=greedy_for(256)).prompts  # noqa: B018
    prompts = tokenised(llama, "written", prepare=greedy_for(250)).prompts
    assert all(len(prompt.tokens) == 6 and prompt.truncated for prompt in prompts)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"do_sample": True, "temperature": 0.7}, "samples"), ({"num_beams": 3}, "num_beams")],
)
def test_only_greedy_generation(llama, option, message):
    def prepare(leaf):
        leaf.requests[0][0].args[1].update(option)

    with pytest.raises(TaskError, match=message):
        tokenised(llama, "written", prepare=prepare).prompts  # noqa: B018


@pytest.mark.parametrize("task", ["choice", "written", "rolling", "choice_shots"])
def test_contexts_are_what_stands_before_the_answer(llama, task):
    found = tokenised(llama, task, search=12)
    for context, requests in zip(found.contexts, found.leaf.requests, strict=True):
        text = str(requests[0].args[0])
        expected = llama.tokenizer(text)["input_ids"]
        if task == "rolling":
            expected = [llama.tokenizer.bos_token_id]
        assert list(context) == expected


def test_of_choices_that_begin_unlike_contexts_are_what_they_share(llama):
    def differ(leaf):
        for requests in leaf.requests:
            for request in requests[1:]:
                request.arguments = ("Question" + request.args[0], request.args[1])

    found = tokenised(llama, "choice", prepare=differ)
    shared = llama.tokenizer("Question")["input_ids"]
    assert all(list(each) == shared for each in found.contexts)

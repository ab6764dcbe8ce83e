import json

import pytest

from evomerge.errors import TaskError
from evomerge.tasks import (
    Prompts,
    PromptStyle,
    SplitPlan,
    TaskRequest,
    answers_digest,
    load_items,
    read_prompts,
    write_task,
)

PROMPTS = Prompts("jobs", ("When?", "Where to?", "Who? ", '{"a": "{{b}}"}'), 12, ("\n", "é😀"))
ANSWERS = {"When?": "2020-01-01", "Where to?": " 12", "Who? ": "[1, 2]", '{"a": "{{b}}"}': ""}


@pytest.fixture
def read(tmp_path, llama):
    def read(text):
        path = tmp_path / "p.jsonl"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_prompts(path, llama.tokenizer)

    return read


def items(folder, tokenizer, counts, **plan):
    return load_items(
        [TaskRequest("jobs", answers=str(folder))],
        tokenizer=tokenizer,
        tasks_path=None,
        plan=SplitPlan(counts, **plan),
        prompt=PromptStyle(apply_chat_template=True, system_instruction="Be brief."),
    )


def test_a_line_is_a_prompt_a_text_or_a_conversation(read):
    said = [{"role": "user", "content": "Hello"}, {"role": "system", "content": "Nod."}]
    lines = [
        {"prompt": "One", "answer": "not read"},
        {"text": "Two\n"},
        {"messages": said},
        {"text": "One"},  # again
    ]
    text = "\ufeff" + "\r\n\n".join(json.dumps(line) for line in lines) + "\n \n"
    assert read(text) == ("One", "Two\n", "user: Hello\nsystem: Nod.\nassistant: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'prompt': 1}", r"p.jsonl:2: found {'prompt': 1}, expected JSON: {\"prompt\": TEXT}"),
        ('["a"]', 'p.jsonl:2: found ["a"], expected {"prompt": TEXT}'),
        ('{"question": "a"}', "p.jsonl:2: found the fields question, expected one of prompt, text"),
        ("{}", "p.jsonl:2: found the fields none, expected one of prompt, text and messages"),
        ('{"text": "a", "prompt": "b"}', "p.jsonl:2: found the fields prompt, text, expected one"),
        ('{"prompt": 5}', "p.jsonl:2: prompt: found 5, expected a text that is not empty"),
        ('{"text": " "}', 'p.jsonl:2: text: found " ", expected a text that is not empty'),
        ('{"text": "\\ud800"}', "p.jsonl:2: text: found half a character, expected whole ones"),
        ('{"messages": []}', "p.jsonl:2: messages: found [], expected a list of"),
        ('{"messages": ["a"]}', "p.jsonl:2: messages.0.role: found null, expected a text"),
        ('{"messages": [{"role": "user"}]}', "p.jsonl:2: messages.0.content: found null, expected"),
        (
            '{"messages": [{"role": "assistant", "content": "a"}]}',
            "p.jsonl:2: messages.0.role: found the assistant's, expected one that it answers",
        ),
        ("[" * 100_000, "p.jsonl:2: found [[[[["),
    ],
)
def test_a_line_that_is_no_prompt_is_refused(read, line, message):
    with pytest.raises(TaskError) as caught:
        read('{"prompt": "fine"}\n' + line)
    assert message.replace('\\"', '"') in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n \n", b"\xff\xfe", b"\x00\xd8"])
def test_a_file_without_a_prompt_is_refused(read, content):
    with pytest.raises(TaskError, match=r"p.jsonl(:1)?: (found|cannot be read).*expected"):
        read(content)


def test_conversations_need_a_chat_template_that_takes_them(read, llama, monkeypatch):
    line = '{"messages": [{"role": "user", "content": "a"}]}'
    monkeypatch.setattr(llama.tokenizer, "chat_template", "{{ raise_exception('no users') }}")
    with pytest.raises(TaskError, match=r"p.jsonl:1: messages: the chat template refuses them: no"):
        read(line)
    monkeypatch.setattr(llama.tokenizer, "chat_template", None)
    with pytest.raises(TaskError, match=r"p.jsonl:1: .*tokenizer has none"):
        read(line)


def test_texts_stay_texts_and_prompts_are_read_as_they_stand(tmp_path, llama):
    write_task(tmp_path, PROMPTS, ANSWERS)
    (leaf,) = items(tmp_path, llama.tokenizer, {"search": None}).leaves("jobs", "search")
    assert {doc["prompt"]: doc["answer"] for doc in leaf.docs} == ANSWERS
    asked = [request.args for (request,) in leaf.requests]
    assert [context for context, _ in asked] == list(ANSWERS)
    assert all(options["until"] == ["\n", "é😀"] for _, options in asked)
    assert all(options["max_gen_toks"] == 12 for _, options in asked)
    assert leaf.gold_texts == ("2020-01-01", " 12", "[1, 2]")
    assert leaf.gold_faults == ("its gold answer (doc_to_target) is empty",)


def test_items_are_the_same_before_and_after_they_are_answered(tmp_path, llama):
    """Whatever is answered, and though only what was drawn is."""
    many = Prompts("jobs", tuple(f"Say {n} and {n}!" for n in range(40)), 8, ())
    plan = {"search": 3, "select": 4, "holdout": 5}
    write_task(tmp_path / "before", many)
    before = items(tmp_path / "before", llama.tokenizer, plan)
    drawn = [
        doc["prompt"]
        for split in plan
        for leaf in before.leaves("jobs", split)
        for doc in leaf.docs
    ]
    assert len(set(drawn)) == 12
    write_task(tmp_path / "after", many, {text: text[4:6].strip()[:1] for text in drawn})
    after = items(tmp_path / "after", llama.tokenizer, plan)
    for split in plan:
        assert after.ids("jobs", split) == before.ids("jobs", split)
    other = {"search": "train", "select": "validation", "holdout": "test"}
    spread = items(tmp_path / "after", llama.tokenizer, plan, drawn_from=other)
    ids = [spread.ids("jobs", split) for split in plan]
    assert len({each for of in ids for each in of}) == 12


def test_digests_tell_other_prompts_and_other_answers(tmp_path):
    assert PROMPTS.digest == Prompts("x", PROMPTS.texts, 12, PROMPTS.until).digest
    assert PROMPTS.digest != Prompts("jobs", PROMPTS.texts, 13, PROMPTS.until).digest
    write_task(tmp_path / "a", PROMPTS, ANSWERS)
    write_task(tmp_path / "b", PROMPTS, ANSWERS)
    write_task(tmp_path / "c", PROMPTS, {**ANSWERS, "When?": "now"})
    a, b, c = (answers_digest(tmp_path / name, "jobs") for name in "abc")
    assert a == b != c
    with pytest.raises(TaskError, match=r"jobs.parquet: cannot be read: No such file"):
        answers_digest(tmp_path, "jobs")


def test_too_few_prompts_are_told_as_of_any_task(tmp_path, llama):
    write_task(tmp_path, PROMPTS)
    with pytest.raises(TaskError, match=r'"jobs": 3 items asked for search, but only 2 of its 4'):
        items(tmp_path, llama.tokenizer, {"search": 3, "holdout": 2})

import pytest

from evomerge.errors import TaskError
from evomerge.tasks.answers import gold_of, target_text
from evomerge.tasks.requested import TaskRequest
from evomerge.tasks.tasks import load_task


def first(llama, name):
    task = load_task(TaskRequest(name), tasks_path=llama.tasks_path)
    doc = task.eval_docs[0]
    built = task.construct_requests(
        doc=doc, ctx=task.doc_to_text(doc), metadata=(name, 0, 1), apply_chat_template=False
    )
    return task, doc, built if isinstance(built, list) else [built]


def test_multiple_choice(llama):
    task, doc, requests = first(llama, "choice")
    assert gold_of(task, doc, requests, False).choices == (doc["label"],)
    with pytest.raises(TaskError, match="none of its 4 choices"):
        gold_of(task, {**doc, "label": 9}, requests, False)


def test_generative_answers_stand_where_few_shot_answers_stand(llama):
    task, doc, requests = first(llama, "written")
    context = requests[0].args[0]
    assert gold_of(task, doc, requests, False).text == (context, doc["answer"])
    task.set_config("target_delimiter", " ")
    assert gold_of(task, doc, requests, False).text == (context, " " + doc["answer"])
    assert gold_of(task, doc, requests, True).text == (context, doc["answer"])
    task.set_config("gen_prefix", "It is")
    assert gold_of(task, doc, requests, True).text == (context, " " + doc["answer"])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["one", "two"], "one"),
        (["", "two"], "two"),
        ([" ", None, "two"], "two"),
        ([3, 4], "3"),
        (["", ""], ""),
        ([], ""),
        (None, ""),
    ],
)
def test_of_several_answers_the_first_that_says_something(llama, targets, expected):
    task, doc, _ = first(llama, "written")
    assert target_text(task, {**doc, "answer": targets}) == expected


@pytest.mark.parametrize("answer", ["", " ", "\n", None, [], ["", " "]])
def test_no_answer(llama, answer):
    task, doc, requests = first(llama, "written")
    with pytest.raises(TaskError, match=r"its gold answer \(doc_to_target\) is empty"):
        gold_of(task, {**doc, "answer": answer}, requests, False)


def test_a_task_without_answers(llama):
    task, doc, requests = first(llama, "written")
    task.set_config("doc_to_target", 0)  # IFEval's way to say that there is none
    with pytest.raises(TaskError, match="a number, not a text"):
        gold_of(task, doc, requests, False)
    task.set_config("doc_to_target", "{{nothing.at.all}}")
    with pytest.raises(TaskError, match="doc_to_target gives none"):
        gold_of(task, doc, requests, False)


def test_others_have_one_answer(llama):
    task, doc, requests = first(llama, "said")
    assert gold_of(task, doc, requests, False).choices == (0,)

import json

import pytest
from datasets.exceptions import DatasetGenerationError

from evomerge.errors import TaskError
from evomerge.tasks.requested import TaskRequest
from evomerge.tasks.task_faults import described, explain
from evomerge.tasks.tasks import load_task

BODY = """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def config(**changes):
    plain = {"task": "t", "dataset_path": "json", "test_split": "test", "num_fewshot": 0}
    return {**plain, "dataset_kwargs": {"data_files": {"test": "none.jsonl"}}, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_kwargs": "hello"}, "dataset_kwargs: found 'hello', expected a mapping"),
        ({"generation_kwargs": ["x"]}, r"generation_kwargs: found \['x'\], expected a mapping"),
        ({"metric_list": "acc"}, "metric_list: found 'acc', expected a list"),
        ({"metric_list": ["acc"]}, "metric_list: found 'acc', expected {metric: NAME}"),
        ({"filter_list": {"name": "x"}}, "filter_list: found {'name': 'x'}, expected a list"),
        ({"num_fewshot": "two"}, "num_fewshot: found 'two', expected a whole number"),
        ({"num_fewshot": True}, "num_fewshot: found True"),
        ({"test_split": ["test"]}, "test_split: found .'test'., expected the name of one"),
        ({"dataset_path": None}, "dataset_path is missing"),
        ({"test_split": None}, "neither test_split nor validation_split"),
    ],
)
def test_fields(changes, message, tmp_path):
    found = explain("t", config(**changes), tmp_path / "t.yaml", ValueError("something"))
    assert found.file == str(tmp_path / "t.yaml")
    with pytest.raises(TaskError, match=message):
        raise found


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", None, "is empty; expected at least one document"),
        (b" \n\n", None, "is empty"),
        (b'{"q": 1}\n\n{"q": }\n', 3, "not valid JSON"),
        (b'{"q": 1}\n[1]\n', 2, r"found \[1\], expected a JSON object"),
        (b"[]", None, "has no documents"),
        (b"[1, 2]", None, "found 1, expected JSON objects"),
        (b"\xff\xfe\x00", None, "is not UTF-8 text"),
    ],
)
def test_data_files_are_named(content, line, message, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_bytes(content)
    files = {"dataset_kwargs": {"data_files": {"test": [str(data)]}}}
    found = explain("t", config(**files), tmp_path / "t.yaml", StopIteration())
    assert (found.file, found.line) == (str(data), line)
    with pytest.raises(TaskError, match=message + '.*task "t" takes its test documents from it'):
        raise found


def test_data_that_are_not_there(tmp_path):
    def of(path):
        return explain(
            "t", config(dataset_kwargs={"data_files": str(path)}), None, FileNotFoundError("x")
        )

    assert "no such file" in str(of(tmp_path / "none.jsonl"))
    assert "is a folder; expected a file" in str(of(tmp_path))
    hub = explain("t", config(dataset_kwargs=None), None, ConnectionError("no way there"))
    assert 'the data of task "t" are missing: no way there; fetch them first' in str(hub)


def test_what_the_data_say(tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("q,a\n")
    settings = config(dataset_path="csv", dataset_kwargs={"data_files": {"test": str(data)}})
    empty = explain("t", settings, None, ValueError('Instruction "test" corresponds to no data!'))
    assert str(empty) == f'{data}: task "t": its data have no documents'
    split = explain("t", config(test_split="tset"), None, KeyError("tset"))
    assert 'test_split is "tset", which its data do not have; they have: test' in str(split)
    error = DatasetGenerationError("An error occurred")
    error.__cause__ = RuntimeError("line one\nline two")
    assert "cannot be built: RuntimeError: line one; correct" in str(
        explain("t", settings, None, error)
    )
    unknown = TypeError("TaskConfig.__init__() got an unexpected keyword argument 'doc_to_txt'")
    assert 'unknown key "doc_to_txt"; did you mean "doc_to_text"?' in str(
        explain("t", settings, None, unknown)
    )


def test_errors_that_say_nothing():
    assert described(TypeError()) == "TypeError"
    assert described(ValueError("#####\n  !!\n what it is ")) == "ValueError: what it is"


@pytest.fixture
def folder(tmp_path):
    def write(name, rows, body=BODY):
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = f"dataset_kwargs: {{data_files: {{test: {data}}}}}"
        text = f"task: {name}\ndataset_path: json\n{files}\ntest_split: test\n{body}"
        (tmp_path / f"{name}.yaml").write_text(text)

    write("good", [{"q": "a", "a": "b"}])
    write("empty", [])
    write("metric", [{"q": "a", "a": "b"}], BODY.replace("exact_match", "exact_mtach"))
    write("mean", [{"q": "a", "a": "b"}], BODY.replace("mean", "maen"))
    (tmp_path / "both.yaml").write_text("group: both\ntask: [good, empty]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", 'empty.jsonl: is empty; .*task "empty"'),
        ("both", r'empty.jsonl: is empty; .*task "empty".*\(in group "both"\)'),
        ("metric", 'unknown metric "exact_mtach"; did you mean "exact_match"'),
        ("mean", 'unknown aggregation "maen"; did you mean "mean"'),
    ],
)
def test_a_broken_task_is_one_line(name, message, folder, capfd):
    with pytest.raises(TaskError, match=message):
        load_task(TaskRequest(name), tasks_path=str(folder))
    assert capfd.readouterr().err == ""

import os
import random

import pytest
from lm_eval.api.group import Group

from evomerge.errors import TaskError
from evomerge.tasks import tasks
from evomerge.tasks.requested import TaskRequest
from evomerge.tasks.tasks import expand, leaves, list_tasks, load_task


def load(llama, name, **options):
    return load_task(TaskRequest(name, **options), tasks_path=llama.tasks_path)


def test_lists_the_users_tasks_and_groups(llama):
    names = list_tasks(llama.tasks_path, include_defaults=False)
    assert {"choice", "both"} <= set(names)
    assert "hellaswag" not in names


def test_a_group_has_leaves(llama):
    loaded = load(llama, "both")
    assert isinstance(loaded, Group)
    assert [task.task_name for task in leaves(loaded)] == ["choice", "choice_shots"]


def test_number_of_examples_as_in_lm_eval(llama, tmp_path):
    assert load(llama, "choice").config.num_fewshot == 0
    assert load(llama, "choice", num_fewshot=2).config.num_fewshot == 2
    assert load(llama, "choice_shots").config.num_fewshot == 3
    assert load(llama, "choice_shots", num_fewshot=1).config.num_fewshot == 1


def test_unknown_task_names_the_nearest(llama, monkeypatch):
    own = tasks._manager(llama.tasks_path, False)
    monkeypatch.setattr(tasks, "_manager", lambda *_: own)  # lm-eval's own take long to index
    with pytest.raises(TaskError, match=r'unknown task "choise".*did you mean "choice"'):
        load(llama, "choise")


@pytest.mark.slow
def test_lm_evals_own_tasks_are_found_beside_the_users(llama):
    assert {"hellaswag", "choice"} <= set(list_tasks(llama.tasks_path))


def test_missing_folder():
    with pytest.raises(TaskError, match="nowhere: no such folder"):
        load_task(TaskRequest("a"), tasks_path="nowhere")


def test_broken_file_is_named(tmp_path):
    (tmp_path / "broken.yaml").write_text("task: broken\n  output_type: [")
    with pytest.raises(TaskError, match=r'broken\.yaml:2: task "broken" cannot be read'):
        load_task(TaskRequest("broken"), tasks_path=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task:\n", "task: found nothing, expected the task's name"),
        ("task: 3\n", "task: found 3, expected the task's name"),
        ("group:\ntask: [a]\n", "group: found nothing, expected the group's name"),
    ],
)
def test_a_file_beside_the_task_without_a_name_is_named(text, message, tmp_path):
    (tmp_path / "good.yaml").write_text("task: good\noutput_type: multiple_choice\n")
    (tmp_path / "nameless.yaml").write_text(text)
    with pytest.raises(TaskError, match=rf"nameless\.yaml: {message}"):
        load_task(TaskRequest("good"), tasks_path=str(tmp_path))


def test_missing_data(tmp_path):
    (tmp_path / "lost.yaml").write_text(
        "task: lost\ndataset_path: json\ntest_split: test\ndoc_to_text: x\ndoc_to_target: y\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/nothing.json}}}}\n"
        "output_type: multiple_choice\n"
    )
    with pytest.raises(
        TaskError, match=r'nothing.json: no such file; task "lost" takes its test documents'
    ):
        load_task(TaskRequest("lost"), tasks_path=str(tmp_path))


def test_a_task_that_raises(tmp_path):
    (tmp_path / "docs.py").write_text("def load(**_):\n    return {}[1]\n")
    (tmp_path / "raises.yaml").write_text(
        "task: raises\ncustom_dataset: !function docs.load\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: x\ndoc_to_target: y\n"
    )
    with pytest.raises(TaskError, match=r'raises\.yaml: task "raises" cannot be built: KeyError'):
        load_task(TaskRequest("raises"), tasks_path=str(tmp_path))


def test_unsafe_code_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "0")
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL")
    (tmp_path / "unsafe.yaml").write_text(
        "task: unsafe\nunsafe_code: true\noutput_type: nonsense\n"
    )
    with pytest.raises(
        TaskError, match=r"executes code.*--allow-unsafe-code.*allow_unsafe_code: true"
    ):
        load_task(TaskRequest("unsafe"), tasks_path=str(tmp_path))
    with pytest.raises(TaskError, match="dataset_path is missing"):
        load_task(TaskRequest("unsafe"), tasks_path=str(tmp_path), allow_unsafe_code=True)
    assert os.environ["HF_ALLOW_CODE_EVAL"] == "1"


def test_a_tag_is_no_task(tmp_path, llama):
    (tmp_path / "one.yaml").write_text("task: one\ntag: some\noutput_type: multiple_choice\n")
    with pytest.raises(TaskError, match=r'"some" is a tag.*one'):
        load_task(TaskRequest("some"), tasks_path=str(tmp_path))


def test_names_stand_for_tasks_as_in_lm_eval(llama, monkeypatch):
    own = tasks._manager(llama.tasks_path, False)
    monkeypatch.setattr(tasks, "_manager", lambda *_: own)  # lm-eval's own take long to index
    assert expand(["marked", "choice", "judged"], llama.tasks_path) == (
        "acc_only",
        "judged",
        "choice",
    )
    assert expand(["choic*"], llama.tasks_path) == ("choice", "choice_shots")
    assert expand(["mark*"], llama.tasks_path) == ("acc_only", "judged")
    with pytest.raises(TaskError, match='no task is called anything like "nothing_at_all_'):
        expand(["nothing_at_all_*"], llama.tasks_path)
    with pytest.raises(TaskError, match=r'unknown task "chioce".*did you mean "choice"'):
        expand(["chioce"], llama.tasks_path)


def test_leaves_the_callers_random_numbers_alone(llama):
    random.seed(5)
    expected = random.Random(5).random()
    load(llama, "choice")
    assert random.random() == expected

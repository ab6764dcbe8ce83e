import lm_eval
from lm_eval.tasks import TaskManager

from evomerge.tasks import Prompts, write_task
from evomerge.tasks.teacher_task import process_results


def test_white_space_around_an_answer_does_not_matter():
    assert process_results({"answer": " a b"}, ["a b\n"]) == {"teacher_match": 1.0}
    assert process_results({"answer": "a b"}, ["a  b"]) == {"teacher_match": 0.0}
    assert process_results({"answer": ""}, [" "]) == {"teacher_match": 1.0}


def test_lm_eval_runs_the_task_by_itself(tmp_path):
    write_task(tmp_path, Prompts("mine", ("a", "b"), 8, ()), {"a": "lol", "b": "other"})
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate("dummy", tasks=["mine"], task_manager=manager, batch_size=1)
    assert found["results"]["mine"]["teacher_match,none"] == 0.5  # it always says lol

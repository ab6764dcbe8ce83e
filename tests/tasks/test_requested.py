import pickle

from evomerge.tasks.requested import PromptStyle, SplitPlan, TaskRequest


def test_travels_to_a_worker():
    asked = (
        TaskRequest("a", 3),
        PromptStyle(True),
        SplitPlan({"search": 4}, 1, {"search": "train"}),
    )
    assert pickle.loads(pickle.dumps(asked)) == asked


def test_defaults_leave_lm_evals_prompts_alone():
    assert PromptStyle() == PromptStyle(False, False, None)
    assert TaskRequest("a").num_fewshot is None

import pickle
from dataclasses import fields
from inspect import signature

from lm_eval import simple_evaluate

from evomerge.tasks.requested import PromptStyle, SplitPlan, TaskRequest


def test_travels_to_a_worker():
    asked = (
        TaskRequest("a", 3),
        PromptStyle(True),
        SplitPlan({"search": 4}, 1, {"search": "train"}),
    )
    assert pickle.loads(pickle.dumps(asked)) == asked


def test_defaults_leave_lm_evals_prompts_alone():
    stock = signature(simple_evaluate).parameters
    for field in fields(PromptStyle):
        assert field.default == stock[field.name].default
    assert TaskRequest("a").num_fewshot is None

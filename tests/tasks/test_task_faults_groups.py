from dataclasses import dataclass, field

import pytest

from evomerge.errors import TaskError
from evomerge.tasks.task_faults import check_members, reached


@dataclass
class Entry:
    """As lm-eval's."""

    cfg: dict | None
    yaml_path: str | None = "file.yaml"
    tags: set = field(default_factory=set)


def index(**groups):
    tasks = {name: Entry({"task": name}) for name in ("a", "b", "c")}
    tag = {"marked": Entry(None, None, {"c", "b"})}
    return tasks | tag | {name: Entry({"group": name, **rest}) for name, rest in groups.items()}


def test_everything_that_a_group_contains_is_reached_once():
    inner = {"group": "inline", "task": ["b", {"task": "a", "num_fewshot": 2}]}
    own = {"task": "own", "dataset_path": "json"}
    found = index(
        outer={"task": ["inner", inner, own, "marked"]}, inner={"task": ["a", {"group": "leaf"}]}
    ) | {"leaf": Entry({"group": "leaf", "task": ["c"]})}
    assert list(reached("outer", found)) == ["outer", "inner", "a", "leaf", "c", "b", "marked"]
    assert list(reached("a", found)) == ["a"]
    check_members("outer", found)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"task": []}, 'group "g": task: found nothing, expected a list of its tasks'),
        ({}, "found nothing"),
        ({"task": "a"}, "found 'a', expected a list"),
        ({"task": ["a", 3]}, "found 3, expected a name, or {task: NAME, ...}"),
        ({"task": ["a", "g"]}, 'group "g" contains itself'),
        ({"task": ["a", "marke"]}, 'contains an unknown task "marke"; did you mean "marked"'),
        (
            {"task": ["a"], "aggregate_metric_list": "acc"},
            "aggregate_metric_list: found 'acc', expected a list of {metric: NAME}",
        ),
    ],
)
def test_groups_that_are_none(group, message):
    with pytest.raises(TaskError, match=message) as caught:
        check_members("g", index(g=group))
    assert caught.value.file == "file.yaml"

from pathlib import Path

import pytest

from evomerge import yaml_file
from evomerge.config import Campaign, Range, ScorerSettings
from evomerge.errors import CampaignError

TEXT = """\
name: small
models:
  base: zoo:base
  experts: [zoo:facts, {model: zoo:tools, name: caller}]
  dtype: float32
space:
  method: [ties, linear]
  layers: 2
  components: [mlp]
  parameters:
    weight: {low: 0.0, high: 1.2}
    density: 0.5
objectives:
  - {task: zoo_facts, metric: gold_loglikelihood, report: exact_match}
  - {task: zoo_tools, metric: exact_match}
items: {search: 8, select: 8, holdout: 16, from: {search: validation}}
"""


def load(text, folder=Path("/campaigns")):
    document = yaml_file.parse(text, path=folder / "c.yaml", kind=CampaignError)
    return Campaign.from_document(document)


def test_a_campaign_is_read_with_its_defaults():
    campaign = load(TEXT)
    assert campaign.expert_names() == ("facts", "caller")
    assert campaign.space.method == ("ties", "linear")
    assert campaign.space.parameters["weight"] == Range(low=0.0, high=1.2)
    assert campaign.space.parameters["density"] == 0.5
    assert [goal.report for goal in campaign.objectives] == ["exact_match", "exact_match"]
    assert campaign.items.drawn_from.search == "validation"
    assert campaign.out == str(Path("/campaigns/results/small").resolve())


def test_written_with_every_default_it_is_the_same_campaign():
    campaign = load(TEXT)
    text = campaign.to_yaml()
    assert "finalists: 8" in text
    assert load(text, Path("/elsewhere")) == campaign


def test_relative_paths_are_taken_from_the_files_folder(tmp_path):
    (tmp_path / "model").mkdir()
    text = TEXT.replace("zoo:base", "model").replace("zoo:facts,", "org/model,")
    campaign = load(text + "tasks_path: ../tasks\nout: ../out\n", tmp_path)
    assert campaign.models.base == str(tmp_path / "model")
    assert campaign.models.experts[0].model == "org/model"  # a Hub id
    assert campaign.tasks_path == str(tmp_path.parent / "tasks")
    assert campaign.out == str(tmp_path.parent / "out")


def test_the_command_line_overrides_only_what_it_says():
    campaign = load(TEXT)
    changed = campaign.override(trials=5, seed=3, workers=0, out=Path("/tmp/x"))
    assert (changed.search.trials, changed.search.seed, changed.workers.count) == (5, 3, 0)
    assert changed.out == "/tmp/x"
    assert campaign.override() == campaign


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layers:", "layer:", 'c.yaml:8: space.layer: unknown key "layer"; did you mean "layers"?'),
        ("name: small", "nmae: small", 'c.yaml:1: nmae: unknown key "nmae"; did you mean "name"?'),
        (
            "low: 0.0",
            "low: 2.0",
            "space.parameters.weight: an empty range: low 2 is not below high 1.2",
        ),
        ("low: 0.0", "low: .inf", "c.yaml:11: space.parameters.weight.low: found Infinity"),
        (
            "float32",
            "float8",
            'c.yaml:5: models.dtype: found "float8", expected one of float32, bfloat16',
        ),
        ("layers: 2", "layers: two", 'c.yaml:8: space.layers: found "two", expected'),
        ("metric: exact_match", "weight: 1", "c.yaml:15: objectives.1.metric: is missing"),
        (
            "zoo_tools",
            "zoo_facts",
            'c.yaml:15: objectives.1.task: task "zoo_facts" is given twice; one objective a task',
        ),
        ("name: caller", "name: facts", 'experts.1.name: two experts are called "facts"'),
        ("name: caller", "name: base", 'no expert may be called "base"'),
        ("search: 8", "search: 0", "c.yaml:16: items.search: found 0, expected at least 1"),
        ("from:", "form:", 'items.form: unknown key "form"; did you mean "from"?'),
        ("[ties, linear]", "[]", "c.yaml:7: space.method: found []"),
    ],
)
def test_wrong_input_is_one_line_with_file_line_and_field(old, new, message):
    assert old in TEXT
    with pytest.raises(CampaignError) as caught:
        load(TEXT.replace(old, new, 1))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "items:",
            "keep:\n  - {task: zoo_facts, at_least: 1}\n  - at_least: 1\n    task: zoo_tool\nitems:",
            '19: keep.1.task: task "zoo_tool" is none of the objectives; did you mean "zoo_tools"?',
        ),
        (
            "items:",
            "mode: pareto\nsearch:\n  trials: 5\n  target: 0.5\nitems:",
            "19: search.target: a target is one value, and a Pareto front has several; it needs "
            "mode: mean",
        ),
        (
            "{low: 0.0, high: 1.2}",
            "\n      low: 0.0\n      high: 1.2\n      experts:\n        facts: 1\n        calller: 0.5",
            '16: space.parameters.weight.experts.calller: unknown expert "calller"; did you mean '
            '"caller"?',
        ),
    ],
)
def test_a_rule_over_several_sections_names_the_field_and_its_line(old, new, message):
    assert TEXT.count(old) == 1
    with pytest.raises(CampaignError) as caught:
        load(TEXT.replace(old, new))
    assert str(caught.value) == f"/campaigns/c.yaml:{message}"


def test_a_log_range_needs_a_positive_low():
    with pytest.raises(ValueError, match="log range needs low above 0"):
        Range(low=0.0, high=1.0, log=True)


def test_arguments_of_a_backend_need_one():
    with pytest.raises(ValueError, match="give backend too"):
        ScorerSettings(args={"batch_size": 4})
    assert ScorerSettings(backend="hf", args={"batch_size": 4}).backend == "hf"

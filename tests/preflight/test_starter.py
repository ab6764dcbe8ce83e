import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge import yaml_file
from evomerge.config import Campaign
from evomerge.errors import CampaignError, ModelError, TaskError
from evomerge.preflight import starter
from evomerge.preflight.check import preflight

TASKS = "benchmarks/tasks"


def test_what_is_written_for_the_zoo_is_accepted_by_check(tmp_path, pytestconfig):
    output = tmp_path / "mine.yaml"
    tasks = pytestconfig.rootpath / TASKS
    starter.write(output, "zoo:base", ["zoo:facts", "zoo:tools"], [], tasks)
    campaign = Campaign.load(output)
    assert campaign.name == "mine"
    assert [goal.task for goal in campaign.objectives] == ["zoo_facts", "zoo_tools"]
    assert campaign.objectives[0].metric == "exact_match"
    on_gpu = torch.cuda.is_available()
    assert campaign.models.dtype == ("bfloat16" if on_gpu else "float32")
    assert campaign.workers.gpus == on_gpu
    assert campaign.search.sampler == "auto"
    assert campaign.items.search == 64
    assert preflight(campaign, output).space.distributions


def test_models_of_one_name_are_told_apart(tmp_path, llama_family, pytestconfig):
    folders = [tmp_path / run / "last" for run in ("a", "b")]
    for folder, expert in zip(folders, llama_family.experts, strict=False):
        shutil.copytree(expert, folder)
    output = tmp_path / "c.yaml"
    tasks = pytestconfig.rootpath / TASKS
    starter.write(output, llama_family.base, [str(f) for f in folders], ["zoo_facts"], tasks)
    campaign = Campaign.load(output)
    assert campaign.expert_names() == ("last", "last-2")
    assert [expert.model for expert in campaign.models.experts] == [str(f) for f in folders]


def test_every_line_of_settings_is_commented(tmp_path, pytestconfig):
    output = tmp_path / "c.yaml"
    starter.write(output, "zoo:base", ["zoo:facts"], ["zoo_facts"], pytestconfig.rootpath / TASKS)
    assert output.read_text().count("#") >= 10


def test_local_models_are_written_as_seen_from_the_file(tmp_path, llama_family, pytestconfig):
    output = tmp_path / "c.yaml"
    tasks = pytestconfig.rootpath / TASKS
    starter.write(output, llama_family.base, [llama_family.experts[0]], ["zoo_facts"], tasks)
    assert Campaign.load(output).models.base == llama_family.base


def test_models_and_adapters_are_written_as_seen_from_the_file_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "runs/lora"):
        (tmp_path / name).mkdir(parents=True)
    output = tmp_path / "runs" / "c.yaml"
    assert starter._from(output, "base+runs/lora") == f"{tmp_path / 'base'}+./lora"
    assert starter._from(output, "org/name+runs/lora") == "org/name+./lora"
    assert starter._from(output, "zoo:base") == "zoo:base"


def test_an_existing_file_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("mine")
    with pytest.raises(CampaignError, match="exists already"):
        starter.write(tmp_path / "c.yaml", "zoo:base", ["zoo:facts"], [], None)
    assert (tmp_path / "c.yaml").read_text() == "mine"


def test_models_and_tasks_are_checked_before_anything_is_written(tmp_path, pytestconfig):
    tasks = pytestconfig.rootpath / TASKS
    with pytest.raises(ModelError):
        starter.write(tmp_path / "c.yaml", "zoo:base", ["zoo:nothing"], [], tasks)
    with pytest.raises(TaskError, match="zoo_fact"):
        starter.write(tmp_path / "c.yaml", "zoo:base", ["zoo:facts"], ["zoo_fact"], tasks)
    assert not (tmp_path / "c.yaml").exists()


TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
{filters}
"""
TWO_FILTERS = """\
filter_list:
  - {name: strict-match, filter: [{function: take_first}]}
  - {name: loose, filter: [{function: take_first}]}
"""


def make_task(folder, name, documents, filters=""):
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    lines = [json.dumps({"q": f"{name} {i}?", "a": str(i)}) for i in range(documents)]
    data.write_text("\n".join(lines) + "\n")
    text = TASK.format(name=name, data=data, filters=filters)
    (folder / f"{name}.yaml").write_text(text)


def test_a_metric_with_a_filter_is_quoted_and_a_small_task_gets_fewer_items(tmp_path, llama_family):
    make_task(tmp_path / "tasks", "sums", 40, TWO_FILTERS)
    output = tmp_path / "my file.yaml"
    starter.write(
        output, llama_family.base, list(llama_family.experts), ["sums"], tmp_path / "tasks"
    )
    campaign = Campaign.load(output)
    assert campaign.objectives[0].metric == "exact_match,strict-match"
    items = campaign.items
    assert 1 <= items.search <= items.holdout
    assert items.search + items.select + items.holdout <= 40
    preflight(campaign, output)


def test_tasks_that_nobody_named_are_those_of_the_folder(tmp_path, llama_family):
    experts = list(llama_family.experts)
    for name in ("sums", "x_expert1"):
        make_task(tmp_path / "tasks", name, 12)
    starter.write(tmp_path / "a.yaml", llama_family.base, experts, [], tmp_path / "tasks")
    named = Campaign.load(tmp_path / "a.yaml").objectives
    assert [goal.task for goal in named] == ["x_expert1"]
    starter.write(tmp_path / "b.yaml", llama_family.base, experts[:1], [], tmp_path / "tasks")
    everything = Campaign.load(tmp_path / "b.yaml").objectives
    assert [goal.task for goal in everything] == ["sums", "x_expert1"]


def test_without_any_task_it_says_what_to_name_and_writes_nothing(tmp_path, llama_family):
    for tasks_path in (None, tmp_path):
        with pytest.raises(TaskError, match="--tasks A,B"):
            starter.write(
                tmp_path / "c.yaml", llama_family.base, [llama_family.experts[0]], [], tasks_path
            )
    assert list(tmp_path.iterdir()) == []


def test_what_check_refuses_is_not_written(tmp_path, llama_family):
    make_task(tmp_path / "tasks", "tiny", 2)
    with pytest.raises(TaskError, match="2 documents, too few for three splits"):
        starter.write(
            tmp_path / "c.yaml",
            llama_family.base,
            [llama_family.experts[0]],
            ["tiny"],
            tmp_path / "tasks",
        )
    assert not (tmp_path / "c.yaml").exists()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"a": (1000,), "b": (328,)}, {"search": 64, "select": 64, "holdout": 200}),
        ({"a": (1000,), "b": (41,)}, {"search": 8, "select": 8, "holdout": 25}),
        ({"a": (3,)}, {"search": 1, "select": 1, "holdout": 1}),
        ({"a": (2,)}, None),
        ({"group": (5,) * 20}, {"search": 20, "select": 20, "holdout": 60}),
        ({"group": (2,) * 20}, None),
        ({"group": (10,) * 30}, {"search": 58, "select": 58, "holdout": 184}),
        ({"group": (5,) * 90}, {"search": 90, "select": 90, "holdout": 200}),
    ],
)
def test_items_of_tasks(sizes, expected):
    if expected is None:
        with pytest.raises(TaskError):
            starter.items_of(sizes)
    else:
        assert starter.items_of(sizes) == expected


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_quoted_text_reads_back_as_itself(text):
    document = yaml_file.parse(f"flow: [{{key: {starter.quoted(text)}, other: 1}}]\n")
    assert document.data == {"flow": [{"key": text, "other": 1}]}

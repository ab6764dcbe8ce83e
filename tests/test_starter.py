import pytest

from evomerge import starter
from evomerge.campaign import Campaign
from evomerge.check import preflight
from evomerge.errors import CampaignError, ModelError, TaskError

TASKS = "benchmarks/tasks"


def test_what_is_written_for_the_zoo_is_accepted_by_check(tmp_path, pytestconfig):
    output = tmp_path / "mine.yaml"
    tasks = pytestconfig.rootpath / TASKS
    starter.write(output, "zoo:base", ["zoo:facts", "zoo:tools"], [], tasks)
    campaign = Campaign.load(output)
    assert campaign.name == "mine"
    assert [goal.task for goal in campaign.objectives] == ["zoo_facts", "zoo_tools"]
    assert campaign.objectives[0].metric == "exact_match"
    assert campaign.models.dtype == "bfloat16"  # as the models are
    assert preflight(campaign, output).space.distributions


def test_every_line_of_settings_is_commented(tmp_path, pytestconfig):
    output = tmp_path / "c.yaml"
    starter.write(output, "zoo:base", ["zoo:facts"], ["zoo_facts"], pytestconfig.rootpath / TASKS)
    assert output.read_text().count("#") >= 10


def test_local_models_are_written_as_seen_from_the_file(tmp_path, llama_family, pytestconfig):
    output = tmp_path / "c.yaml"
    tasks = pytestconfig.rootpath / TASKS
    starter.write(output, llama_family.base, [llama_family.experts[0]], ["zoo_facts"], tasks)
    assert Campaign.load(output).models.base == llama_family.base


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

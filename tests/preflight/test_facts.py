import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from evomerge.config import Campaign, Models
from evomerge.errors import ResultsError
from evomerge.preflight.check import preflight
from evomerge.preflight.facts import LIBRARIES, facts_of, refuse_changes
from evomerge.preflight.family import open_family

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ready():
    return preflight(
        Campaign.model_validate(
            {
                "name": "small",
                "models": {"base": "zoo:base", "experts": ["zoo:facts"], "dtype": "float32"},
                "space": {"method": "linear", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
                "objectives": [{"task": "zoo_facts", "metric": "gold_loglikelihood"}],
                "tasks_path": str(ROOT / "benchmarks" / "tasks"),
                "items": {"search": 4, "select": 3, "holdout": 2},
                "out": "/out",
            }
        )
    )


@pytest.fixture
def facts(ready):
    return facts_of(ready)


def test_facts_are_json_and_name_all_that_results_depend_on(ready, facts):
    assert json.loads(json.dumps(facts)) == facts
    assert set(facts["models"]) == {"base", "expert:facts"}
    assert facts["revisions"] == {}
    assert set(facts["versions"]) == set(LIBRARIES)
    counts = {split: len(ids) for split, ids in facts["items"]["zoo_facts"].items()}
    assert counts == {"search": 4, "select": 3, "holdout": 2}
    assert facts["higher_is_better"]["zoo_facts"]["gold_loglikelihood"] is True
    assert len(facts["size"]["layers"]) == ready.family.family.num_layers
    assert facts["first"] == []
    assert facts_of(ready, [{"weight/facts": 0.5}])["first"] == [{"weight/facts": 0.5}]


def test_what_did_not_change_goes_on(facts):
    store = SimpleNamespace(facts=facts, folder=Path("/out"))
    assert refuse_changes(store, copy.deepcopy(facts)) == []


def changed(facts, *path):
    now = copy.deepcopy(facts)
    place = now
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "other"
    return now


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("models", "base"), 'the models changed since the campaign began: "base"'),
        (("models", "expert:facts"), 'the models changed since the campaign began: "facts"'),
        (
            ("items", "zoo_facts"),
            'the items changed since the campaign began: "zoo_facts" is drawn from other documents',
        ),
    ],
)
def test_what_changed_is_named(facts, path, message):
    store = SimpleNamespace(facts=facts, folder=Path("/out"))
    with pytest.raises(ResultsError, match=message):
        refuse_changes(store, changed(facts, *path))


def test_other_items_are_named_before_the_prompts_that_follow_from_them(facts):
    store = SimpleNamespace(facts=facts, folder=Path("/out"))
    now = changed(changed(facts, "prompts", "zoo_facts"), "items", "zoo_facts")
    with pytest.raises(ResultsError, match=r"the items changed .*an earlier version drew it apart"):
        refuse_changes(store, now)


def test_changed_prompts_are_named(facts):
    store = SimpleNamespace(facts=facts, folder=Path("/out"))
    for name in facts["prompts"]:
        with pytest.raises(ResultsError, match=f'the prompts changed .*"{name}"'):
            refuse_changes(store, changed(facts, "prompts", name))
    assert facts["prompts"]


@pytest.mark.parametrize(
    ("library", "old", "new", "refused"),
    [
        ("optuna", "5.0.0", "5.1.0", False),
        ("optuna", "5.0.0", "6.0.0", True),
        ("lm_eval", "0.4.9", "0.4.10", True),
        ("torch", "2.0", "3.0", False),
        ("transformers", "4.1", "5.0", False),
        ("tokenizers", "0.21", "0.22", False),
    ],
)
def test_versions_that_matter_are_compared(facts, library, old, new, refused):
    before, now = copy.deepcopy(facts), copy.deepcopy(facts)
    before["versions"][library], now["versions"][library] = old, new
    store = SimpleNamespace(facts=before, folder=Path("/out"))
    if refused:
        with pytest.raises(ResultsError, match=f"install {library}=={old} to resume it"):
            refuse_changes(store, now)
    else:
        warnings = refuse_changes(store, now)
        said = f"the campaign ran with {library} {old} (now {new}): scores from now on may differ"
        assert [warning.startswith(said) for warning in warnings] == [True]
        del before["versions"][library]  # an older campaign did not record it
        if library != "optuna":
            assert refuse_changes(store, now) == []


@pytest.fixture
def hub(tmp_path, monkeypatch, llama_family):
    """A cache of the Hub with one model, `org/expert`, at two commits: `hub(commit)` moves `main`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--org--expert"

    def move(commit, source):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        snapshot = repository / "snapshots" / commit
        if not snapshot.exists():
            shutil.copytree(source, snapshot)
        models = {"base": llama_family.base, "experts": ["org/expert"], "dtype": "float32"}
        return open_family(Models.model_validate(models))

    return move


def test_a_hub_model_that_moved_is_noticed(facts, ready, hub, llama_family):
    first, second, third = ("1" * 40, "2" * 40, "3" * 40)
    found = {
        first: hub(first, llama_family.experts[0]),
        second: hub(second, llama_family.experts[0]),
        third: hub(third, llama_family.experts[1]),
    }
    now = {commit: facts_of(replace(ready, family=family)) for commit, family in found.items()}
    assert now[first]["revisions"] == {"expert:expert": first}
    store = SimpleNamespace(facts=now[first], folder=Path("/out"))
    assert refuse_changes(store, now[first]) == []
    (warning,) = refuse_changes(store, now[second])
    assert warning == (
        f"expert moved on the Hub from {first} to {second}; the files that count are the same"
    )
    with pytest.raises(
        ResultsError, match=f'"expert" is not what it was.*{first} to {third}; MODEL@'
    ):
        refuse_changes(store, now[third])

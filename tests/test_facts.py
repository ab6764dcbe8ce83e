import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from evomerge.campaign import Campaign
from evomerge.check import preflight
from evomerge.errors import ResultsError
from evomerge.facts import facts_of, refuse_changes

ROOT = Path(__file__).parents[1]


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
    assert set(facts["models"]) == {"base", "facts"}
    assert {"torch", "optuna", "lm_eval", "transformers", "evomerge"} == set(facts["versions"])
    counts = {split: len(ids) for split, ids in facts["items"]["zoo_facts"].items()}
    assert counts == {"search": 4, "select": 3, "holdout": 2}
    assert facts["higher_is_better"]["zoo_facts"]["gold_loglikelihood"] is True
    assert len(facts["size"]["layers"]) == ready.family.family.num_layers
    assert facts["first"] == []
    assert facts_of(ready, [{"weight/facts": 0.5}])["first"] == [{"weight/facts": 0.5}]


def test_what_did_not_change_goes_on(facts):
    refuse_changes(SimpleNamespace(facts=facts, folder=Path("/out")), copy.deepcopy(facts))


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
        (("models", "facts"), 'the models changed since the campaign began: "facts"'),
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
        refuse_changes(store, now)

"""Stacks as a kind: their space, and campaigns of them from start to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import evomerge
from evomerge import yaml_file
from evomerge.candidate import Merge, PathStep, Stack
from evomerge.candidate.trial import FailureKind
from evomerge.config import Campaign, SpaceSettings
from evomerge.errors import CampaignError, RecipeError
from evomerge.kinds import KINDS, Kind
from evomerge.space import Family
from evomerge.space.stack import StackSpace
from evomerge.store import Store
from evomerge.testing.kinds import KindSuite
from tests.small_campaign import TEXT

MERGES = TEXT[TEXT.index("  method:") : TEXT.index("objectives:")]
MODELS = Family("/base", {"one": "/one", "two": "/two"}, 4, "float32", model_type="llama")


class TestStack(KindSuite):
    @pytest.fixture
    def name(self) -> str:
        return "stack"

    @pytest.fixture
    def kind(self) -> Kind:
        return KINDS["stack"]

    @pytest.fixture(
        params=[
            {},
            {"order": "members", "repeats": 2, "parameters": {"scale": {"low": 0.5, "high": 1.5}}},
            {"members": ["base", "two", "best"], "layers": 2, "parameters": {"scale": 0.9}},
        ],
        ids=["defaults", "members first", "hybrid"],
    )
    def settings(self, request: pytest.FixtureRequest) -> SpaceSettings:
        return SpaceSettings(kind="stack", **request.param)


def space(family: Family = MODELS, **settings: Any) -> StackSpace:
    given = SpaceSettings(kind="stack", **settings)
    KINDS["stack"].check(given)
    return KINDS["stack"].space(given, family, 0)


@pytest.mark.parametrize("order", ["members", "layers"])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("layers", ["each", 2])
def test_every_parents_own_path_is_a_point_and_comes_first(order, repeats, layers):
    searched = space(
        members=["base", "one", "two"],
        order=order,
        repeats=repeats,
        layers=layers,
        parameters={"scale": {"low": 0.5, "high": 2.0, "log": True}},
    )
    paths = [searched.path(point) for point in searched.first()]
    assert paths == [
        tuple(PathStep(name, layer) for layer in range(4)) for name in ("base", "one", "two")
    ]
    known = {row.name: row.params for row in searched.baselines()}
    assert [known[name] for name in ("base", "one", "two")] == list(searched.first())


def test_members_first_is_the_data_flow_space():
    searched = space(order="members", repeats=2, layers=2, parameters={"scale": 0.5})
    on = {"include/one/0-2/1", "include/two/2-4/1", "include/one/0-2/2", "include/one/2-4/2"}
    assert len(searched.distributions) == 8
    point = {name: 0.5 if name in on else 0.49 for name in searched.distributions}
    assert searched.path(point) == (
        ("one", 0, 1.0),
        ("one", 1, 1.0),
        ("two", 2, 0.5),
        ("two", 3, 1.0),
        ("one", 0, 0.5),
        ("one", 1, 1.0),
        ("one", 2, 1.0),
        ("one", 3, 1.0),
    )


def test_layer_by_layer_the_highest_score_wins():
    searched = space(layers="each", members=["one", "two"])
    point = dict.fromkeys(searched.distributions, 0.1)
    point |= {"one/0-1": 0.2, "two/1-2": 0.2, "skip/2-3": 0.2, "two/3-4": 0.15}
    assert searched.path(point) == (("one", 0, 1.0), ("two", 1, 1.0), ("two", 3, 1.0))


def test_a_point_without_layers_is_a_candidate_that_fails():
    searched = space(order="members")
    nothing = dict.fromkeys(searched.distributions, 0.0)
    assert searched.candidate(nothing) == Stack("/base", {}, ())


def test_best_is_the_merge_that_the_campaign_has():
    mix = Merge("linear", ("/one", "/two"), fixed={"weight": 1.0}, dtype="float32")
    searched = space(members=["one", "best"])
    point = searched.own_path("best")
    assert searched.candidate(point, best=mix).members == {"best": mix}
    assert searched.candidate(point).members == {
        "best": Merge("passthrough", ("/base",), dtype="float32")
    }


def test_a_file_of_merges_names_every_model(tmp_path):
    mix = Merge("task_arithmetic", ("/one", "/two"), "/base", fixed={"weight": 0.5})
    made = space(members=["one", "best"]).candidate(
        {**space(members=["one", "best"]).own_path("best"), "one/0-1": 1.0}, best=mix
    )
    (tmp_path / "recipe.yaml").write_text(made.file())
    first, last = yaml_file.read_all(tmp_path / "recipe.yaml", RecipeError)
    assert first.data["name"] == "best"
    assert [one["sources"][0]["model"] for one in last.data["slices"]] == ["/one", "best"]


def test_how_much_memory_the_deepest_path_takes():
    assert space().needs.whole_models == 2
    assert space(repeats=3).needs.whole_models == 4
    assert space(order="members", repeats=2).needs.whole_models == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": ["one", "tow"]}, r'space.members.1: "tow" is no member; did you mean "two"'),
        ({"parameters": {"weight": 1.0}}, r'parameters.weight: unknown parameter "weight"'),
        ({"parameters": {"scale": {"low": 0.0, "high": 2.0}}}, r"scale.low: found 0, expected"),
        ({"parameters": {"scale": -1.0}}, r"parameters.scale: found -1, expected a scale above 0"),
        ({"parameters": {"scale": True}}, r"parameters.scale: found True, expected a number"),
        (
            {"parameters": {"scale": {"low": 0.5, "high": 2.0, "per": ["layer"]}}},
            r"scale.per: per is of merges",
        ),
        ({"layers": 5}, r"space.layers: found 5 groups, but the models have 4 layers"),
    ],
)
def test_what_is_wrong_with_a_space_is_said(settings, message):
    with pytest.raises(CampaignError, match=message):
        space(**settings)


@pytest.mark.parametrize("name", ["best", "skip"])
def test_an_expert_may_not_be_called_as_what_else_can_be_chosen(name):
    with pytest.raises(CampaignError, match=f'models.experts: an expert is called "{name}"'):
        space(replace(MODELS, experts={name: "/one"}))


def test_scales_of_models_that_cannot_have_them_are_refused_by_name():
    gemma = replace(MODELS, model_type="gemma2")
    with pytest.raises(CampaignError, match=r"scale: the scale .* a gemma2 model.*leave scale out"):
        space(gemma, parameters={"scale": {"low": 0.5, "high": 2.0}})
    assert space(gemma, parameters={"scale": 1.0}).distributions


def test_keys_of_other_kinds_and_faults_of_the_form_name_file_and_line(tmp_path):
    for line, message in {
        "components: [mlp]": "takes no components",
        "repeats: 0": "space.repeats: found 0",
        "order: sideways": "space.order",
        "members: [facts, facts]": 'member "facts" is given twice',
        "members: [maths]": '"maths" is no member',
    }.items():
        (tmp_path / "c.yaml").write_text(TEXT.replace(MERGES, f"  kind: stack\n  {line}\n"))
        with pytest.raises(CampaignError, match=rf"c.yaml:\d+: .*{message}"):
            evomerge.check(tmp_path / "c.yaml")


def campaign(folder: Path, keys: str = "", sampler: str = "tpe") -> Campaign:
    text = TEXT.replace(MERGES, f"  kind: stack\n{keys}").replace(
        "sampler: cmaes", f"sampler: {sampler}"
    )
    (folder / "c.yaml").write_text(text.replace("trials: 6", "trials: 8"))
    return Campaign.load(folder / "c.yaml")


def best_of(rows: list[Any], role: str) -> float:
    """Return the best mean over the tasks, on the search items, of the rows of a role."""
    found = [row.outcome.scores for row in rows if (row.kind, row.split) == (role, "search")]
    each = [[one.values["gold_loglikelihood"].value for one in scores.values()] for scores in found]
    return max(sum(values) / len(values) for values in each)


@pytest.mark.parametrize(
    "keys",
    ["", "  members: [facts, best]\n  repeats: 2\n  parameters: {scale: {low: 0.8, high: 1.2}}\n"],
    ids=["parents", "hybrid"],
)
def test_a_campaign_is_searched_resumed_saved_and_scored_again(keys, tmp_path):
    result = evomerge.search(campaign(tmp_path, keys))
    result = evomerge.resume(result.folder, trials=2)
    with Store.open(result.folder, write=False) as store:
        trials = store.trials()
        rows = store.evaluations()
    assert len(trials) == 10
    found = [trial.values[0] for trial in trials if trial.values]
    assert max(found) >= best_of(rows, "expert")
    if keys:  # what it is made over is the best merge of all
        assert max(found) >= best_of(rows, "baseline")

    best = result.best.candidate
    assert isinstance(best, Stack)
    saved = load_file(result.folder / "best" / "model.safetensors")
    evomerge.merge(result.folder / "best" / "recipe.yaml", tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert saved.keys() == again.keys()
    assert all(saved[name].equal(again[name]) for name in saved)
    scored = evomerge.score(str(result.folder / "best"), campaign=result.folder, split="holdout")
    kept = next(row for row in rows if row.number == result.best.number and row.split == "holdout")
    for task, scores in kept.outcome.scores.items():
        for metric, values in scores.metrics.items():
            assert scored.scored.tasks[task].metrics[metric] == values


def test_an_empty_path_is_a_failure_with_its_reason(tmp_path):
    result = evomerge.search(
        campaign(tmp_path, "  members: [facts]\n  layers: 1\n  order: members\n", "random")
    )
    with Store.open(result.folder, write=False) as store:
        trials = store.trials()
    empty = [trial for trial in trials if not trial.candidate.path]
    assert empty
    for trial in empty:
        assert trial.outcome.failure.kind is FailureKind.MERGE
        assert trial.outcome.failure.reason == "the path has no layers; expected one at least"

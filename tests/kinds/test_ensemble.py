"""The kind `ensemble`: its space, and campaigns of routed and of mixed ensembles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evomerge
from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble
from evomerge.config import SpaceSettings
from evomerge.errors import CampaignError
from evomerge.kinds import KINDS, Kind
from evomerge.space import Family
from evomerge.store import Store
from evomerge.testing.kinds import KindSuite
from tests.small_campaign import TEXT

MERGES = TEXT[TEXT.index("  method:") : TEXT.index("objectives:")]
FAMILY = Family("/base", {"one": "/one", "two": "/two"}, num_layers=4, dtype="float32")
BEST = Merge("task_arithmetic", ("/one", "/two"), "/base", fixed={"weight": 0.4})


class _Suite(KindSuite):
    @pytest.fixture
    def name(self) -> str:
        return "ensemble"

    @pytest.fixture
    def kind(self) -> Kind:
        return KINDS["ensemble"]


class TestRouted(_Suite):
    @pytest.fixture(params=[{}, {"members": ["two", "one"], "parameters": {"layer": 2}}])
    def settings(self, request: pytest.FixtureRequest) -> SpaceSettings:
        margin = {"margin": {"low": 0, "high": 2}}
        given = {**request.param, "parameters": {**request.param.get("parameters", {}), **margin}}
        return SpaceSettings(kind="ensemble", **given)


class TestMixed(_Suite):
    @pytest.fixture(
        params=[
            {},
            {"over": "logits", "members": ["one", "two", "base"]},
            {
                "parameters": {
                    "top_k": {"low": 1, "high": 3},
                    "temperature": {"low": 0.5, "high": 2},
                }
            },
        ]
    )
    def settings(self, request: pytest.FixtureRequest) -> SpaceSettings:
        return SpaceSettings(kind="ensemble", combiner="mix", **request.param)


def space(**settings: Any) -> Any:
    return KINDS["ensemble"].space(SpaceSettings(kind="ensemble", **settings), FAMILY, 0)


def test_a_router_is_searched_by_layer_and_margin() -> None:
    found = space()
    ranges = {name: (one.low, one.high) for name, one in found.distributions.items()}
    assert ranges == {"layer": (0, 4), "margin": (0, 1)}
    made = found.candidate({"layer": 2.6, "margin": 0.25}, best=BEST)
    assert isinstance(made, Ensemble)
    assert made.router is not None
    assert (made.router.layer, made.router.margin, made.router.fallback) == (3, 0.25, "best")
    assert list(made.members) == ["base", "one", "two", "best"]
    assert made.members["best"] == BEST
    assert made.members["one"] == Merge("passthrough", ("/one",), dtype="float32")
    assert (found.needs.prompts, found.needs.scores, found.needs.whole_models) == (True, True, 1)
    without = space(members=["one", "two"]).candidate({"layer": 0, "margin": 0}, best=BEST)
    assert without.router.fallback is None
    assert list(without.members) == ["one", "two"]


def test_before_a_merge_was_scored_the_average_stands_for_the_best() -> None:
    (average,) = [one for one in space().baselines() if one.name == "uniform average"]
    assert space().candidate({"layer": 0, "margin": 0}).members["best"] == average.candidate


def test_margins_that_are_nearly_the_same_are_one_finalist() -> None:
    def content(**point: float) -> Any:
        return KINDS["ensemble"].content(space().candidate({"layer": 2, **point}), {})

    assert content(margin=0.31) == content(margin=0.29)
    assert content(margin=0.31) != content(margin=0.4)
    assert content(margin=0.31) != content(margin=0.31, layer=3)


def test_a_mix_is_searched_by_weights() -> None:
    found = space(combiner="mix", over="logits")
    assert list(found.distributions) == [f"weight/{m}" for m in ("base", "one", "two", "best")]
    point = {"weight/base": 0.0, "weight/one": 0.3, "weight/two": 0.1, "weight/best": 0.0}
    mix = found.candidate(point, best=BEST).mix
    assert mix.running == pytest.approx({"one": 0.75, "two": 0.25})
    assert (mix.over, mix.top_k, mix.temperature) == ("logits", 4, 1.0)
    equal = found.candidate(dict.fromkeys(point, 0.0)).mix
    assert set(equal.running.values()) == {0.25}
    assert found.needs.whole_models == 5
    assert not found.needs.prompts


def test_parents_lie_in_the_space_of_a_mix() -> None:
    found = space(combiner="mix", members=["one", "base"])
    points = {one.name: one.params for one in found.baselines()}
    assert points["one"] == {"weight/one": 1.0, "weight/base": 0.0}
    assert points["base"] == {"weight/one": 0.0, "weight/base": 1.0}
    assert points["two"] is None
    assert points["ties"] is None
    for parameters in ({"weight": {"low": 0.1, "high": 1}}, {"temperature": 2.0}):
        narrow = space(combiner="mix", members=["one", "base"], parameters=parameters)
        assert all(one.params is None for one in narrow.baselines())


def campaign_file(folder: Path, more: str = "", sampler: str = "random") -> Path:
    text = TEXT.replace(MERGES, f"  kind: ensemble\n{more}")
    (folder / "c.yaml").write_text(text.replace("sampler: cmaes", f"sampler: {sampler}"))
    return folder / "c.yaml"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("  members: [base, fact]\n", r'members.1: "fact" is no member; did you mean "facts"'),
        ("  members: [facts, facts]\n", r'space.members.1: member "facts" is given twice'),
        ("  over: logits\n", r"space.over: over is of a mix, and the combiner is a router"),
        ("  combiner: vote\n", r"c.yaml:\d+: space.combiner: found \"vote\", expected"),
        (
            "  parameters: {layers: {low: 0, high: 1}}\n",
            r'space.parameters.layers: unknown parameter "layers" of a router; did you mean "layer"',
        ),
        (
            "  parameters: {weight: {low: 0, high: 1}}\n",
            r'parameters.weight: unknown parameter "weight" of a router',
        ),
        ("  parameters: {layer: 9}\n", r"parameters.layer: found 9, expected 4 at most"),
        ("  parameters: {margin: -1}\n", r"parameters.margin: found -1, expected 0 or more"),
        ("  parameters: {margin: true}\n", r"parameters.margin: found True, expected a number"),
        (
            "  combiner: mix\n  parameters: {top_k: {low: 1, high: 5}}\n",
            r"parameters.top_k.high: found 5, expected 4 at most, the number of the members",
        ),
        (
            "  combiner: mix\n  parameters: {top_k: {low: 0, high: 2}}\n",
            r"parameters.top_k.low: found 0, expected 1 or more",
        ),
        (
            "  combiner: mix\n  parameters: {weight: {low: 0, high: 1, per: [layer]}}\n",
            r"parameters.weight.per: per is of merges",
        ),
        ("  layers: 2\n", r'space.layers: the kind "ensemble" takes no layers'),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, more: str, message: str) -> None:
    file = campaign_file(tmp_path, more)
    with pytest.raises(CampaignError, match=message) as error:
        evomerge.check(file)
    assert "\n" not in str(error.value)


def test_the_gradient_sampler_is_refused_and_auto_takes_another(tmp_path: Path) -> None:
    file = campaign_file(tmp_path, sampler="gradient")
    with pytest.raises(CampaignError, match=r'found "gradient", but no searched number has one'):
        evomerge.check(file)
    assert evomerge.check(campaign_file(tmp_path, sampler="auto")).dimensions == 2


@pytest.fixture(scope="module", params=["tpe", "cmaes"])
def routed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return evomerge.search(campaign_file(tmp_path_factory.mktemp("routed"), sampler=request.param))


def test_a_campaign_of_routed_ensembles_ends_in_a_fitted_one(routed: Any) -> None:
    with Store.open(routed.folder, write=False) as store:
        trials, rows = store.trials(), store.evaluations()
    assert [one.state for one in trials] == ["complete"] * 6
    for trial in trials:
        assert trial.candidate.fit.members == 4  # type: ignore[attr-defined]
    known = {row.candidate.text(): row.outcome for row in rows if row.split == "search"}
    for trial in trials:
        assert trial.outcome is not None
        for task, scores in trial.outcome.scores.items():
            (metric,) = scores.metrics
            members = [
                known[one.text()].scores[task].metrics[metric]
                for one in trial.candidate.scored_members.values()
            ]
            routes = trial.outcome.routes[task]
            taken = tuple(members[route][n] for n, route in enumerate(routes))
            assert scores.metrics[metric] == taken
    best = routed.best.candidate
    assert isinstance(best, Ensemble)
    assert best.fit is not None
    assert (routed.folder / "best" / "combiner.json").is_file()
    assert (routed.folder / "best" / "router.safetensors").read_bytes() == best.fit.content


def test_the_router_sends_each_task_to_its_expert(routed: Any) -> None:
    with Store.open(routed.folder, write=False) as store:
        rows = [one for one in store.evaluations() if one.split == "holdout"]
    (winner,) = [one for one in rows if one.kind == "winner"]
    scores = {one.key: one.outcome.scores for one in rows}
    for expert in ("facts", "translation"):
        task = f"zoo_{expert}"
        own = scores[f"expert:{expert}"][task].values["gold_loglikelihood"].value
        found = winner.outcome.scores[task].values["gold_loglikelihood"].value
        assert found > own - 0.05


def test_a_campaign_of_mixed_ensembles(tmp_path: Path) -> None:
    file = campaign_file(tmp_path, "  combiner: mix\n  members: [facts, translation]\n", "tpe")
    result = evomerge.search(file)
    with Store.open(result.folder, write=False) as store:
        trials, rows = store.trials(), store.evaluations()
    assert [one.state for one in trials] == ["complete"] * 6
    (winner,) = [one for one in rows if one.kind == "winner" and one.split == "select"]
    assert winner.candidate.mix is not None  # type: ignore[attr-defined]
    assert (result.folder / "best" / "combiner.json").is_file()


def test_a_router_learns_from_merges_that_were_not_searched_on_its_items(tmp_path: Path) -> None:
    space = """
  - {method: task_arithmetic, layers: each, parameters: {weight: {low: 0.0, high: 1.2}}}
  - {kind: ensemble}
"""
    text = TEXT.replace("space:\n" + MERGES, f"space:{space}")
    text = text.replace("sampler: cmaes, trials: 6", "sampler: gradient, trials: 12")
    (tmp_path / "c.yaml").write_text(text)
    result = evomerge.search(tmp_path / "c.yaml")
    with Store.open(result.folder, write=False) as store:
        trials, rows = store.trials(), store.evaluations()
    known = [row for row in rows if row.split == "search"]
    value = {
        row.candidate.text(): sum(
            scores.values["gold_loglikelihood"].value for scores in row.outcome.scores.values()
        )
        for row in known
    }
    naive = max(value, key=value.__getitem__)
    ensembles = [one for one in trials if one.candidate.kind == "ensemble"]
    merges = [one.values for one in trials if one.candidate.kind == "merge"]
    assert ensembles
    assert max(merges) > (value[naive] / 2,)  # type: ignore[type-var]
    for one in ensembles:
        assert one.candidate.members["best"].text() == naive  # type: ignore[attr-defined]

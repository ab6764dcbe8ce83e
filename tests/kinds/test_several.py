"""A list of spaces: kinds that compete in one campaign."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import evomerge
import evomerge.result
from evomerge.candidate import Size
from evomerge.config import Campaign, Range, SpaceSettings
from evomerge.errors import CampaignError
from evomerge.kinds import KINDS, space_of
from evomerge.report.layout import layout
from evomerge.space import Family, SeveralSpaces, in_one_space
from evomerge.space.mixture import MixtureSpace
from evomerge.store import Store
from tests.kinds.pair import PairKind
from tests.kinds.single import SingleKind
from tests.small_campaign import TEXT, changed

MERGES = TEXT[TEXT.index("  method:") : TEXT.index("objectives:")]
WEIGHT = {"weight": {"low": 0.0, "high": 1.2}}
MERGE = {"method": "task_arithmetic", "parameters": WEIGHT}
LIST = """\
  - {method: [task_arithmetic, linear], layers: 2, parameters: {weight: {low: 0.0, high: 1.2}}}
  - kind: single
  - kind: pair
"""


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "single", SingleKind())
    monkeypatch.setitem(KINDS, "pair", PairKind())


@pytest.fixture
def family() -> Family:
    return Family("/base", {"one": "/one", "two": "/two"}, num_layers=4, dtype="float32")


def spaces(*parts: dict[str, object]) -> SpaceSettings:
    return SpaceSettings(kind="several", spaces=tuple(SpaceSettings(**part) for part in parts))  # type: ignore[arg-type]


def campaign(folder: Path) -> Campaign:
    (folder / "c.yaml").write_text(TEXT.replace(MERGES, LIST))
    return Campaign.load(folder / "c.yaml")


def middle(space: SeveralSpaces) -> dict[str, float]:
    return {at: (one.low + one.high) / 2 for at, one in space.distributions.items()}


def test_a_point_is_a_candidate_of_the_kind_with_the_highest_score(family: Family) -> None:
    space = space_of(spaces(MERGE, {"kind": "single"}, MERGE), family, 0)
    assert isinstance(space, SeveralSpaces)
    assert list(space.spaces) == ["merge1", "single", "merge2"]
    assert list(space.distributions)[:4] == [
        "kind/merge1",
        "kind/single",
        "kind/merge2",
        "merge1/weight/one",
    ]
    assert "single/expert" in space.distributions
    point = middle(space)
    assert space.candidate(point).kind == "merge"  # of equals the first
    point |= {"kind/single": 0.6, "single/expert": 0.9}
    assert space.candidate(point) == KINDS["single"].space(
        SpaceSettings(kind="single"), family, 0
    ).candidate({"expert": 0.9})
    point |= {"kind/merge2": 0.7, "merge2/weight/one": 0.25, "merge1/weight/one": 1.0}
    assert space.candidate(point).own["weight"] == (((0.25, 0.6),),)  # type: ignore[attr-defined]


def test_gradients_are_those_of_the_chosen_kind(family: Family) -> None:
    space = space_of(spaces(MERGE, {"kind": "single"}), family, 0)
    assert space.differentiable == ("merge/weight/one", "merge/weight/two")
    assert space.takes_rows
    found = evomerge.candidate.trial.Gradients(numbers={"weight": (((1.0, 2.0),),)})
    point = middle(space)  # type: ignore[arg-type]
    assert space.gradient(point, found) == {"merge/weight/one": 1.0, "merge/weight/two": 2.0}
    assert set(space.gradient({**point, "kind/single": 1.0}, found).values()) == {0.0}


def test_parents_are_rows_once_and_lie_in_all_spaces_that_have_them(family: Family) -> None:
    dare = {"method": "dare_linear", "parameters": {**WEIGHT, "density": {"low": 0.1, "high": 1.0}}}
    space = space_of(spaces({"kind": "single"}, dare, MERGE), family, 0)
    assert isinstance(space, SeveralSpaces)
    rows = {row.name: row for row in space.baselines()}
    assert len(rows) == len(space.baselines())
    alone = {row.name: row for row in space.spaces["merge2"].baselines()}
    assert {name: row.candidate for name, row in rows.items()} == {
        name: row.candidate for name, row in alone.items()
    }
    assert space.regions is not None
    found = {name: (row.params, *row.also_at) for name, row in rows.items() if row.params}
    arms = {}
    for name, points in found.items():
        assert all(point.keys() == space.distributions.keys() for point in points if point)
        arms[name] = [space.regions.at(point).arm for point in points if point]
    assert arms["one"] == ["single", "merge1/dare_linear", "merge2/task_arithmetic"]
    assert arms["task arithmetic λ=0.4"] == ["merge1/dare_linear", "merge2/task_arithmetic"]


def test_a_search_begins_with_points_that_are_no_parents(family: Family) -> None:
    members = ["one", "two"]
    stack = {"kind": "stack", "members": members}
    space = space_of(spaces(MERGE, stack), family, 0)
    assert isinstance(space, SeveralSpaces)
    assert len(space.spaces["stack"].first()) == 2
    assert space.first() == ()  # the parents' own paths are known
    assert space.regions is not None
    waiting = space_of(spaces(MERGE, {**stack, "members": [*members, "best"]}), family, 0)
    assert waiting.needs.best_merge
    assert waiting.first() == ()
    assert waiting.regions is not None
    (arm,) = [one for one in waiting.regions.first() if one.arm == "stack"]
    made = waiting.candidate(waiting.regions.default_point(arm))
    assert made.kind == "stack"


def test_needs_are_those_of_all(family: Family) -> None:
    needs = space_of(spaces(MERGE, {"kind": "pair"}), family, 0).needs
    assert (needs.prompts, needs.scores, needs.whole_models) == (True, True, 1)
    mix = {"kind": "ensemble", "combiner": "mix", "members": ["one", "two"]}
    alone = [space_of(SpaceSettings(**one), family, 0).needs for one in (mix, {"kind": "stack"})]  # type: ignore[arg-type]
    both = space_of(spaces(mix, {"kind": "stack"}), family, 0).needs
    assert both.whole_models == sum(one.whole_models for one in alone) - 1


def test_an_earlier_point_is_taken_over_by_the_kind_that_has_it(family: Family) -> None:
    earlier = Campaign.model_validate(
        {
            "name": "earlier",
            "models": {"base": "/base", "experts": ["/one", "/two"]},
            "space": [{"kind": "single"}, MERGE],
            "objectives": [{"task": "t", "metric": "acc"}],
        }
    )
    before = space_of(earlier.space, family, 0)
    now = space_of(spaces(MERGE, {"kind": "single"}), family, 0)
    assert isinstance(before, SeveralSpaces)
    assert isinstance(now, SeveralSpaces)
    point = before.whole("merge", {"weight/one": 0.3, "weight/two": 0.4})
    found = now.taken_over(*in_one_space(earlier, point))
    assert found == now.whole("merge", {"weight/one": 0.3, "weight/two": 0.4})
    of_other = before.whole("single", {"expert": 0.1})
    assert now.taken_over(*in_one_space(earlier, of_other)) is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (LIST.replace("kind: pair", "kind: pear"), r'c.yaml:9: space.2.kind: unknown kind "pear"'),
        (LIST.replace("linear]", "lineer]"), r"c.yaml:7: space.0.method: .*lineer"),
        (
            LIST.replace("single", "single\n    layers: 2"),
            r'c.yaml:9: space.1.layers: the kind "single" takes no layers',
        ),
        (
            LIST.replace("layers: 2", "layers: 9"),
            r"c.yaml:7: space.0.layers: ",
        ),
    ],
)
def test_what_is_wrong_in_one_of_them_is_named_there(
    tmp_path: Path, space: str, message: str
) -> None:
    (tmp_path / "c.yaml").write_text(TEXT.replace(MERGES, space))
    with pytest.raises(CampaignError, match=message):
        evomerge.check(tmp_path / "c.yaml")


def test_a_campaign_of_several_kinds_searches_all_resumes_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = campaign(tmp_path)
    settings = changed(settings, tmp_path / "out", trials=9, sampler="cmaes")
    result = evomerge.search(settings)
    with Store.open(result.folder, write=False) as store:
        trials = store.trials()
    kinds = Counter(trial.candidate.kind for trial in trials)
    assert set(kinds) == {"merge", "single", "pair"}
    assert all(trial.state in ("complete", "pruned") for trial in trials)
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert {row["serving"]["relative_parameters"] for row in board["rows"]} == {1.0}
    again = evomerge.resume(result.folder, trials=2)
    with Store.open(again.folder, write=False) as store:
        assert [one.form for one in store.trials()[:9]] == [one.form for one in trials]
        assert len(store.trials()) == 11


def test_merges_descend_where_other_kinds_have_no_gradient(tmp_path: Path) -> None:
    settings = campaign(tmp_path)
    settings = changed(settings, tmp_path / "out", trials=16, sampler="gradient")
    notes = " ".join(evomerge.check(settings).warnings)
    assert "single and pair: no gradient; CMA-ES searches there" in notes
    result = evomerge.search(settings)
    with Store.open(result.folder, write=False) as store:
        steps = store.gradient_steps()
        kinds = {trial.number: trial.candidate.kind for trial in store.trials()}
        selected = [one.number for one in store.evaluations() if one.split == "select"]
    assert steps
    assert not any(step.failure for step in steps)
    assert set(kinds.values()) == {"merge", "single", "pair"}
    # However well merges do on the items that they learn from, the best of each kind is a finalist.
    finalists = {kinds[number] for number in selected if number is not None}
    assert finalists == {"merge", "pair"}  # what is single is a parent, which was scored before


TRADEOFF = """\
  - {method: task_arithmetic, parameters: {weight: {low: 0.0, high: 1.2}}}
  - {kind: ensemble, members: [facts, translation, best]}
  - {kind: stack, members: [facts, translation]}
"""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> evomerge.result.Result:
    """A campaign of three kinds that ends in a front of quality and what a token takes."""
    folder = tmp_path_factory.mktemp("front")
    text = TEXT.replace(MERGES, TRADEOFF).replace("sampler: cmaes, trials: 6", "trials: 12")
    more = "mode: tradeoff\ncosts: [{cost: active_parameters}]\n"
    more += "keep: [{cost: time, at_most: 20}, {cost: parameters, at_most: 4}]\n"
    text = text.replace("search: {", "search: {sampler: nsga2, ")
    (folder / "c.yaml").write_text(text + more)
    return evomerge.search(Campaign.load(folder / "c.yaml"))


def test_a_tradeoff_of_several_kinds_is_a_front_of_quality_and_cost(
    front: evomerge.result.Result,
) -> None:
    with Store.open(front.folder, write=False) as store:
        trials = store.trials()
        size = Size.from_json(store.facts["size"])
    assert {trial.state for trial in trials} == {"complete"}
    assert {trial.candidate.kind for trial in trials} == {"merge", "ensemble", "stack"}
    for trial in trials:
        assert trial.values is not None
        assert trial.values[1] == pytest.approx(trial.candidate.active(size))
        assert trial.outcome is not None
        assert (trial.outcome.timing is None) == (trial.candidate.kind == "merge")
    written = json.loads((front.folder / "front.json").read_text())
    assert [one["name"] for one in written["objectives"]] == ["mean", "active_parameters"]
    directions = [one["splits"]["search"]["direction"] for one in written["objectives"]]
    assert directions == ["maximize", "minimize"]
    values = [tuple(one["values"]["search"].values()) for one in written["members"]]
    for quality, cost in values:
        assert not any(q >= quality and c <= cost and (q, c) != (quality, cost) for q, c in values)


def test_the_best_of_each_kind_comes_first_on_select(front: evomerge.result.Result) -> None:
    with Store.open(front.folder, write=False) as store:
        rows = [
            one for one in store.evaluations() if one.split == "select" and one.number is not None
        ]
    assert len(rows) == 2  # finalists
    assert len({one.candidate.kind for one in rows}) == 2


def test_every_row_says_what_it_takes_to_serve(front: evomerge.result.Result) -> None:
    rows = json.loads((front.folder / "leaderboard.json").read_text())["rows"]
    base = rows[0]["serving"]
    assert base["relative_time"] == 1.0
    assert base["milliseconds"] > 0
    assert base["tokens_per_second"] > 0
    assert base["bytes"] == 4 * base["parameters"]
    for row in rows:
        needed = row["serving"]
        if row["kind"] in ("base", "expert", "baseline"):
            assert needed == base
        if "kind: ensemble" in row["recipe"]:
            assert needed["relative_parameters"] >= 2
            assert 1 <= needed["relative_active"] <= 2
            assert needed["relative_time"] > 0.5
    headers = layout(evomerge.report(front.folder), "select").headers
    assert {"parameters", "active parameters", "time"} <= set(headers)  # asked for, or unlike


def test_an_earlier_point_of_a_mixture_is_brought_into_narrower_ranges(family: Family) -> None:
    settings = {
        "top_k": Range(low=2, high=3),
        "temperature": Range(low=0.05, high=0.3, log=True),
        "share": 0.0,
    }
    space = MixtureSpace(family, tuple(family.experts), settings)
    assert space.taken_over(Campaign.model_construct(), {"top_k": 1.2, "temperature": 0.9}) == {
        "top_k": space.distributions["top_k"].low,
        "temperature": 0.3,
    }
    assert space.taken_over(Campaign.model_construct(), {"top_k": 2.0}) is None

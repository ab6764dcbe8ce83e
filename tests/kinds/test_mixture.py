from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.candidate import Merge
from evomerge.config import Range, SpaceSettings
from evomerge.errors import CampaignError, ModelError, RecipeError
from evomerge.kinds import KINDS, check_base
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.space import Family
from evomerge.testing.kinds import KindSuite
from tests.combine.mixtures import model_of

KIND = KINDS["mixture"]
FAMILY = Family("/base", {"one": "/one", "two": "/two"}, num_layers=4, dtype="float32")


class TestByDefault(KindSuite):
    @pytest.fixture
    def name(self) -> str:
        return "mixture"

    @pytest.fixture
    def kind(self) -> Any:
        return KIND


class TestOverAMergeMethod(TestByDefault):
    @pytest.fixture
    def settings(self) -> SpaceSettings:
        return SpaceSettings(
            kind="mixture",
            members=("one", "best", "base"),
            shared="task_arithmetic",
            layers=2,
            components=("self_attn",),
            parameters={
                "weight": Range(low=0, high=1),
                "share": Range(low=0.1, high=0.5),
                "top_k": Range(low=1, high=3),
                "temperature": 0.3,
            },
        )


def space_of(family: Family = FAMILY, **settings: Any) -> Any:
    found = SpaceSettings(kind="mixture", **settings)
    KIND.check(found)
    return KIND.space(found, family, 0)


def test_each_whole_number_has_an_equal_part() -> None:
    space = space_of(parameters={"top_k": {"low": 1, "high": 2}, "temperature": 1.0})
    found = space.distributions["top_k"]
    assert (found.low, found.high) == (0.5, 2.5)
    counts = {at: space.candidate({"top_k": at}).top_k for at in (0.5, 1.4, 1.5, 2.4, 2.5)}
    assert counts == {0.5: 1, 1.4: 1, 1.5: 2, 2.4: 2, 2.5: 2}


def test_what_is_shared_is_the_best_merge_so_far() -> None:
    space, point = space_of(), {"top_k": 1.0, "temperature": 0.1}
    best = Merge("task_arithmetic", ("/one", "/two"), "/base", fixed={"weight": 0.3})
    assert space.candidate(point, best=best).shared == best
    average = space.candidate(point).shared
    assert (average.method, average.experts) == ("linear", ("/one", "/two"))
    assert space_of(shared="average").candidate(point, best=best).shared == average
    base = space_of(shared="base").candidate(point, best=best).shared
    assert (base.method, base.experts) == ("passthrough", ("/base",))


@pytest.mark.parametrize("method", ["task_arithmetic", "dare_ties"])
def test_a_search_begins_with_a_merge_of_small_weights(method: str) -> None:
    weight, share = {"low": 0, "high": 1}, {"low": 0.1, "high": 0.5}
    space = space_of(shared=method, parameters={"weight": weight, "share": share})
    (point,) = space.first()
    assert {point["weight/one"], point["weight/two"], point["share"]} == {0.3}
    assert point.keys() == space.distributions.keys()


def test_members_are_experts_unless_others_are_named() -> None:
    point = {"top_k": 1.0, "temperature": 0.1}
    assert list(space_of().candidate(point).experts) == ["one", "two"]
    best = Merge("task_arithmetic", ("/one", "/two"), "/base", fixed={"weight": 0.3})
    made = space_of(members=["two", "best", "base"]).candidate(point, best=best)
    assert list(made.experts) == ["two", "best", "base"]
    assert made.experts["best"] == made.shared == best
    recipe, merges = made.recipe()
    assert [expert.source_model for expert in recipe.experts] == ["/two", "shared", "/base"]
    assert merges == {"shared": best.recipe()}


def test_more_experts_a_token_than_members_are_not_searched_by_default() -> None:
    assert list(space_of(members=["one"]).distributions) == ["temperature"]
    assert space_of(members=["one"]).candidate({"temperature": 0.5}).top_k == 1


def test_memory_is_counted_in_models_and_blocks() -> None:
    needs = space_of(members=["one", "two", "best"]).needs
    assert (needs.whole_models, needs.feed_forwards) == (2, 2)
    assert needs.prompts
    assert needs.scores
    assert space_of(parameters={"share": 0.3}).needs.feed_forwards == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"parameters": {"topk": 1}},
            'space.parameters.topk: unknown parameter "topk" of mixtures; did you mean "top_k"?',
        ),
        (
            {"parameters": {"top_k": 1.5}},
            "space.parameters.top_k: found 1.5, expected a whole number",
        ),
        (
            {"parameters": {"top_k": {"low": 0, "high": 2}}},
            "space.parameters.top_k.low: found 0, expected top_k in [1, inf]",
        ),
        (
            {"parameters": {"top_k": 3}},
            "space.parameters.top_k: found 3 experts a token, expected at most 2",
        ),
        (
            {"parameters": {"temperature": {"low": 0, "high": 2}}},
            "temperature.low: found 0, expected temperature in [0.001, inf]",
        ),
        (
            {"parameters": {"share": 1.5}},
            "share: found 1.5, expected share in [0, 1]",
        ),
        ({"parameters": {"share": True}}, "share: found True, expected a number or a range"),
        (
            {"parameters": {"share": {"low": 0, "high": 0.5, "per": ["layer"]}}},
            "share.per: share is one number for the whole mixture; leave per out",
        ),
        ({"parameters": {"weight": 1.0}}, 'unknown parameter "weight" of mixtures'),
        (
            {"shared": "tis"},
            'space.shared: found "tis", expected best, base, average or a merge method',
        ),
        ({"shared": "ties", "parameters": {"weight": 1.0, "dens": 1.0}}, "space.parameters.dens"),
        ({"shared": "ties"}, "space.parameters: ties needs the parameter"),
        ({"layers": 2}, "space.layers: groups the parameters of a merge method, and best has none"),
        ({"members": ["one", "too"]}, 'space.members.1: "too" is no member; did you mean "two"?'),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CampaignError) as found:
        space_of(**settings)
    assert message in str(found.value)


def test_members_have_names_of_their_own() -> None:
    with pytest.raises(CampaignError, match='an expert is called "best"'):
        space_of(replace(FAMILY, experts={"best": "/one", "two": "/two"}))


@pytest.mark.parametrize(
    ("architecture", "settings", "parameters", "message"),
    [
        (
            "llama",
            {"attention_bias": True},
            {},
            "config has attention_bias, for which MixtralForCausalLM",
        ),
        (
            "qwen3",
            {},
            {"share": 0.5},
            "of which there are no mixtures with a shared expert",
        ),
    ],
)
def test_models_that_have_no_mixture_are_refused_before_anything_is_searched(
    architecture: str,
    settings: dict[str, Any],
    parameters: dict[str, Any],
    message: str,
    build_family: Callable[..., Any],
    tmp_path: Path,
) -> None:
    models = build_family(tmp_path, *model_of(architecture, **settings), experts=1)
    asked = SpaceSettings(kind="mixture", parameters=parameters)
    with pytest.raises(ModelError, match=message) as found:
        check_base(asked, open_checkpoint(models.base))
    assert (found.value.file, found.value.field) == (models.base, "space.kind")


def test_matched_vocabularies_are_refused() -> None:
    from evomerge.candidate import Vocabulary

    with pytest.raises(CampaignError, match=r"models.tokenizer: a mixture needs models of one"):
        space_of(replace(FAMILY, vocabulary=Vocabulary("union")))


def test_a_mixture_without_gates_is_not_saved(tmp_path: Path) -> None:
    made = space_of().candidate({"top_k": 1.0, "temperature": 0.1})
    with pytest.raises(RecipeError, match="has no gates yet"):
        KIND.save(made, tmp_path / "out")

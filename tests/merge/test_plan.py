"""Which tensors a recipe makes, from what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.candidate import Conditional, Merge, Recipe, Slice, Source, loads
from evomerge.errors import RecipeError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.plan import plan_merge


def planned(recipe):
    plan = plan_merge(recipe, {name: open_checkpoint(name) for name in recipe.model_names()})
    return plan, {piece.name: piece for piece in plan.tensors}


def test_every_tensor_is_planned_once(llama_family):
    plan, pieces = planned(
        Recipe(
            method="ties",
            models=tuple(Source(model) for model in llama_family.experts),
            base_model=llama_family.base,
            parameters={"weight": 1},
        )
    )
    assert pieces.keys() == open_checkpoint(llama_family.base).tensors.keys()
    assert len(plan.tensors) == len(pieces)
    for piece in plan.tensors:
        assert piece.models == (*llama_family.experts, llama_family.base)  # the base comes last
        assert piece.base == 3
        assert set(piece.tensors) == {piece.name}


def test_gradients_run_over_the_layers_and_the_rest_reads_their_start(llama_family):
    _, pieces = planned(
        Recipe(
            method="linear",
            models=(Source(llama_family.base),),
            parameters={"weight": (0.0, 3.0)},
        )
    )
    weights = [pieces[f"model.layers.{n}.mlp.up_proj.weight"].own[0]["weight"] for n in range(4)]
    assert weights == pytest.approx([0, 1, 2, 3])
    assert pieces["model.embed_tokens.weight"].own[0]["weight"] == 0
    assert pieces["lm_head.weight"].own[0]["weight"] == 0


def test_slices_renumber_layers_and_place_the_rest(llama_family):
    base, expert, *_ = llama_family.models
    parameters = {"scale": (1.0, 2.0)}
    plan, pieces = planned(
        Recipe(
            method="passthrough",
            slices=(
                Slice((Source(base, (2, 4)),), parameters=parameters),
                Slice((Source(expert, (1, 2)),), parameters=parameters),
            ),
        )
    )
    assert plan.config.num_hidden_layers == 3
    up = "mlp.up_proj.weight"
    made = [pieces[f"model.layers.{n}.{up}"] for n in range(3)]
    assert [piece.models[0] for piece in made] == [base, base, expert]
    assert [piece.tensors[0] for piece in made] == [f"model.layers.{n}.{up}" for n in (2, 3, 1)]
    assert [piece.own[0]["scale"] for piece in made] == [1, 2, 2]  # one layer alone: t = 1
    assert pieces["model.embed_tokens.weight"].models == (base,)
    for name in ("model.norm.weight", "lm_head.weight"):
        assert pieces[name].models == (expert,)
        assert pieces[name].own[0]["scale"] == 1


def test_filters_match_the_sources_tensor_for_its_own_parameters(llama_family):
    """And the output's for the shared ones."""
    base, expert, *_ = llama_family.models
    layer_2 = (Conditional(0.25, "layers.2."), Conditional(1.0))
    _, pieces = planned(
        Recipe(
            method="task_arithmetic",
            slices=(
                Slice(
                    (Source(base, (2, 4)), Source(expert, (2, 4), {"weight": layer_2})),
                    parameters={"lambda": (Conditional(7.0, "layers.0."), Conditional(1.0))},
                ),
            ),
            base_model=base,
        )
    )
    piece = pieces["model.layers.0.mlp.up_proj.weight"]
    assert piece.own[1]["weight"] == 0.25
    assert piece.shared["lambda"] == 7


def test_lists_of_the_config_follow_the_layers(qwen2_family):
    checkpoint = open_checkpoint(qwen2_family.base)
    checkpoint.config.layer_types = ["full_attention", "sliding_attention"]
    plan = plan_merge(
        Recipe(
            method="passthrough",
            slices=tuple(Slice((Source(qwen2_family.base, (n, n + 1)),)) for n in (1, 0, 1)),
        ),
        {qwen2_family.base: checkpoint},
    )
    assert plan.config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert checkpoint.config.num_hidden_layers == 2  # its own is left alone


def test_a_range_beyond_the_model(llama_family):
    recipe = Recipe(method="passthrough", slices=(Slice((Source(llama_family.base, (2, 5)),)),))
    with pytest.raises(RecipeError, match=r"found \[2, 5\], .* has 4 layers") as caught:
        planned(recipe)
    assert caught.value.field == "slices.0.sources.0.layer_range"


def test_a_slice_without_ranges_is_the_whole_model(llama_family):
    recipe = Recipe(method="passthrough", slices=(Slice((Source(llama_family.base),)),))
    assert planned(recipe)[0].config.num_hidden_layers == 4


MERGES = {
    "by group and component": {
        "method": "ties",
        "groups": ((0, 1), (1, 4)),
        "components": ("self_attn", "mlp"),
        "own": {
            "weight": (((0.1, 0.2), (0.3, 0.4), (0.5, 0.6)), ((0.7, 0.8), (0.9, 1.0), (1.1, 1.2))),
            "density": (((0.5, 0.25),),),
        },
        "shared": {"lambda": ((1.5,), (0.5,))},
        "fixed": {"normalize": False},
    },
    "over all layers": {"method": "task_arithmetic", "fixed": {"weight": 0.4}},
    "the base as one of them": {
        "method": "linear",
        "merges_base": False,
        "with_base": True,
        "own": {"weight": (((0.2, 0.3, 0.5),),)},
    },
    "two models": {
        "method": "slerp",
        "experts": 1,
        "shared": {"t": ((0.1, 0.9),)},
        "components": ("mlp",),
    },
}


@pytest.mark.parametrize("settings", MERGES.values(), ids=list(MERGES))
def test_a_merge_is_planned_as_its_file_is(llama_family, settings):
    settings = dict(settings)
    experts = llama_family.experts[: settings.pop("experts", 2)]
    if settings.pop("with_base", False):
        experts = (llama_family.base, *experts)
    merge = Merge(
        experts=tuple(experts), base=llama_family.base, dtype="float32", seed=3, **settings
    )
    (found, _), (expected, _) = planned(merge), planned(loads(merge.file()))
    assert [replace(one, place=(0, 0)) for one in found.tensors] == [
        replace(one, place=(0, 0)) for one in expected.tensors
    ]
    for field in ("models", "seed", "dtype", "vocabulary", "chat_template"):
        assert getattr(found, field) == getattr(expected, field)

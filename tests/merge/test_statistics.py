"""Files of statistics: trimming by importance against float64 by hand, copies beside recipes, bad files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import evomerge
from evomerge.candidate import Merge, dumps_all, load
from evomerge.candidate.recipe import STATISTICS
from evomerge.errors import MergeError, RecipeError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.engine import MergeRun, merged_tensors
from evomerge.merge.live import LiveModel
from evomerge.merge.masks import largest, largest_by, magnitude_order
from evomerge.merge.methods import METHODS, Parameter
from evomerge.merge.plan import plan_merge
from evomerge.merge.saving import save
from evomerge.merge.statistics import MOMENT, look_in, open_statistics, statistics_path
from evomerge.testing.methods import plain_inputs

DOWN = "model.layers.0.mlp.down_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture
def models(llama_family):
    return {name: open_checkpoint(name) for name in llama_family.models}


@pytest.fixture
def file(llama_family, models, tmp_path):
    """Importances of both experts: by column of matrices, by row of one, by entry of a norm."""
    generator = torch.Generator().manual_seed(3)
    found = {}
    for place, expert in enumerate(llama_family.experts[:2]):
        for name, header in models[expert].tensors.items():
            if "proj" in name:
                shape = (header.shape[0], 1) if name == DOWN else (1, header.shape[1])
                found[f"{place}/{name}"] = torch.rand(shape, generator=generator) ** 3
        found[f"{place}/{NORM}"] = torch.rand(models[expert].tensors[NORM].shape)
    save_file(found, tmp_path / STATISTICS)
    return tmp_path / STATISTICS


def merge(family, file, method="ties", **fixed):
    settings = {"weight": 1.0, "density": 0.3, "importance": True, **fixed}
    return Merge(
        method, tuple(family.experts[:2]), family.base, fixed=settings, statistics=str(file)
    )


def by_hand(delta, importance, count, skipped=0):
    """Keep what ranks highest by |delta| * importance, float64, the first of equals."""
    scores = np.abs(delta.double().numpy() * importance.double().numpy()).ravel()
    kept = np.argsort(-scores, kind="stable")[skipped : skipped + count]
    found = np.zeros(delta.numel())
    found[kept] = delta.double().numpy().ravel()[kept]
    return found.reshape(delta.shape)


@pytest.mark.parametrize(("method", "gamma"), [("ties", 0.0), ("breadcrumbs", 0.1)])
def test_entries_are_ranked_by_magnitude_times_importance(
    llama_family, models, file, method, gamma
):
    extra = {"gamma": gamma} if gamma else {}
    one = merge(llama_family, file, method, **extra)
    alone = Merge(method, one.experts[:1], one.base, fixed=one.fixed, statistics=None)
    importances = load_file(file)
    save_file({k: v for k, v in importances.items() if k.startswith("0/")}, file.with_name("one"))
    alone = Merge(**{**vars(alone), "statistics": str(file.with_name("one"))})
    moved = 0
    plain = dict(
        merged_tensors(
            Merge(**{**vars(alone), "fixed": {**one.fixed, "importance": False}}), models
        )
    )
    for name, tensor in merged_tensors(alone, models):
        base, expert = (models[m].tensor(name).float() for m in (alone.base, alone.experts[0]))
        delta = expert - base
        count = max(1, int(0.3 * delta.numel()))
        skipped = min(int(gamma * delta.numel()), delta.numel() - count)
        importance = importances.get(f"0/{name}", torch.ones(1)).expand(delta.shape)
        expected = base.double() + torch.from_numpy(by_hand(delta, importance, count, skipped))
        assert torch.allclose(tensor.double(), expected, atol=1e-6), name
        moved += not torch.equal(tensor, plain[name])
    assert moved == len([name for name in importances if name.startswith("0/")])


def test_della_keeps_by_the_rank_of_magnitude_times_importance():
    generator = torch.Generator().manual_seed(0)
    base, expert, importance = (torch.rand(50, 40, generator=generator) for _ in range(3))
    importance = importance[:1] ** 4
    own = [{}, {"weight": 1.0, "density": 0.5, "epsilon": 0.4}]
    method, shared = METHODS["della_linear"], {"rescale": False, "importance": True}
    inputs = plain_inputs(method, [base, expert], own, shared, importances={1: importance})
    kept = method.merge(inputs) != base
    delta = (expert - base).double()
    scores = np.abs((delta * importance).numpy())
    ranks = np.argsort(np.argsort(scores, axis=1, kind="stable"), axis=1)
    probability = 0.1 + 0.8 * torch.from_numpy(ranks) / 39
    assert torch.equal(kept, (inputs.uniform(1) < probability.float()) & (delta != 0))


@given(st.data())
def test_the_largest_by_scores_are_those_of_a_stable_sort(data):
    numbers = st.lists(st.integers(-3, 3), min_size=1, max_size=30)
    delta = torch.tensor(data.draw(numbers), dtype=torch.float32)
    weights = st.lists(st.integers(0, 2), min_size=len(delta), max_size=len(delta))
    importance = torch.tensor(data.draw(weights), dtype=torch.float32)
    count = data.draw(st.integers(1, len(delta)))
    skipped = data.draw(st.integers(0, len(delta) - count))
    scores = (delta * importance).abs()
    expected = torch.from_numpy(by_hand(delta, importance, count, skipped)).float()
    found = largest_by(delta, scores, count, skipped=skipped)
    assert torch.equal(found, expected)
    ordered = largest_by(delta, scores, count, magnitude_order(scores), skipped)
    assert torch.equal(ordered, expected)
    ones = largest_by(delta, delta.abs(), count, skipped=skipped)
    assert torch.equal(ones, largest(delta, count, skipped=skipped))


def test_memory_of_a_merge_by_importance_is_what_is_stated():
    from evomerge.testing.methods import _peak

    tensors = [torch.randn(128, 512) for _ in range(4)]
    importances = {index: torch.rand(1, 512) for index in (1, 2, 3)}
    for name in ("ties", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear"):
        method = METHODS[name]
        own = [{"weight": 0.5, "density": 0.5}] * 4
        inputs = plain_inputs(method, tensors, own, {"importance": True}, importances=importances)
        taken = _peak(lambda method=method, inputs=inputs: method.merge(inputs))
        vectors = 3 if method.elects else 1
        assert taken <= 1.02 * 4 * inputs.numel * (vectors + method.temporaries), name


def test_a_live_model_keeps_orders_and_gives_the_same_bytes(llama_family, models, file):
    live = LiveModel(llama_family.models, dtype="float32", resident_bytes=2**28)
    for density in (0.3, 0.5, 0.2, 0.3):
        one = merge(llama_family, file, density=density)
        live.write(one)
        state = live.module.state_dict()
        for name, tensor in merged_tensors(one, models):
            assert torch.equal(state[name], tensor), (density, name)
        live.write(merge(llama_family, file, density=density, importance=False))
        assert not torch.equal(live.module.state_dict()[DOWN], tensor_of(one, models, DOWN))


def tensor_of(one, models, name):
    return dict(merged_tensors(one, models))[name]


def test_moments_are_read_and_stand_for_importances(llama_family, models, tmp_path):
    columns = models[llama_family.base].tensors[DOWN].shape[1]
    root = torch.randn(columns, columns)
    moments = {f"{MOMENT}{place}/{DOWN}": root @ root.T + place for place in range(2)}
    save_file(moments, tmp_path / "s")
    run = MergeRun(plan_merge(merge(llama_family, tmp_path / "s"), models), models)
    (piece,) = (piece for piece in run.plan.tensors if piece.name == DOWN)
    inputs = run.inputs(piece)
    for index in inputs.others:
        place = llama_family.experts.index(inputs.models[index])
        moment = inputs.moment(index)
        assert torch.equal(moment, moments[f"{MOMENT}{place}/{DOWN}"])
        expected = moment.double().diagonal().sqrt()[None].float()
        assert torch.allclose(inputs.importance(index), expected)
    (piece,) = (piece for piece in run.plan.tensors if piece.name == NORM)
    with pytest.raises(
        MergeError, match=r"model\.norm\.weight: .*second moments.* and it has none"
    ):
        run.inputs(piece).moment(run.inputs(piece).others[0])
    plain = MergeRun(
        plan_merge(
            Merge("ties", llama_family.experts, llama_family.base, fixed={"weight": 1.0}), models
        ),
        models,
    )
    with pytest.raises(MergeError, match="there is no statistics file"):
        plain.inputs(piece).moment(0)


def recipe(family, folder, name=STATISTICS, method="ties"):
    lines = [f"merge_method: {method}", f"base_model: {family.base}", "models:"]
    own = "parameters: {weight: 0.7, density: 0.3}"
    lines += [f"  - {{model: {one}, {own}}}" for one in family.experts[:2]]
    lines += ["parameters: {importance: true}", *([f"statistics: {name}"] if name else [])]
    (folder / "recipe.yaml").write_text("\n".join(lines) + "\n")
    return folder / "recipe.yaml"


def test_a_recipe_names_the_file_and_the_result_has_a_copy(llama_family, file, tmp_path):
    path = recipe(llama_family, tmp_path)
    evomerge.merge(path, tmp_path / "out")
    out = tmp_path / "out"
    assert (out / STATISTICS).read_bytes() == file.read_bytes()
    assert f"statistics: {STATISTICS}" in (out / "recipe.yaml").read_text()
    assert f"`{STATISTICS}`, beside the recipe" in (out / "README.md").read_text()
    assert (
        out / "model.safetensors.index.json"
    ).is_file()  # vLLM would take the other file for weights
    evomerge.merge(out / "recipe.yaml", tmp_path / "again")
    for name in ("model.safetensors", "recipe.yaml", STATISTICS):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    assert load(path).statistics == str(file)


def change(content, key, value):
    return (
        {**content, key: value}
        if value is not None
        else {k: v for k, v in content.items() if k != key}
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            f"0/{DOWN}",
            torch.ones(3, 3),
            rf"0/{DOWN} has the shape \[3, 3\], expected \[\d+, \d+\] or \[1, \d+\] or",
        ),
        (f"1/{NORM}", torch.ones(1, 5), rf"1/{NORM} has the shape \[1, 5\], expected \[\d+\]"),
        (f"0/{DOWN}", "negative", rf"0/{DOWN} holds -1, expected numbers of at least 0"),
        (f"0/{DOWN}", "nan", rf"0/{DOWN} holds NaN or infinity"),
        ("0/model.layers.9.mlp.down_proj.weight", torch.ones(1, 5), "which is not a tensor of"),
        (f"2/{DOWN}", torch.ones(1, 5), "of expert 2, the recipe has 2 experts"),
        (DOWN, torch.ones(1, 5), f"found the tensor {DOWN}, expected N/TENSOR"),
        (f"{MOMENT}0/{NORM}", torch.ones(5, 5), "expected none of a vector"),
        (f"{MOMENT}0/{DOWN}", torch.ones(1, 5), r"expected \[(\d+), \1\]"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(
    llama_family, models, file, tmp_path, key, value, expected
):
    shape = models[llama_family.base].tensors[DOWN].shape
    if isinstance(value, str):
        value = torch.full((1, shape[1]), {"negative": -1.0, "nan": float("nan")}[value])
    save_file({**load_file(file), key: value}, tmp_path / "other")
    with pytest.raises(RecipeError, match=expected) as caught:
        evomerge.merge(recipe(llama_family, tmp_path, "other"), tmp_path / "out")
    assert str(caught.value).startswith(
        f"{tmp_path / 'recipe.yaml'}:7: statistics: {tmp_path / 'other'}: "
    )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_expert_that_is_not_in_the_file_is_named(llama_family, file, tmp_path):
    found = {key: one for key, one in load_file(file).items() if not key.startswith("1/")}
    save_file(found, tmp_path / "other")
    expected = f"holds nothing of {llama_family.experts[1]}, expert 1 of the recipe"
    with pytest.raises(RecipeError, match=expected):
        evomerge.merge(recipe(llama_family, tmp_path, "other"), tmp_path / "out")


def test_a_method_that_reads_statistics_needs_a_file(llama_family, tmp_path):
    with pytest.raises(RecipeError, match="importance of ties reads statistics"):
        evomerge.merge(recipe(llama_family, tmp_path, None), tmp_path / "out")


@pytest.mark.parametrize("content", [None, b"", b"no safetensors"])
def test_the_command_line_answers_a_bad_file_with_one_line(llama_family, tmp_path, content):
    if content is not None:
        (tmp_path / STATISTICS).write_bytes(content)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "evomerge",
            "merge",
            recipe(llama_family, tmp_path),
            tmp_path / "out",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert f"recipe.yaml:7: statistics: {tmp_path / STATISTICS}: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_merges_of_several_documents_name_each_file_once(llama_family, file, tmp_path):
    """Also what is made of them is rebuilt from the copies."""
    one = merge(llama_family, file).recipe()
    other = tmp_path / "other.safetensors"
    save_file({key: 1 - value for key, value in load_file(file).items()}, other)
    merges = {"first": one, "again": one, "second": merge(llama_family, other).recipe()}
    last = Merge("linear", tuple(merges), fixed={"weight": 1.0}).recipe()
    named = dumps_all(last, merges)
    assert named.count(f"statistics: {STATISTICS}\n") == 2
    assert named.count(f"statistics: 1.{STATISTICS}\n") == 1
    save(last, tmp_path / "out", merges=merges)
    assert (tmp_path / "out" / f"1.{STATISTICS}").read_bytes() == other.read_bytes()
    evomerge.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again")
    weights = [tmp_path / name / "model.safetensors" for name in ("out", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_only_a_campaigns_own_file_is_looked_up_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    look_in(tmp_path / "results")
    assert statistics_path(STATISTICS) == tmp_path / "results" / STATISTICS
    assert statistics_path("mine.safetensors") == Path("mine.safetensors")
    look_in(None)
    assert statistics_path(STATISTICS) == Path(STATISTICS)


def test_what_reads_statistics_is_a_switch_for_all_models():
    for other in ({"kind": "number"}, {"kind": "boolean", "per_source": True}):
        with pytest.raises(ValueError, match="a boolean that holds for all models"):
            Parameter(help="reads them", reads="moment", **other)
    reading = {name for name, one in METHODS.items() for p in one.parameters.values() if p.reads}
    assert {
        "ties",
        "breadcrumbs",
        "breadcrumbs_ties",
        "della",
        "della_linear",
        "regmean",
    } == reading


def test_a_file_that_was_written_anew_is_read_anew(file):
    first = open_statistics(str(file))
    assert open_statistics(str(file)) is first
    save_file(
        {**load_file(file), f"0/{NORM}": torch.zeros_like(load_file(file)[f"0/{NORM}"])}, file
    )
    again = open_statistics(str(file))
    assert again is not first
    assert not again.importance(0, NORM).any()

"""Methods by name, each with the properties of the shared suite; one from another package among them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch

from evomerge.errors import RecipeError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.methods import METHODS, method
from evomerge.testing.methods import MethodSuite, plain_inputs
from tests.small_campaign import TEXT

SOURCE = '''
from evomerge.merge.methods import Method, Parameter


def midpoint(inputs):
    """The base, and a share of what the experts have in the middle."""
    middle = sum(inputs.delta(index) for index in inputs.others) / len(inputs.others)
    return inputs.tensor(inputs.base) + middle * inputs.shared["share"]


MIDPOINT = Method(
    name="midpoint",
    merge=midpoint,
    parameters={"share": Parameter("number", "share of the mean task vector", default=1.0)},
    needs_base=True,
    uses_base=True,
    reads_deltas=True,
)
'''
ENTRY_POINT = "[evomerge.methods]\nmidpoint = mine:MIDPOINT\n"


@pytest.mark.parametrize("name", METHODS)
class TestMethods(MethodSuite):
    @pytest.fixture
    def method(self, name):
        return METHODS[name]

    def test_it_goes_by_its_name(self, name, method):
        assert method.name == name


@pytest.mark.parametrize("name", METHODS)
def test_the_number_of_threads_changes_no_bit(name):
    takes = METHODS[name].parameters
    values = {"weight": 0.4, "density": 0.5, "gamma": 0.02, "epsilon": 0.1, "t": 0.01, "r": 0.3}
    count = min(4, (METHODS[name].max_models or 4) + METHODS[name].uses_base)
    tensors = [torch.randn(300, 700) for _ in range(count)]
    own = {key: one for key, one in values.items() if key in takes and takes[key].per_source}
    shared = {key: one for key, one in values.items() if key in takes and not takes[key].per_source}
    merged = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            inputs = plain_inputs(METHODS[name], tensors, [own] * count, shared)
            merged.append(METHODS[name].merge(inputs))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(merged[0], merged[1])
    assert torch.equal(merged[0], merged[2])


def test_known_names():
    assert method("ties") is METHODS["ties"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dare_tie", 'did you mean "dare_ties"?'),
        ("TIES", 'did you mean "ties"?'),
        ("", "known: arcee_fusion, breadcrumbs, breadcrumbs_ties, "),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(RecipeError) as caught:
        method(name)
    assert str(caught.value).startswith(f'merge_method: unknown method "{name}"; {hint}')


def test_every_method_of_mergekit_is_known():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mergekit's own
        from mergekit.merge_methods.registry import registered_methods
    theirs = {each.spec.name for each in registered_methods()}
    assert theirs <= set(METHODS)


@pytest.fixture
def other_package(tmp_path):
    """One file and one line: a method, and the entry point that names it."""
    (tmp_path / "mine.py").write_text(SOURCE)
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINT)

    def run(*arguments):
        paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-m", "evomerge", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": paths},
        )

    return run


def test_a_method_of_another_package_merges_by_name(other_package, tmp_path, llama_family):
    base, experts = llama_family.base, llama_family.experts[:2]
    listed = "".join(f"  - model: {expert}\n" for expert in experts)
    (tmp_path / "recipe.yaml").write_text(
        f"merge_method: midpoint\nbase_model: {base}\nmodels:\n{listed}"
        "parameters: {share: 0.5}\ndtype: float32\n"
    )
    done = other_package("merge", tmp_path / "recipe.yaml", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    old, one, two, new = (
        open_checkpoint(str(model)).tensor("model.layers.0.mlp.up_proj.weight")
        for model in (base, *experts, tmp_path / "merged")
    )
    assert torch.allclose(new, old + 0.5 * ((one - old) + (two - old)) / 2, atol=1e-6)


def test_a_method_of_another_package_is_searched_by_name(other_package, tmp_path):
    text = TEXT.replace("task_arithmetic", "midpoint").replace("weight:", "share:")
    text = text.replace("cmaes, trials: 6", "random, trials: 2")
    (tmp_path / "c.yaml").write_text(text.replace("share:", "shar:"))
    done = other_package("check", tmp_path / "c.yaml")
    assert done.returncode == 2
    assert 'unknown parameter "shar" of midpoint; did you mean "share"?' in done.stderr
    (tmp_path / "c.yaml").write_text(text)
    done = other_package("search", tmp_path / "c.yaml")
    assert done.returncode == 0, done.stderr
    assert "merge_method: midpoint" in (tmp_path / "out" / "best" / "recipe.yaml").read_text()

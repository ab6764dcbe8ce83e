"""Merge methods that a user's file declares: what they are held to, and how the file becomes known."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import evomerge
from evomerge.candidate import Merge
from evomerge.errors import MergeError, RecipeError, UserError
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS, NumberGradients
from evomerge.merge.methods.declared import DECLARED
from evomerge.merge.user_methods import FILE, MethodFile, use
from evomerge.testing.methods import MethodSuite, plain_inputs

WEIGHT = evomerge.Parameter(
    "number", "factor of the task vector", required=True, per_source=True, differentiable=True
)
SOURCE = """\
import evomerge

WEIGHT = evomerge.Parameter("number", "share of the expert", required=True, per_source=True)


@evomerge.method("halves", {"weight": WEIGHT})
def halves(inputs):
    merged = inputs.tensor(inputs.base).clone()
    for index in inputs.others:
        merged += 0.5 * inputs.own[index]["weight"] * inputs.delta(index)
    return merged
"""
RECIPE = """\
merge_method: halves
base_model: {base}
models:
  - {{model: {expert}, parameters: {{weight: 0.8}}}}
"""


def gradient(inputs, by_merged):
    found = [0.0] * len(inputs.models)
    for index in inputs.others:
        found[index] = float((by_merged * inputs.delta(index)).sum())
    return NumberGradients({"weight": tuple(found)})


@evomerge.method("summed", {"weight": WEIGHT}, gradients=gradient, temporaries=5)
def summed(inputs):
    merged = inputs.tensor(inputs.base).clone()
    for index in inputs.others:
        merged += inputs.own[index]["weight"] * inputs.delta(index)
    return merged


class TestSummed(MethodSuite):
    @pytest.fixture
    def method(self):
        return summed


@pytest.fixture(autouse=True)
def forgotten():
    yield
    use(None)


def file(tmp_path, source, name="mine.py"):
    path = tmp_path / name
    path.write_text(source)
    return MethodFile.read(path)


def refused(tmp_path, source):
    with pytest.raises(UserError) as caught:
        use(file(tmp_path, source))
    assert str(tmp_path / "mine.py") in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "return inputs.tensor(0)[:1]",
            r'"bad" returned \[1, 3\] of torch.float32 for w, expected \[2, 3\]',
        ),
        (
            "return inputs.tensor(0).double()",
            r"\[2, 3\] of torch.float64 for w, expected .*float32",
        ),
        ("return inputs.tensor(0) / 0", r'method "bad" returned NaN or infinity for w'),
        ("return 1.0", r'method "bad" returned float for w'),
        ("raise KeyError('x')", r"method \"bad\" failed on w: KeyError: 'x' \(mine.py, line 4\)"),
        ("assert False, 'two\\nlines'", "AssertionError: two lines"),
    ],
)
def test_what_breaks_the_rules_is_one_line_with_method_and_tensor(tmp_path, body, expected):
    use(file(tmp_path, f"import evomerge\n@evomerge.method('bad')\ndef bad(inputs):\n    {body}\n"))
    inputs = plain_inputs(METHODS["bad"], [torch.ones(2, 3), torch.ones(2, 3)], [{}, {}], {})
    with pytest.raises(MergeError, match=expected) as caught:
        METHODS["bad"].merge(inputs)
    assert "\n" not in str(caught.value)


def test_errors_of_ours_and_of_memory_pass_as_they_are(tmp_path):
    inputs = plain_inputs(summed, [torch.ones(2), torch.ones(2)], [{}, {"weight": 1.0}], {})
    for error in (MergeError("no answer"), MemoryError(), torch.OutOfMemoryError()):

        @evomerge.method("raises")
        def raises(inputs, error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            raises.merge(inputs)
        assert caught.value is error


@pytest.mark.parametrize(
    "body",
    [
        "merged = inputs.tensor(0); merged += 1; return merged",
        "kept = inputs.tensor(1); kept[0] = 0; return inputs.tensor(0) + kept",
        "delta = inputs.delta(0); delta.view(-1).mul_(2); return inputs.tensor(1) + delta",
    ],
)
def test_writing_into_what_other_merges_read_is_refused(llama_family, tmp_path, body):
    """Models that are stored in float32 are views of their files, and task vectors are kept."""
    source = f"import evomerge\n@evomerge.method('bad')\ndef bad(inputs):\n    {body}\n"
    use(file(tmp_path, source))
    one = Merge("bad", llama_family.experts[:1], llama_family.base)
    live = LiveModel(llama_family.models, dtype="float32", resident_bytes=2**28)
    with pytest.raises(MergeError, match=r'"bad" writes into an input of model.*; clone it'):
        live.write(one)
    use(file(tmp_path, source.replace("(0)", "(0).clone()").replace("(1)", "(1).clone()")))
    live.write(one)


def test_gradients_that_raise_name_the_tensor():
    def broken(inputs, by_merged):
        raise ValueError("no")

    made = evomerge.method("broken", gradients=broken)(lambda inputs: inputs.tensor(0))
    inputs = plain_inputs(made, [torch.ones(2), torch.ones(2)], [{}, {}], {})
    with pytest.raises(MergeError, match='method "broken" failed on w: ValueError: no'):
        made.gradients(inputs, torch.ones(2))


def test_a_declaration_that_means_nothing_is_refused():
    with pytest.raises(TypeError, match=r"expected an evomerge\.Parameter"):
        evomerge.method("x", {"weight": 1.0})
    with pytest.raises(ValueError, match="expected the name"):
        evomerge.method("")
    with pytest.raises(TypeError, match="temporary"):
        evomerge.method("x", temporary=3)(lambda inputs: inputs.tensor(0))


def test_the_methods_of_a_file_are_known_until_another_one_is_used(tmp_path):
    before, declared = dict(METHODS), len(DECLARED)
    use(file(tmp_path, SOURCE))
    first = METHODS["halves"]
    use(file(tmp_path, SOURCE))
    assert METHODS["halves"] is first, "the file ran twice"
    use(file(tmp_path, SOURCE.replace("halves", "thirds")))
    assert METHODS.keys() - before.keys() == {"thirds"}
    use(None)
    assert before == METHODS
    assert len(DECLARED) == declared


def test_dataclasses_and_annotations_of_a_file_are_resolved(tmp_path):
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    use(file(tmp_path, f"{head}{SOURCE}\n\n@dataclass\nclass Own:\n    a: int = 1\n"))
    assert "halves" in METHODS


@pytest.mark.parametrize(
    ("source", "line", "expected"),
    [
        ("import evomerge\n\nx = (\n", 3, "cannot be imported: SyntaxError"),
        (
            "import evomerge\nx = 1 / 0\n",
            2,
            "cannot be imported: ZeroDivisionError: division by zero",
        ),
        ("import a_module_that_is_not_there\n", 1, "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", 1, "cannot be imported: SystemExit: 3"),
        ("x = 1\n", None, "declares no merge method"),
        (SOURCE.replace('"halves"', '"ties"'), None, 'declares "ties", which is a method already'),
        (SOURCE + SOURCE, None, 'declares "halves", which is a method already'),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, source, line, expected):
    before = dict(METHODS)
    error = refused(tmp_path, source)
    assert expected in error.message
    assert error.line == line
    assert before == METHODS


def test_a_file_that_is_missing_or_no_text_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"gone\.py: no such file"):
        MethodFile.read(tmp_path / "gone.py")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.py"):
        MethodFile.read(tmp_path / "binary.py")


def test_a_recipe_is_merged_by_a_method_of_a_file_and_can_be_rebuilt(tmp_path, llama_family):
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.format(base=llama_family.base, expert=llama_family.experts[0])
    )
    (tmp_path / "mine.py").write_text(SOURCE)
    with pytest.raises(RecipeError, match='unknown method "halves"'):
        evomerge.merge(tmp_path / "recipe.yaml", tmp_path / "out")
    evomerge.merge(tmp_path / "recipe.yaml", tmp_path / "out", methods=tmp_path / "mine.py")
    found = load_file(tmp_path / "out" / "model.safetensors")
    base, expert = (
        load_file(f"{m}/model.safetensors") for m in (llama_family.base, llama_family.experts[0])
    )
    for name, tensor in found.items():
        expected = base[name].double() + 0.4 * (expert[name].double() - base[name].double())
        assert torch.allclose(tensor.double(), expected, atol=1e-6), name
    out = tmp_path / "out"
    assert (out / FILE).read_text() == SOURCE
    assert f"--methods {FILE}" in (out / "README.md").read_text()
    evomerge.merge(out / "recipe.yaml", tmp_path / "again", methods=out / FILE)
    for name in ("model.safetensors", "recipe.yaml", FILE):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_a_merge_of_shipped_methods_has_no_such_file(tmp_path, llama_family):
    text = RECIPE.replace("halves", "task_arithmetic")
    (tmp_path / "recipe.yaml").write_text(
        text.format(base=llama_family.base, expert=llama_family.experts[0])
    )
    (tmp_path / "mine.py").write_text(SOURCE)
    evomerge.merge(tmp_path / "recipe.yaml", tmp_path / "out", methods=tmp_path / "mine.py")
    assert not (tmp_path / "out" / FILE).exists()
    assert "--methods" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ("raise ValueError('never')", 1, 'method "halves" failed on model.'),
        (None, 2, "mine.py: no such"),
    ],
)
def test_the_command_line_answers_with_one_line(tmp_path, llama_family, body, status, expected):
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.format(base=llama_family.base, expert=llama_family.experts[0])
    )
    if body is not None:
        (tmp_path / "mine.py").write_text(SOURCE.replace("return merged", body))
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", "merge", "recipe.yaml", "out", "--methods", "mine.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()

"""A folder's weights are those that transformers loads, whatever else lies there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.candidate import Recipe, Source
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.family import check_family
from evomerge.merge.files import pickled_tensors
from evomerge.merge.saving import save

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(llama_family, tmp_path) -> Path:
    return Path(shutil.copytree(llama_family.base, tmp_path / "model"))


@pytest.fixture
def others(llama_family) -> dict[str, torch.Tensor]:
    """The weights of another model of the family."""
    return load_file(Path(llama_family.experts[0]) / "model.safetensors")


def write_shards(folder: Path, weights, names=("one.safetensors", "two.safetensors"), index=INDEX):
    """Write weights in two files and an index of them; return what the index says."""
    halves = sorted(weights)[::2], sorted(weights)[1::2]
    for name, half in zip(names, halves, strict=True):
        part = {key: weights[key] for key in half}
        if name.endswith(".bin"):
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name, metadata={"format": "pt"})
    weight_map = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    write_index(folder / index, weight_map)
    return weight_map


def write_index(path: Path, weight_map) -> None:
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")


def older_shards_beside(folder, others):
    write_shards(folder, others)


def older_index_beside(folder, others):
    weight_map = write_shards(folder, others)
    for name in set(weight_map.values()):
        (folder / name).unlink()


def broken_index_beside(folder, _):
    (folder / INDEX).write_text("{", encoding="utf-8")


def foreign_sets_beside(folder, others):
    """As Mistral's repositories and half-precision variants are."""
    save_file(others, folder / "consolidated.safetensors")
    save_file(others, folder / "model.fp16.safetensors")
    save_file(others, folder / "adapter.safetensors")
    torch.save(others, folder / "pytorch_model.bin")
    names = ("consolidated-1.safetensors", "consolidated-2.safetensors")
    write_shards(folder, others, names, "consolidated.safetensors.index.json")


def shards(folder, others):
    own = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    foreign_sets_beside(folder, others)
    write_shards(folder, own)


def shards_with_a_tensor_of_no_entry(folder, _):
    own = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = write_shards(folder, own)
    del weight_map["model.norm.weight"]
    write_index(folder / INDEX, weight_map)


def shards_with_a_wrong_entry(folder, _):
    """transformers reads whole files; which of them an entry names is of no weight."""
    own = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = write_shards(folder, own)
    first = sorted(weight_map)[0]
    weight_map[first] = "two.safetensors"
    write_index(folder / INDEX, weight_map)


def named_by_the_config(folder, others):
    save_file(others, folder / "other.safetensors", metadata={"format": "pt"})
    edit_config(folder, transformers_weights="other.safetensors")


def index_named_by_the_config(folder, others):
    write_shards(folder, others, ("x.safetensors", "y.safetensors"), "o.safetensors.index.json")
    edit_config(folder, transformers_weights="o.safetensors.index.json")


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    "spoil",
    [
        older_shards_beside,
        older_index_beside,
        broken_index_beside,
        foreign_sets_beside,
        shards,
        shards_with_a_tensor_of_no_entry,
        shards_with_a_wrong_entry,
        named_by_the_config,
        index_named_by_the_config,
    ],
)
def test_the_weights_are_those_that_transformers_loads(spoil: Callable, folder, others):
    spoil(folder, others)
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    checkpoint = open_checkpoint(str(folder), allow_pickle=True)
    assert set(checkpoint.tensors) == set(loaded)
    assert all(torch.equal(checkpoint.tensor(name), loaded[name]) for name in loaded)


def test_a_pickle_and_its_shards(folder, others):
    own = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ("pytorch_model-1.bin", "pytorch_model-2.bin")
    write_shards(folder, own, names, "pytorch_model.bin.index.json")
    torch.save(others, folder / "pytorch_model-3.bin")  # in no index
    with pytest.raises(
        ModelError, match=r"only a PyTorch pickle \(pytorch_model\.bin\.index\.json"
    ):
        open_checkpoint(str(folder))
    for expected in (own, others):  # the single file comes first
        checkpoint = open_checkpoint(str(folder), allow_pickle=True)
        assert all(torch.equal(checkpoint.tensor(name), expected[name]) for name in expected)
        torch.save(others, folder / "pytorch_model.bin")


def test_a_pickle_of_before_torch_1_6_is_read(tmp_path):
    tensors = {"one": torch.arange(6.0).reshape(2, 3), "other": torch.ones(3, dtype=torch.bfloat16)}
    file = tmp_path / "pytorch_model.bin"
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    found = pickled_tensors(file)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_what_is_saved_goes_by_the_usual_name(folder, others, tmp_path):
    named_by_the_config(folder, others)
    save(Recipe(method="passthrough", models=(Source(str(folder)),)), tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[name], others[name]) for name in others)


def dangling(folder, _):
    """As in a Hub cache of which a file was removed."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "gone")


def only(*names):
    def spoil(folder, others):
        (folder / "model.safetensors").unlink()
        for name in names:
            save_file(others, folder / name)

    return spoil


def only_a_foreign_index(folder, others):
    (folder / "model.safetensors").unlink()
    names = ("consolidated-1.safetensors", "consolidated-2.safetensors")
    write_shards(folder, others, names, "consolidated.safetensors.index.json")


def a_shard_of_no_entry(folder, _):
    """Half of the model is in a file that the index does not name."""
    own = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = write_shards(folder, own)
    write_index(folder / INDEX, {k: v for k, v in weight_map.items() if v.startswith("one")})


def an_entry_of_no_tensor(folder, _):
    own = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = write_shards(folder, own)
    half = load_file(folder / "one.safetensors")
    del half["lm_head.weight"]
    save_file(half, folder / "one.safetensors")
    assert weight_map["lm_head.weight"] == "one.safetensors"


def outside(folder, _):
    (folder / "model.safetensors").unlink()
    write_index(folder / INDEX, {"lm_head.weight": "../model.safetensors"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (only(), r"neither model\.safetensors nor model\.safetensors\.index\.json, which"),
        (dangling, "which transformers loads; copy or download the model again"),
        (only("weights.safetensors"), r"found weights\.safetensors, which it does not"),
        (only("consolidated.safetensors", "model.fp16.safetensors"), r"found consolidated\.saf"),
        (only_a_foreign_index, r"found consolidated-1\.safetensors, consolidated-2"),
        (a_shard_of_no_entry, r"lacks .* \(and \d+ more\), which transformers would fill"),
        (an_entry_of_no_tensor, r"says that one\.safetensors holds lm_head\.weight, which"),
        (outside, "not an index of shards"),
        (
            lambda f, _: edit_config(f, transformers_weights="gone.safetensors"),
            r"config\.json: transformers_weights: names gone\.safetensors, which is missing",
        ),
        (
            lambda f, _: edit_config(f, transformers_weights="../a.safetensors"),
            r"transformers_weights: found '\.\./a\.safetensors', expected",
        ),
        (
            lambda f, _: edit_config(f, transformers_weights="pytorch_model.bin"),
            "transformers_weights: found 'pytorch_model.bin', expected",
        ),
    ],
)
def test_what_is_not_there_is_said_in_one_line(spoil, message, folder, others):
    spoil(folder, others)
    with pytest.raises(ModelError, match=message) as caught:
        check_family(open_checkpoint(str(folder), allow_pickle=True), [])
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_that_the_hub_was_not_asked_for_are_named(folder, tmp_path):
    snapshot = Path(shutil.copytree(folder, tmp_path / "snapshots" / "c0ffee"))
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"pickles .* only where they are .*--allow-pickle"
    ) as caught:
        open_checkpoint(str(snapshot))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="copy or download the model again"):
        open_checkpoint(str(snapshot), allow_pickle=True)


def test_an_index_may_name_a_tied_head_that_is_not_stored(qwen2_family, tmp_path):
    folder = Path(shutil.copytree(qwen2_family.base, tmp_path / "tied"))
    own = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = write_shards(folder, own)
    write_index(folder / INDEX, weight_map | {"lm_head.weight": "one.safetensors"})
    check_family(open_checkpoint(str(folder)), [open_checkpoint(qwen2_family.experts[0])])


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_values_may_begin_at_any_byte(padding, folder, llama_family):
    """Older versions of the library pad no header."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip() + b" " * padding
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    opened, wanted = open_checkpoint(str(folder)), load_file(file)
    assert opened.tensors.keys() == wanted.keys()
    assert all(torch.equal(opened.tensor(name), one) for name, one in wanted.items())


@pytest.mark.skipif(sys.platform != "linux", reason="where maps lie is the system's to say")
def test_equal_files_of_a_round_size_do_not_lie_a_multiple_of_256_mib_apart(tmp_path):
    """Else a Zen's first cache takes them for one another, and a merge takes twice as long."""
    length = 192 * 2**20 - 4096
    entry = {"w": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}
    header = json.dumps(entry).encode()
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        with (tmp_path / str(number) / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + length)  # sparse: it takes no room
    code = (
        "import sys; from pathlib import Path; "
        "from evomerge.merge.files import stored_tensors, weight_files; "
        "read = [stored_tensors(weight_files(Path(one)), None)[1] for one in sys.argv[1:]]; "
        "print(*(one('w').data_ptr() for one in read))"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / str(n)) for n in range(4))]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    addresses = list(map(int, found.split()))
    for place, one in enumerate(addresses):
        for other in addresses[:place]:
            assert 2**20 < (one - other) % 2**28 < 2**28 - 2**20

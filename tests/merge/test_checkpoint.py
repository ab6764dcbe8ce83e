"""Opening models, and one clear line for each way in which their files can be damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint


@pytest.fixture
def folder(llama_family, tmp_path) -> Path:
    return Path(shutil.copytree(llama_family.base, tmp_path / "model"))


def shard(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_headers_and_tensors(folder):
    checkpoint = open_checkpoint(str(folder))
    stored = load_file(folder / "model.safetensors")
    assert list(checkpoint.tensors) == sorted(stored)
    for name, tensor in stored.items():
        header = checkpoint.tensors[name]
        assert (header.shape, header.dtype) == (tuple(tensor.shape), tensor.dtype)
        assert (header.numel, header.nbytes) == (tensor.numel(), tensor.nbytes)
        assert torch.equal(checkpoint.tensor(name), tensor)
    assert checkpoint.config.model_type == "llama"
    assert checkpoint.folder == folder


def test_shards(folder):
    stored = load_file(folder / "model.safetensors")
    shard(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.tensors.keys() == stored.keys()
    assert all(torch.equal(checkpoint.tensor(name), stored[name]) for name in stored)


def test_pickles_only_when_allowed(folder):
    stored = load_file(folder / "model.safetensors")
    pickle(folder)
    with pytest.raises(ModelError, match=r"only a PyTorch pickle \(pytorch_model\.bin\)"):
        open_checkpoint(str(folder))
    checkpoint = open_checkpoint(str(folder), allow_pickle=True)
    assert all(torch.equal(checkpoint.tensor(name), stored[name]) for name in stored)


def test_a_pickle_that_runs_code_is_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Path("a")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be read as a PyTorch file"):
        open_checkpoint(str(folder), allow_pickle=True)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_shard(folder: Path) -> None:
    shard(folder)
    sorted(folder.glob("*.safetensors"))[1].unlink()


def break_the_index(folder: Path) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text("{}", encoding="utf-8")


def double(folder: Path) -> None:
    shard(folder)
    files = sorted(folder.glob("*.safetensors"))
    save_file(load_file(files[0]), files[1])


def edit_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"neither model\.safetensors nor"),
        (
            lambda f: (f / "model.safetensors").write_text(
                "version https://git-lfs.github.com/spec/v1"
            ),
            "a pointer of Git LFS",
        ),
        (truncate, r"model\.safetensors: truncated or not a safetensors file"),
        (lambda f: (f / "model.safetensors").write_text("x"), "truncated or not"),
        (lose_a_shard, r"names shard model-00002-of-\d+\.safetensors, which is missing"),
        (break_the_index, "not an index of shards"),
        (double, r"holds .*, and so does"),
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
        (lambda f: edit_config(f, "{"), "not a configuration that transformers reads"),
        (lambda f: edit_config(f, '{"model_type": "zzz"}'), "not a configuration"),
        (
            lambda f: edit_config(f, json.dumps({"model_type": "llama", "hidden_size": 3})),
            "not a configuration",
        ),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_errors_are_one_line_that_names_the_file(spoil, message, folder):
    spoil(folder)
    with pytest.raises(ModelError, match=message) as caught:
        open_checkpoint(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_tensor(folder):
    with pytest.raises(ModelError, match="has no tensor nowhere"):
        open_checkpoint(str(folder)).tensor("nowhere")

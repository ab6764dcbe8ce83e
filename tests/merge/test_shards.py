"""Files of weights: the bytes of the safetensors library, one tensor in memory at a time."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from benchmarks.speed._families import family
from benchmarks.speed.merge import anonymous_peak, made
from evomerge import candidate
from evomerge.errors import MergeError
from evomerge.merge import shards
from evomerge.merge.files import TensorHeader
from evomerge.merge.shards import write_tensors


def headers(tensors):
    return {name: TensorHeader(tuple(one.shape), one.dtype) for name, one in tensors.items()}


def test_the_library_would_write_the_same_bytes(tmp_path):
    tensors = {
        "z": torch.randn(3, 5).bfloat16(),
        "é": torch.randn(7),
        "a": torch.tensor(2.0, dtype=torch.float64),
        "b": torch.randn(5, 3).T.bfloat16(),
        "none": torch.zeros(0, 4),
    }
    write_tensors(tensors.items(), headers(tensors), tmp_path)
    plain = {name: one.contiguous() for name, one in tensors.items()}
    written = (tmp_path / "model.safetensors").read_bytes()
    assert written == save(plain, metadata={"format": "pt"})


def test_a_tensor_that_was_not_planned_is_refused(tmp_path):
    with pytest.raises(MergeError, match="w is"):
        write_tensors([("w", torch.zeros(2))], headers({"w": torch.zeros(3)}), tmp_path)


def test_a_file_that_finds_no_room_is_refused_before_the_first_tensor_is_made(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    planned = headers({"w": torch.zeros(10_000)})
    asked = ((name, pytest.fail("merged in vain")) for name in planned)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_tensors(asked, planned, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_is_written_goes_to_the_disk_meanwhile_and_its_errors_are_heard(tmp_path, monkeypatch):
    tensors = {name: torch.randn(64) for name in "abcdef"}
    synced = []
    monkeypatch.setattr(shards, "_FLUSHED", 512)
    monkeypatch.setattr(os, "fsync", synced.append)
    write_tensors(tensors.items(), headers(tensors), tmp_path)
    assert synced
    assert load_file(tmp_path / "model.safetensors").keys() == tensors.keys()

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_tensors(tensors.items(), headers(tensors), tmp_path)


def test_a_process_holds_little_more_than_one_tensor(tmp_path):
    """200 MB are written; the imports' own memory is that of a process that merges a small model.

    The large one is merged twice, and the second time counts: the first compiles the one pass.
    """
    folder = tmp_path / "large"
    models = family(folder, 100_000_000, experts=2)
    base = sum(file.stat().st_size for file in Path(models[0]).glob("*.safetensors"))
    assert base > 190_000_000
    small = family(tmp_path / "small", 10_000_000, experts=2)
    peaks = []
    for number, each in enumerate((small, models)):
        file, out = tmp_path / f"{number}.yaml", tmp_path / f"out{number}"
        candidate.save(made("task_arithmetic", each, 0, densities=False), file)
        command = [sys.executable, "-m", "evomerge", "merge", str(file)]
        options = ["--max-shard-size", "50MB", "--display", "none"]
        if each is models:
            subprocess.run([*command, str(tmp_path / "first"), *options], check=True)
        peaks.append(anonymous_peak([*command, str(out), *options]))
    assert len(load_file(next((tmp_path / "out1").glob("*.safetensors")))) > 1
    assert len(list((tmp_path / "out1").glob("*.safetensors"))) > 3
    assert peaks[1] - peaks[0] < base / 3

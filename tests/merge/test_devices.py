"""Devices and dtypes by name, and free memory."""

from __future__ import annotations

import pytest
import torch

from evomerge.candidate import Recipe, Source
from evomerge.errors import UserError
from evomerge.merge import devices
from evomerge.merge.devices import OUT_DTYPES, torch_dtype, usable_device
from evomerge.merge.live import LiveModel
from evomerge.merge.saving import save

UNUSABLE = ["mps", "xpu", "hpu", "vulkan", "meta", "cuda:99", "gpu", "cuda:x", "CPU", ""]


@pytest.mark.parametrize("name", [*UNUSABLE, torch.device("cuda:99")])
def test_what_is_not_here_is_refused(name):
    if str(name) == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match=rf'device: found "{name}", .*; available: cpu') as caught:
        usable_device(name)
    assert "\n" not in str(caught.value)


def test_the_cpu_is_everywhere():
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")


def test_dtypes():
    assert [torch_dtype(name) for name in OUT_DTYPES] == list(OUT_DTYPES.values())
    with pytest.raises(UserError, match='dtype: found "fp8", expected one of float32, bfloat16'):
        torch_dtype("fp8")


@pytest.mark.parametrize("wrong", [{"device": "cuda:99"}, {"dtype": "fp8"}])
def test_they_are_checked_before_any_model_is_opened(wrong, tmp_path):
    recipe = Recipe(method="passthrough", models=(Source("/nowhere"),))
    with pytest.raises(UserError, match='found "'):
        save(recipe, tmp_path / "out", **wrong)
    with pytest.raises(UserError, match='found "'):
        LiveModel(["/nowhere"], **{"dtype": "float32"} | wrong)
    assert not any(tmp_path.iterdir())


def test_this_machine_has_some():
    total, free = devices.host_memory()
    assert 10**6 < free <= total
    assert devices.free_memory(torch.device("cpu")) > 10**6


def test_a_container_has_what_its_control_group_allows(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_GROUP", tmp_path)
    total, _ = devices.host_memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.host_memory()[0] == total
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    (tmp_path / "memory.current").write_text(f"{2**27}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**20}\n")
    assert devices.host_memory() == (2**28, 2**27 + 2**20)


def test_of_a_gpu_the_driver_is_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 5))
    assert devices.gpu_memory(0) == (5, 3)
    assert devices.free_memory(torch.device("cuda")) == 3

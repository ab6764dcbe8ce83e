import torch

from evomerge.merge import devices
from evomerge.preflight.machine import here


def test_this_machine():
    found = here()
    assert found.cores >= 1
    assert 0 < found.host_free <= found.host
    assert found.resources == {"CPU": found.cores, "GPU": len(found.gpus)}


def test_gpus_are_those_that_torch_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (1, 80 + index))
    found = here()
    assert found.gpus == (80, 81)
    assert found.resources["GPU"] == 2
    assert devices.gpu_memory(1) == (81, 1)

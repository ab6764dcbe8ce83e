import torch

from evomerge.merge import devices


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

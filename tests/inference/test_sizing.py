import pytest
import torch
from transformers import LlamaConfig

from evomerge.inference import sizing

CPU = torch.device("cpu")
SMALL = LlamaConfig(hidden_size=96, intermediate_size=256, num_hidden_layers=4)
LARGE = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32)


def test_a_large_machine_takes_what_pays():
    assert sizing.room_of(SMALL, torch.float32, CPU).batch == 2048
    middle = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
    assert sizing.room_of(middle, torch.float32, CPU).batch == 512
    assert sizing.room_of(middle, torch.bfloat16, CPU).batch == 1024


def test_a_small_machine_takes_what_fits(monkeypatch):
    monkeypatch.setattr(sizing, "scoring_memory", lambda _: 2**29)
    large = sizing.room_of(LARGE, torch.float32, CPU).batch
    assert 256 <= large < 512
    assert sizing.room_of(LARGE, torch.bfloat16, CPU).batch == 2 * large
    assert large & (large - 1) == 0
    monkeypatch.setattr(sizing, "scoring_memory", lambda _: 2**19)
    assert sizing.room_of(LARGE, torch.float32, CPU).batch == 256
    assert sizing.room_of(LARGE, torch.float32, CPU).cached == 1


def test_keys_and_values_are_counted():
    config = LlamaConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    )
    tokens = sizing.room_of(config, torch.float32, CPU).cached
    # 2 (key, value) · 3 layers · 2 heads · 16 numbers · 4 bytes
    assert tokens == min(sizing.scoring_memory(CPU) // 4, 2**30) // (2 * 3 * 2 * 16 * 4)


def test_of_layers_on_several_devices_the_fullest_one_counts(monkeypatch):
    monkeypatch.setattr(sizing, "scoring_memory", lambda _: 2**33)
    one, half, few = (
        sizing.room_of(LARGE, torch.bfloat16, CPU, share=share, batch_tokens=4096)
        for share in (1.0, 0.5, 11 / 80)  # 4.4 of 32 layers: 5
    )
    assert half.cached // 2 == one.cached // 1
    assert few.cached == pytest.approx(one.cached * 32 / 5, rel=1e-3)
    assert (one.recompute, few.recompute) == (True, False)
    assert few.batch == half.batch == one.batch


def test_backward_passes_are_as_large_as_memory_lets_them(monkeypatch):
    def gradients(config, dtype, batch_tokens=4096):
        room = sizing.room_of(config, dtype, CPU, batch_tokens=batch_tokens)
        return room.gradients, room.gradient_pass, room.recompute

    assert gradients(SMALL, torch.float32) == (4096, 512, False)
    assert gradients(SMALL, torch.float32, 300) == (300, 300, False)
    monkeypatch.setattr(sizing, "scoring_memory", lambda _: 2**35)
    kept, _, recompute = gradients(LARGE, torch.bfloat16)
    assert 512 <= kept < 4096
    assert not recompute
    monkeypatch.setattr(sizing, "scoring_memory", lambda _: 2**33)
    assert gradients(LARGE, torch.bfloat16) == (4096, 512, True)
    monkeypatch.setattr(sizing, "scoring_memory", lambda _: 2**19)
    assert gradients(LARGE, torch.bfloat16)[0] == 256


def test_a_model_that_states_nothing():
    assert sizing.room_of(None, torch.float32, CPU).batch >= 256
    assert sizing.room_of(None, torch.float32, CPU).cached >= 1
    assert sizing.room_of(None, torch.float32, CPU).gradients >= 256


def test_what_a_worker_may_take_is_said_by_its_caller():
    gpu = torch.device("cuda")  # nothing of it is asked where the memory is given
    tokens = sizing.room_of(LARGE, torch.bfloat16, gpu, memory=26 * 10**9).batch
    assert tokens == 16384  # a quarter, 6.5 GB, over 213 kB a token, a power of two
    assert sizing.room_of(
        LARGE, torch.bfloat16, gpu, memory=26 * 10**9
    ).cached == 6_500_000_000 // (2 * 32 * 32 * 128 * 2)
    room = sizing.room_of(LARGE, torch.bfloat16, gpu, memory=26 * 10**9)
    assert not room.recompute
    assert 512 < room.gradients < tokens
    assert sizing.room_of(SMALL, torch.float32, CPU, memory=2**20).batch == 256

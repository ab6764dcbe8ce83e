"""Published models on real cards: sizes and plans from configurations alone, against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.files import TensorHeader
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS
from evomerge.merge.names import auto_class
from evomerge.merge.quantise import quantised_layers
from evomerge.workers.memory_plan import CONTEXT_BYTES, Machine, MemoryPlan, plan_memory
from evomerge.workers.model_sizes import Sizes, sizes_by_device, sizes_of
from evomerge.workers.placement import Sharing
from tests.conftest import Family
from tests.published_models import LLAMA_2_7B, LLAMA_3_2_1B, LLAMA_3_70B

GB = 10**9
H100 = int(79.2 * 2**30)  # what CUDA says that an "80 GB" card has
RTX4090 = int(23.6 * 2**30)
# Numbers of one layer: q and o, k and v, three of the MLP, two norms.
LAYER_70B = 2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28_672 + 2 * 8192
EMBEDDINGS_70B = 128_256 * 8192


def family(config: LlamaConfig, experts: int) -> dict[str, Checkpoint]:
    """Return open models of a configuration, stored in bfloat16, that have no files."""
    with torch.device("meta"):
        module = auto_class(config).from_config(config)
    tensors = {
        name: TensorHeader(tuple(each.shape), torch.bfloat16)
        for name, each in module.named_parameters()
    }

    def nothing(name: str) -> torch.Tensor:
        raise AssertionError(f"{name} is read")

    return {
        name: Checkpoint(name, Path(name), config, tensors, nothing)
        for name in ("base", *(f"expert {n}" for n in range(experts)))
    }


def planned(
    config: LlamaConfig, experts: int, gpus: int, device: int, method: str = "task_arithmetic"
) -> tuple[Sizes, tuple[Sizes, ...], MemoryPlan]:
    opened = family(config, experts)
    sizes, parts = sizes_of(opened, 2), sizes_by_device(opened, gpus, 2)
    machine = Machine(2000 * GB, 1900 * GB, device)
    return sizes, parts, plan_memory(sizes, machine, Sharing(), [METHODS[method]], parts)


@pytest.mark.parametrize(
    ("config", "numbers"),
    [(LLAMA_2_7B, 6_738_415_616), (LLAMA_3_70B, 70_553_706_496), (LLAMA_3_2_1B, 1_235_814_400)],
    ids=["7B", "70B", "1B"],
)
def test_parts_add_up_to_the_whole(config: LlamaConfig, numbers: int) -> None:
    opened = family(config, 2)
    whole, parts = sizes_of(opened, 2), sizes_by_device(opened, 4, 2)
    assert whole.numbers == numbers
    assert whole.models == (2 * numbers,) * 3
    for field in ("numbers", "deltas", "weights", "files"):
        assert sum(getattr(part, field) for part in parts) == getattr(whole, field), field
    assert sorted(n for part in parts for n in part.tensors) == sorted(whole.tensors)
    most = max(whole.tensors[0], 2 * LAYER_70B)
    assert max(part.weights for part in parts) <= whole.weights / 4 + most
    assert sizes_by_device(opened, 1, 2) == ()


def test_six_experts_of_7b_on_one_80_gb_stream_half() -> None:
    _, parts, plan = planned(LLAMA_2_7B, 6, 1, H100)
    assert parts == plan.devices == ()
    model = 2 * 6_738_415_616
    assert (plan.weights, plan.wanted) == (model, 7 * model)
    workspace = 4 * 9 * 32_000 * 4096  # TIES of the embeddings
    room = H100 - CONTEXT_BYTES - model - workspace - 32_000 * 4096 * 2 * 7
    assert plan.workspace == workspace
    assert plan.inputs == room - room // 5
    assert plan.streamed == 7 * model - plan.inputs == pytest.approx(42.8 * GB, rel=0.01)
    assert plan.faults == ()
    _, _, two = planned(LLAMA_2_7B, 6, 2, H100)
    assert (two.streamed, two.inputs) == (0, 7 * model)


def test_four_experts_of_70b_on_eight_80_gb() -> None:
    sizes, parts, plan = planned(LLAMA_3_70B, 4, 8, H100)
    numbers = 80 * LAYER_70B + 2 * EMBEDDINGS_70B + 8192
    assert sizes.numbers == sum(part.numbers for part in parts) == numbers
    assert plan.files == 5 * 2 * numbers == pytest.approx(705.5 * GB, rel=0.001)
    assert (plan.weights, plan.wanted) == (2 * numbers, 5 * 2 * numbers)
    first, second, third, *_, last = parts
    assert first.numbers == EMBEDDINGS_70B + 9 * LAYER_70B
    assert (second.numbers, third.numbers) == (10 * LAYER_70B, 11 * LAYER_70B)
    assert last.numbers == EMBEDDINGS_70B + 9 * LAYER_70B + 8192
    # On a GPU in the middle: what its ten layers leave, four fifths of it for models.
    middle, widest = plan.devices[1], 8192 * 28_672
    room = H100 - CONTEXT_BYTES - 20 * LAYER_70B - 4 * 9 * widest - widest * 2 * 5
    assert middle.inputs == room - room // 5
    assert middle.passes == room // 5
    assert all(one.fits and one.streamed > 0 for one in plan.devices)
    assert plan.streamed == sum(one.streamed for one in plan.devices)
    assert plan.passes == min(one.passes for one in plan.devices)
    for part, one in zip(parts, plan.devices, strict=True):
        taken = one.weights + one.inputs + one.workspace + one.passes + CONTEXT_BYTES
        assert taken <= H100
        assert one.weights == 2 * part.numbers
    assert plan.host + plan.files < 1900 * GB
    assert plan.faults == ()


def test_six_experts_of_1b_on_one_24_gb() -> None:
    _, _, plan = planned(LLAMA_3_2_1B, 6, 1, RTX4090)
    model, embeddings = 2 * 1_235_814_400, 128_256 * 2048
    room = RTX4090 - CONTEXT_BYTES - model - 4 * 9 * embeddings - embeddings * 2 * 7
    assert plan.inputs == room - room // 5 == pytest.approx(7.3 * GB, rel=0.01)
    assert plan.streamed == 7 * model - plan.inputs
    assert plan.fits


def test_too_few_gpus_are_said_to_be_too_few() -> None:
    _, _, plan = planned(LLAMA_3_70B, 4, 2, H100)
    assert not plan.fits
    (fault,) = plan.faults
    assert fault.startswith(
        "a worker needs 120.6 GB on one of its 2 GPUs at least, and has 85.0 GB; "
    )
    assert fault.endswith("or workers.gpus: 4")


def test_a_70b_model_in_4_bits_fits_one_card_while_it_is_scored() -> None:
    models = family(LLAMA_3_70B, 2)
    full, quantised = (sizes_of(models, 2, quantise=one) for one in (None, "nf4"))
    linear = 80 * (LAYER_70B - 2 * 8192)
    assert quantised.weights == full.weights - round((2 - 0.5625) * linear)
    assert 40 * GB < quantised.weights < 45 * GB < H100 < full.weights
    assert replace(quantised, weights=full.weights) == full
    parts = sizes_by_device(models, 2, 2, quantise="nf4")
    assert sum(one.weights for one in parts) == pytest.approx(quantised.weights)


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_quantised_weights_take_what_is_planned(scheme: str, llama_family: Family) -> None:
    pytest.importorskip("bitsandbytes")
    live = LiveModel(llama_family.models, dtype="bfloat16", quantise=scheme)
    found = sum(each.nbytes for each in live.module.parameters())
    for _, layer in quantised_layers(live.module):
        if scheme == "nf4":
            found += layer.weight.quant_state.absmax.nbytes
    assert sizes_of(live.checkpoints, 2, quantise=scheme).weights == found

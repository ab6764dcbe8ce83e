from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evomerge.candidate import Merge, Vocabulary
from evomerge.errors import MergeError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.live import LiveModel
from evomerge.merge.random_vectors import randomised
from evomerge.merge.task_vectors import task_vectors
from tests.conftest import Family


def test_noise_has_the_norms_of_the_task_vector_and_nothing_else_of_it(
    llama_family: Family,
) -> None:
    base, expert = (open_checkpoint(name) for name in llama_family.models[:2])
    noise = randomised(expert, base, "0/1")
    for name in base.tensors:
        own, drawn = (one.tensor(name) - base.tensor(name) for one in (expert, noise))
        assert drawn.norm().item() == pytest.approx(own.norm().item(), rel=1e-4)
        assert drawn.dtype == torch.float32
    for one in task_vectors(base, [expert, noise])[1:5]:
        assert one.cosines[0][1] == pytest.approx(0, abs=0.05)


def test_noise_is_drawn_by_its_key(llama_family: Family) -> None:
    base, expert = (open_checkpoint(name) for name in llama_family.models[:2])
    name = "model.layers.1.mlp.up_proj.weight"
    first, again = (randomised(expert, base, "0/1").tensor(name) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, randomised(expert, base, "1/1").tensor(name))
    other = randomised(expert, base, "0/1").tensor(name.replace(".1.", ".2."))
    assert not torch.equal(
        first - base.tensor(name), other - base.tensor(name.replace(".1.", ".2."))
    )


def test_what_is_like_the_base_stays(llama_family: Family) -> None:
    base, expert = (open_checkpoint(name) for name in llama_family.models[:2])
    name = "model.norm.weight"
    same = replace(
        expert, _read=lambda one: base.tensor(one) if one == name else expert.tensor(one)
    )
    assert torch.equal(randomised(same, base, "0/1").tensor(name), base.tensor(name))


def test_a_live_model_of_noise_is_written_into_the_same_module(llama_family: Family) -> None:
    live = LiveModel(llama_family.models, dtype="float32")
    merge = Merge(
        "task_arithmetic",
        llama_family.experts,
        llama_family.base,
        own={"weight": (((0.5, 0.0, -0.2),),)},
    )
    live.write(merge)
    name = "model.layers.1.mlp.up_proj.weight"
    plain = live.module.state_dict()[name].clone()
    noise = live.randomised(3)
    assert noise.module is live.module
    noise.write(merge)
    base, experts = noise.models.base, [noise.checkpoints[one] for one in llama_family.experts]
    expected = base.tensor(name) + 0.5 * (experts[0].tensor(name) - base.tensor(name))
    expected -= 0.2 * (experts[2].tensor(name) - base.tensor(name))
    torch.testing.assert_close(live.module.state_dict()[name], expected)
    live.write(merge)
    assert torch.equal(live.module.state_dict()[name], plain)


def test_models_that_are_matched_by_token_have_none(llama_family: Family) -> None:
    live = LiveModel(llama_family.models, dtype="float32", vocabulary=Vocabulary("union"))
    with pytest.raises(MergeError, match="one vocabulary"):
        live.randomised(0)

"""Which merges are adapters of the base, and that what is written for them is the merge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evomerge.candidate import Merge
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.exact_adapters import ExactAdapters, summed_rank
from evomerge.merge.live import LiveModel
from tests.combine.crew import adapter
from tests.conftest import Family

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]


@pytest.fixture(scope="module")
def live(llama_family: Family, tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    """A base, adapters of ranks 2 and 3, one whose norms are trained too, and a full model."""
    base, folder = llama_family.base, tmp_path_factory.mktemp("adapters")
    made = [
        adapter(base, folder / "first", 1),
        adapter(base, folder / "second", 2, r=3, target_modules=["q_proj", "up_proj"]),
        adapter(base, folder / "norms", 3, modules_to_save=["norm"]),
    ]
    models = (base, *(f"{base}+{one}" for one in made), llama_family.experts[0])
    return LiveModel(models, dtype="float32")


@pytest.fixture(scope="module")
def adapters(live: LiveModel) -> ExactAdapters:
    return ExactAdapters(live)


def merge(
    live: LiveModel, *weights: float, method: str = "task_arithmetic", **fixed: float
) -> Merge:
    """A merge of the first experts, with weights that differ by half of the layers."""
    base, *experts = live.checkpoints
    own = {"weight": ((tuple(weights),), (tuple(reversed(weights)),))}
    chosen = tuple(experts[: len(weights)])
    return Merge(
        method, chosen, base, groups=((0, 2), (2, 4)), own=own, fixed=fixed, dtype="float32"
    )


def test_the_adapter_is_the_merge(live: LiveModel, adapters: ExactAdapters, tmp_path: Path) -> None:
    candidate = merge(live, 0.7, -0.4)
    updates = adapters.updates(candidate)
    assert updates
    assert {one.rank for one in updates.values()} == {2, 3, 5}
    adapters.write(updates, tmp_path / "adapter")
    adapted = open_checkpoint(f"{live.models.base.name}+{tmp_path / 'adapter'}")
    run = live.run(candidate)
    for name, merged in run.tensors():
        torch.testing.assert_close(adapted.tensor(name), merged, rtol=0, atol=1e-6)


def test_a_merge_of_nothing_is_the_base(
    live: LiveModel, adapters: ExactAdapters, tmp_path: Path
) -> None:
    nothing = adapters.updates(merge(live, 0.0, 0.0))
    assert nothing == {}
    adapters.write(nothing, tmp_path / "adapter")
    adapted = open_checkpoint(f"{live.models.base.name}+{tmp_path / 'adapter'}")
    for name in adapted.tensors:
        assert torch.equal(adapted.tensor(name), live.models.base.tensor(name))


def test_sparse_methods_are_adapters_only_where_nothing_is_dropped(
    live: LiveModel, adapters: ExactAdapters
) -> None:
    assert adapters.updates(merge(live, 0.5, 0.5, method="dare_linear", density=0.5)) is None
    assert adapters.updates(merge(live, 0.5, 0.5, method="ties", density=1.0)) is None
    whole = adapters.updates(merge(live, 0.5, 0.5, method="dare_linear", density=1.0))
    assert whole is not None
    assert whole.keys() == (adapters.updates(merge(live, 0.5, 0.5)) or {}).keys()


def test_what_an_adapter_cannot_hold_is_none(live: LiveModel, adapters: ExactAdapters) -> None:
    assert adapters.updates(merge(live, 0.5, 0.5, 0.1)) is None  # trained norms
    assert adapters.updates(merge(live, 0.1, 0.0, 0.0, 0.1)) is None  # a full model
    half = replace(merge(live, 0.5, 0.5), method="linear", base=None, merges_base=False)
    assert adapters.updates(half) is not None
    assert adapters.updates(replace(half, fixed={"normalize": False})) is not None  # they sum to 1
    halves = {"weight": (((0.5, 0.4),),)}
    shrunk = replace(half, groups=((0, 4),), own=halves, fixed={"normalize": False})
    assert adapters.updates(shrunk) is None


def test_ranks_are_summed_by_tensor(live: LiveModel) -> None:
    _, first, second, norms, full = live.checkpoints.values()
    assert summed_rank([first, full]) == 2
    assert summed_rank([first, second]) == 5
    assert summed_rank([first, second, norms]) == 7
    assert summed_rank([full]) == 0

"""Copies through two buffers, with a device that takes a buffer only when it is waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from evomerge.merge import staging
from evomerge.merge.staging import Staging, to_device


class Late(torch.Tensor):
    """Memory of a device: copies into it are done when an event behind them is waited for."""

    queue: list[Callable[[], object]]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = super().__torch_function__
        if func is torch.Tensor.copy_ and isinstance(args[0], Late):
            assert kwargs == {"non_blocking": True}
            cls.queue.append(lambda: call(func, types, args))
            return args[0]
        return call(func, types, args, kwargs or {})


class Event:
    """As `torch.cuda.Event`."""

    def __init__(self) -> None:
        self.behind = 0

    def record(self, stream: object) -> None:
        self.behind = len(Late.queue)

    def synchronize(self) -> None:
        for place in range(self.behind):
            Late.queue[place]()
            Late.queue[place] = lambda: None


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Staging:
    empty = torch.empty
    Late.queue = []
    monkeypatch.setattr(staging, "PIECE", 96)
    monkeypatch.setattr(staging, "_pinned", lambda size: empty(size, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).as_subclass(Late))
    return Staging(torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_every_byte_arrives_whatever_is_copied_meanwhile(late: Staging, dtype: torch.dtype) -> None:
    shapes = (7, 3), (5,), (), (0, 4), (40, 11)
    tensors = [(100 * torch.randn(shape)).to(dtype) for shape in shapes]
    tensors.append(torch.arange(60).view(6, 10).T.to(dtype))  # not contiguous
    copies = [late.copy(tensor) for tensor in tensors]
    assert len(Late.queue) > 10
    for copy in Late.queue:
        copy()
    for tensor, made in zip(tensors, copies, strict=True):
        assert made.dtype == dtype
        assert torch.equal(made.as_subclass(torch.Tensor), tensor)


def test_other_devices_get_a_plain_copy() -> None:
    tensor = torch.randn(3)
    assert to_device(tensor, torch.device("meta")).device.type == "meta"
    assert to_device(tensor, torch.device("cpu")) is tensor

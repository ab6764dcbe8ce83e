"""Devices to spread models over where there are none: CPU tensors that say another device.

A tensor of one device refuses to meet a tensor of another one, or of the CPU, as on GPUs. torch,
transformers' loading and accelerate's hooks take them as they take GPUs; autograd sees the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = "privateuseone"
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
_run_backward = torch.autograd._engine_run_backward


class Placed(torch.Tensor):
    """A tensor in the CPU's memory that says another device."""

    own: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, own: torch.Tensor, place: torch.device) -> Placed:
        with torch.inference_mode(False):  # whose tensors cannot be views of others
            made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                own.shape,
                strides=own.stride(),
                storage_offset=own.storage_offset(),
                dtype=own.dtype,
            )
        made.own, made.place = own, torch.device(place.type, place.index or 0)  # as CUDA does
        return made

    def __init__(self, own: torch.Tensor, place: torch.device) -> None:
        pass

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Placed({self.own}, {self.place})"

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        made: torch.Tensor = Placed(self.own.clone(), self.place)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    def data_ptr(self) -> int:
        return self.own.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.own.untyped_storage()

    def tolist(self) -> Any:
        return self.own.tolist()

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        flat, spec = tree_flatten((args, dict(kwargs or {})))
        placed = [each for each in flat if isinstance(each, Placed)]
        is_copy = func is torch.ops.aten.copy_.default
        if not is_copy:
            _check_together(func, flat)
        known = {id(each.own): each for each in placed}
        plain = [each.own if isinstance(each, Placed) else each for each in flat]
        own_args, own_kwargs = tree_unflatten(plain, spec)
        found = func(*own_args, **own_kwargs)
        if is_copy:
            return args[0]

        def back(each: Any) -> Any:
            if not isinstance(each, torch.Tensor):
                return each
            return known[id(each)] if id(each) in known else Placed(each, placed[0].place)

        return tree_map(back, found)


def _check_together(func: Any, arguments: Sequence[Any]) -> None:
    tensors = [each for each in arguments if isinstance(each, torch.Tensor)]
    places = {each.place for each in tensors if isinstance(each, Placed)}
    others = [each for each in tensors if not isinstance(each, Placed) and each.dim()]
    may_mix = func._opname in _INDEXING or torch._C._current_graph_task_id() != -1  # autograd's own
    if len(places) > 1 or (others and not may_mix):
        found = sorted(map(str, places)) + ["cpu"] * bool(others)
        raise RuntimeError(f"{func}: expected all tensors on one device, found {found}")


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        ctx.origin = tensor.device
        return _copied(tensor, device)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _copied(gradient, ctx.origin), None


def _copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    plain = (tensor.own if isinstance(tensor, Placed) else tensor).detach().clone()
    return plain if device.type == "cpu" else Placed(plain, device)


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("to", "cpu") and args and isinstance(args[0], torch.Tensor):
            return _moved(func, name, *args, **kwargs)
        if func == torch.Tensor.data.__set__ and isinstance(args[0], Placed):  # type: ignore[attr-defined]
            args[0].own = args[1].own
        device = kwargs.get("device")
        if device is None or torch.device(device).type != DEVICE:
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": "cpu"})
        return Placed(getattr(made, "own", made), torch.device(device))


def _moved(
    func: Callable[..., torch.Tensor],
    name: str,
    tensor: torch.Tensor,
    *rest: Any,
    device: Any = None,
    dtype: torch.dtype | None = None,
    copy: bool = False,
    **_: Any,
) -> torch.Tensor:
    device = torch.device("cpu") if name == "cpu" else device
    for each in rest:
        if isinstance(each, torch.Tensor):
            device, dtype = each.device, each.dtype
        elif isinstance(each, torch.dtype):
            dtype = each
        elif isinstance(each, str | torch.device):
            device = each
    made = tensor if dtype is None or dtype == tensor.dtype else func(tensor, dtype)
    if device is not None and torch.device(device) != tensor.device:
        move = _Move.apply if torch.is_grad_enabled() else _copied
        return move(made, torch.device(device))
    return made.clone() if copy and made is tensor else made


@contextmanager
def pseudo_devices(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let tensors be made on, and moved to, devices of the type `DEVICE` and any index."""
    mode = _Mode()

    def run(*args: Any, **kwargs: Any) -> Any:  # within a function that it sees the mode is off
        with mode:
            return _run_backward(*args, **kwargs)

    patch.setattr(torch.autograd, "_engine_run_backward", run)
    patch.setattr(torch.utils.checkpoint, "_infer_device_type", lambda *_: "cpu")  # of autocast
    patch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # the mode is this thread's
    with mode:
        yield

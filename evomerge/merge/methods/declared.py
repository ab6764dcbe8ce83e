"""The decorator `evomerge.method`: a function of one tensor's inputs becomes a merge method of the user's."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from evomerge.errors import EvomergeError, MergeError
from evomerge.merge.methods.method import Inputs, Method, NumberGradients, Parameter

if TYPE_CHECKING:
    import torch

Found = TypeVar("Found")
DECLARED: list[Method] = []
"""Every method that this process declared so, in order."""


def method(
    name: str,
    parameters: Mapping[str, Parameter] = MappingProxyType({}),
    *,
    base: bool = True,
    gradients: Callable[[Inputs, torch.Tensor], NumberGradients] | None = None,
    **further: Any,  # noqa: ANN401 - attributes of `Method`
) -> Callable[[Callable[[Inputs], torch.Tensor]], Method]:
    """Make a merge method of the function below it.

    The function gets the inputs of one output tensor and returns the merged tensor: of their shape and dtype,
    finite, in memory of its own. It writes into none of them, and depends on nothing else. Where it raises or
    returns something else, the merge fails with one line that names method and tensor.

    Args:
        name: What recipes and campaigns call it.
        parameters: Name → what it takes.
        base: It merges task vectors: a base is required, and told apart. Otherwise all models are alike.
        gradients: As of `Method`, for samplers that go by gradients.
        further: Other attributes of `Method`, such as `min_models`, `rows` or `temporaries`.

    Returns:
        What turns the function into a `Method`.

    Raises:
        TypeError: `parameters` are no parameters, or an attribute is unknown.
        ValueError: The name is empty.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"found {name!r}, expected the name of a merge method")
    for key, spec in parameters.items():
        if not isinstance(spec, Parameter):
            raise TypeError(f"{name}: found {spec!r} for {key}, expected an evomerge.Parameter")
    told_apart = {"needs_base": base, "uses_base": base, "reads_deltas": base}

    def declare(function: Callable[[Inputs], torch.Tensor]) -> Method:
        found = Method(
            name=name,
            merge=partial(_merged, name, function),
            parameters=dict(parameters),
            gradients=None if gradients is None else partial(_called, name, gradients),
            **(told_apart | further),
        )
        DECLARED.append(found)
        return found

    return declare


def _merged(name: str, function: Callable[[Inputs], torch.Tensor], inputs: Inputs) -> torch.Tensor:
    import torch

    merged = _called(name, function, inputs)
    where, kind = f'method "{name}" returned', getattr(merged, "dtype", None)
    expected = f"{list(inputs.shape)} of {inputs.dtype}"
    if not isinstance(merged, torch.Tensor):
        raise MergeError(f"{where} {type(merged).__name__} for {inputs.name}, expected {expected}")
    if merged.shape != inputs.shape or kind != inputs.dtype:
        found = f"{list(merged.shape)} of {kind}"
        raise MergeError(f"{where} {found} for {inputs.name}, expected {expected}")
    if not bool(torch.isfinite(merged).all()):
        raise MergeError(f"{where} NaN or infinity for {inputs.name}")
    return merged


class _Watched:
    """Inputs that know whether a tensor was written into that they gave."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._given: list[tuple[weakref.ref[torch.Tensor], int]] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever inputs have
        found = getattr(self._inputs, name)
        return partial(self._noted, found) if callable(found) else found

    @property
    def is_written(self) -> bool:
        """Whether one was that is read again; what nobody holds any more was the method's own."""
        alive = ((given(), version) for given, version in self._given)
        return any(one is not None and one._version != version for one, version in alive)

    def _noted(self, give: Callable[..., Any], *args: Any, **named: Any) -> Any:  # noqa: ANN401
        import torch

        found = give(*args, **named)
        if isinstance(found, torch.Tensor):
            self._given.append((weakref.ref(found), found._version))
        return found


def _called(name: str, function: Callable[..., Found], inputs: Inputs, *more: object) -> Found:
    """Call a user's function; what it raises, of whatever type, names the tensor and the line."""
    import torch

    watched = _Watched(inputs)
    try:
        found = function(watched, *more)
        if watched.is_written:
            raise MergeError(
                f'method "{name}" writes into an input of {inputs.name}; clone it first'
            )
        return found
    except (EvomergeError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())
        raise MergeError(
            f'method "{name}" failed on {inputs.name}: {type(error).__name__}: {reason} '
            f"({last.filename}, line {last.lineno})"
        ) from error

"""What a trial does, counted: seconds and multiply-adds of passes, tokeniser calls, requests built."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from lm_eval.api.task import ConfigurableTask
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase


@dataclass
class Passes:
    """Forward passes so far: their number, and processor seconds inside them."""

    count: int = 0
    seconds: float = 0.0


@contextmanager
def passes_of(module: nn.Module) -> Iterator[Passes]:
    """Count a module's forward passes and the processor seconds spent inside them."""
    found, started = Passes(), [0.0]

    def before(*_: Any) -> None:
        started[0] = time.process_time()

    def after(*_: Any) -> None:
        found.count += 1
        found.seconds += time.process_time() - started[0]

    handles = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def multiply_adds_of(module: nn.Module) -> Iterator[list[int]]:
    """Count the multiply-adds of a module's linear layers, its output embedding among them."""
    found = [0]

    def after(layer: nn.Linear, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        found[0] += inputs[0].numel() // layer.in_features * layer.weight.numel()

    linear = [each for each in module.modules() if isinstance(each, nn.Linear)]
    handles = [each.register_forward_hook(after) for each in linear]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def prepared(tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Count how often anything is tokenised, or a request of lm-eval built."""
    found = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            found[0] += 1
            return function(*arguments, **named)

        return call

    kind = type(tokenizer)
    with (
        patch.object(kind, "__call__", counted(kind.__call__)),
        patch.object(kind, "encode", counted(kind.encode)),
        patch.object(
            ConfigurableTask, "construct_requests", counted(ConfigurableTask.construct_requests)
        ),
    ):
        yield found


def timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """Add a function's processor seconds to `spent[0]`."""

    def call(*arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            spent[0] += time.process_time() - start

    return call

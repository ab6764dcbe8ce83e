"""Live weights quantised by bitsandbytes as they are written: nf4, fp4 (2305.14314) and int8 (2208.07339).

A merge is computed in full precision, tensor by tensor, and of the linear layers that transformers quantises
only codes and scales are kept: what loading the saved merge with the same `BitsAndBytesConfig` gives.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BitsAndBytesConfig

from evomerge.errors import ModelError

PACKAGE = "bitsandbytes"
INT8 = "int8"
FUSED = (
    "{} is not possible: transformers converts the files' tensors when it loads them (experts fused at "
    "loading); score in full precision"
)


def check_package(scheme: str) -> None:
    """Check that what quantises is installed. Raises ModelError."""
    if find_spec(PACKAGE) is None:
        raise ModelError(
            f"{scheme} needs {PACKAGE}; install it with: pip install 'evomerge[quantised]'"
        )


def loading(scheme: str | None, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that quantise a model while it is loaded.

    Args:
        scheme: nf4, fp4 or int8; None: it is not to be quantised.
        dtype: Of the activations, and of what is not quantised.
        device: Of the model.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if scheme is None:
        return {}
    check_package(scheme)
    if scheme == INT8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=scheme, bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": device}}


def quantised_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give the quantised layers of a module that was loaded so, by the names of their weights."""
    if not getattr(module, "is_quantized", False):
        return
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    for name, layer in module.named_modules():
        if not isinstance(layer, Linear4bit | Linear8bitLt):
            continue
        if isinstance(layer, Linear4bit) and layer.weight.device.type == "cpu":
            layer.forward = partial(_multiplied, layer)
        yield f"{name}.weight", layer


def write(layer: Any, weight: torch.Tensor) -> None:  # noqa: ANN401 - of bitsandbytes
    """Put codes and scales of a weight in the place of a layer's own.

    Args:
        layer: One of `quantised_layers`.
        weight: In its files' layout and the model's dtype, on the layer's device.
    """
    from bitsandbytes.functional import int8_vectorwise_quant, quantize_4bit
    from bitsandbytes.nn import Linear8bitLt

    own = layer.weight
    if layer.source_cls is not nn.Linear:  # transformers' Conv1D, whose files are transposed
        weight = weight.T
    weight = weight.contiguous()
    if isinstance(layer, Linear8bitLt):
        own.data, scales, _ = int8_vectorwise_quant(weight.to(torch.float16))
        own.CB, own.SCB = own.data, scales  # the next forward pass takes them
        return
    own.data, own.quant_state = quantize_4bit(
        weight,
        blocksize=own.blocksize,
        compress_statistics=own.compress_statistics,
        quant_type=own.quant_type,
        quant_storage=own.quant_storage,
    )
    layer.quant_state = own.quant_state


def _multiplied(layer: Any, states: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - of bitsandbytes
    """Decode a layer's weight and multiply by it in the dtype of the states.

    On processors bitsandbytes 0.50 decodes rows wrongly that are not whole blocks (of 64 numbers), and where
    there is AVX512-BF16 it multiplies in bfloat16 whatever the dtype. As one row all is decoded rightly.
    """
    from bitsandbytes.functional import dequantize_4bit

    state = copy.copy(layer.weight.quant_state)
    shape, state.shape = state.shape, torch.Size((1, state.shape.numel()))
    weight = dequantize_4bit(layer.weight.data, state).view(shape)
    return F.linear(states, weight.to(states.dtype), layer.bias)

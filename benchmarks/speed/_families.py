"""A base and fine-tuned experts of random numbers, in the shapes of a Llama, in bfloat16."""

from __future__ import annotations

import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

SHAPES = {  # parameters → hidden size, layers, vocabulary
    1_000_000: (128, 3, 1024),
    10_000_000: (256, 8, 3200),
    100_000_000: (768, 10, 4000),
    500_000_000: (1024, 26, 32_000),
    1_000_000_000: (2048, 14, 16_000),
}
NOISE, STEP = 0.02, 0.001
"""Standard deviation of a base's numbers, and of a task vector's."""


def family(folder: Path, parameters: int, experts: int = 3, device: str = "cpu") -> list[str]:
    """Write a base and experts, unless they are there; return their folders, the base first.

    Args:
        folder: Where to.
        parameters: About how many each has.
        experts: How many there are.
        device: That draws the numbers; a GPU is quick, and draws others.
    """
    hidden, layers, vocabulary = SHAPES[min(SHAPES, key=lambda size: abs(size - parameters))]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    with torch.device("meta"):
        shapes = {
            k: v.shape for k, v in AutoModelForCausalLM.from_config(config).state_dict().items()
        }
    paths = [folder / f"{hidden}x{layers}" / f"model{number}" for number in range(experts + 1)]
    for number, path in enumerate(paths):
        if (path / "config.json").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        tensors = {name: _numbers(shape, name, number, device) for name, shape in shapes.items()}
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(path)
    return [str(path) for path in paths]


def _numbers(shape: torch.Size, name: str, number: int, device: str) -> torch.Tensor:
    def draw(key: str, scale: float) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(zlib.crc32(key.encode()))
        return torch.randn(shape, generator=generator, device=device).mul_(scale)

    base = draw(name, NOISE)
    return (base.add_(draw(f"{name}{number}", STEP)) if number else base).bfloat16().cpu()

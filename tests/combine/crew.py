"""Ensembles of tiny models: full, adapted and merged members, and a router that knows no favourite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Router, RouterFit
from tests.conftest import Family

PROMPTS = [
    f"{word} {number}" for word in ("alpha", "beta?", "to be or", "x") for number in range(9)
]
LAYER = 2


def adapter(base: str, folder: Path, seed: int = 0, **options: object) -> Path:
    """Save a random adapter."""
    torch.manual_seed(seed)
    options = {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **options}
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    adapted.save_pretrained(folder)
    return folder


def alone(model: str, dtype: str = "float32") -> Merge:
    return Merge("passthrough", (model,), dtype=dtype)


def ensemble(
    base: str, members: dict[str, Merge], *, layer: int = LAYER, fallback: str | None = None
) -> Ensemble:
    """An ensemble whose router is drawn at random."""
    rng = np.random.default_rng(0)
    width = AutoConfig.from_pretrained(base).hidden_size

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    fit = RouterFit(
        {
            "mean": drawn(1, width) * 0.1,
            "scale": np.abs(drawn(1, width)) + 0.5,
            "coefficients": drawn(len(members), width + 1) * np.float32([1.0] * width + [0.0]),
            "errors": np.abs(drawn(len(members), 1)),
            "lambdas": np.ones((len(members), 1), np.float32),
        }
    )
    return Ensemble(base, members, Router(layer, fallback), None, fit)


def crew(family: Family, folder: Path, dtype: str = "float32") -> Ensemble:
    """Members of every form: the base, a full expert, two adapters, an adapter that is none, a merge."""
    base, (expert, other, _) = family.base, family.experts
    adapters = {
        "lora": adapter(base, folder / "lora", 1),
        "second": adapter(base, folder / "second", 2, r=4, use_rslora=True),
        "head": adapter(base, folder / "head", 3, modules_to_save=["lm_head"]),
    }
    members = {"base": alone(base, dtype), "an expert/1": alone(expert, dtype)}
    members |= {name: alone(f"{base}+{path}", dtype) for name, path in adapters.items()}
    members["best"] = Merge(
        "task_arithmetic", (expert, other), base, fixed={"weight": 0.5}, dtype=dtype
    )
    return ensemble(base, members)

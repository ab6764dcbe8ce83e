"""PEFT's adapter folders → an `Adapter`; whatever would merge wrongly is refused by name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from evomerge.errors import ModelError
from evomerge.merge.adapter import Adapter, Change, Pair
from evomerge.merge.files import pickle_error, pickled_tensors, safetensors_error

PREFIX = "base_model.model."
FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.weight)?$")
INSIDE = re.compile(r"(\.(modules_to_save|base_layer|token_adapter))+\.")
"""What PEFT's wrappers put into the name of the weight that they wrap."""
TOKENS = re.compile(r"^(?P<module>.+?)(\.token_adapter)?\.trainable_tokens_delta$")
REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "layer_replication": "layer replication",
    "alora_invocation_tokens": "activated LoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "lora_bias": "a LoRA bias",
    "target_parameters": "LoRA on parameters (such as fused experts)",
}
KNOWN = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_rslora",
}
"""What PEFT 0.21 writes, or earlier releases wrote, and what changes nothing, or what is obeyed."""
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` that take a part of the base's weights away before the training."""


def open_adapter(folder: Path, *, allow_pickle: bool = False) -> Adapter:
    """Read a PEFT LoRA folder; `allow_pickle`: also `adapter_model.bin` where there is no safetensors file.

    Raises:
        ModelError: No adapter_config.json or weights, another kind than plain LoRA, a damaged file, or a
            tensor in it that is neither a factor nor a weight.
    """
    config = _config(folder)
    file, stored = _weights(folder, allow_pickle)
    changes: dict[str, Change] = {}
    factors: dict[tuple[str, bool], dict[str, torch.Tensor]] = {}

    def change(name: str, **found: Any) -> None:  # noqa: ANN401 - fields of a change
        changes[name] = replace(changes.get(name, Change()), **found)

    for key, tensor in stored.items():
        name = key.removeprefix(PREFIX)
        if match := FACTOR.match(name):
            place = (match["module"], match["embedding"] is not None)
            factors.setdefault(place, {})[match["factor"]] = tensor
        elif match := TOKENS.match(name):
            indices = _indices(config, match["module"], tensor, folder)
            change(f"{match['module']}.weight", indices=indices, rows=tensor)
        elif ".original_module." in name:
            continue  # what `modules_to_save` was before it was trained
        elif "lora_" in name:
            raise ModelError(f"holds {key}, which does not belong to a plain LoRA", file=file)
        else:
            plain = INSIDE.sub(".", name)
            change(plain, weight=tensor, trained=_is_trained(config, plain))
    for (module, embedding), found in factors.items():
        if set(found) != {"A", "B"}:
            raise ModelError(f"holds only one of the two factors of {module}", file=file)
        shapes = [list(found[factor].shape) for factor in "AB"]
        if [len(shape) for shape in shapes] != [2, 2] or shapes[0][0] != shapes[1][1]:
            raise ModelError(
                f"holds factors A {shapes[0]} and B {shapes[1]} of {module}, expected [rank, in] and "
                "[out, rank]",
                file=file,
            )
        scale = _scale(config, module, rank=shapes[0][0])
        change(f"{module}.weight", pair=Pair(found["A"], found["B"], scale, embedding))
    keeps_tie, conv1d = bool(config.get("ensure_weight_tying")), bool(config.get("fan_in_fan_out"))
    named = config.get("base_model_name_or_path")
    trained_on = named if isinstance(named, str) and named else None
    return Adapter(folder, changes, keeps_tie, conv1d, trained_on)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise ModelError("no adapter_config.json; expected a PEFT LoRA folder", file=folder)
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"not valid JSON: {error}", file=path) from None
    if not isinstance(config, dict):
        raise ModelError("expected a mapping of settings", file=path)
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"peft_type is {config.get('peft_type')}; only LORA adapters can be merged", file=path
        )
    kinds = {key: REFUSED[key] for key in REFUSED if config.get(key)}
    kinds |= {
        key: "this setting" for key in config if config[key] and key not in {*KNOWN, *REFUSED}
    }
    initial = str(config.get("init_lora_weights", True)).lower()
    if initial.startswith(CHANGED_BASE):
        kinds["init_lora_weights"] = f"{initial}, which trains on a base that it has changed,"
    for key, kind in kinds.items():
        raise ModelError(
            f"{key}: {kind} is not supported; merge the adapter with PEFT first and name the "
            "result instead",
            file=path,
        )
    for key, (is_right, expected) in EXPECTED.items():
        if config.get(key) is not None and not is_right(config[key]):
            raise ModelError(f"found {config[key]!r}, expected {expected}", file=path, field=key)
    return config


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_pattern(value: object) -> bool:
    if not isinstance(value, dict) or not all(map(_is_number, value.values())):
        return False
    try:
        return all(re.compile(f"({pattern})$") for pattern in value)
    except re.error:
        return False


def _are_modules(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _are_rows(value: object) -> bool:
    return all(
        isinstance(rows, list) for rows in (value.values() if isinstance(value, dict) else [value])
    )


EXPECTED: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "lora_alpha": (_is_number, "a number"),
    "alpha_pattern": (_is_pattern, "a mapping of regular expressions to numbers"),
    "modules_to_save": (_are_modules, "a list of modules"),
    "trainable_token_indices": (
        _are_rows,
        "a list of rows, or a mapping of modules to them",
    ),
}
"""Setting that is obeyed → whether its value can be, and what was expected."""


def _weights(folder: Path, allow_pickle: bool) -> tuple[Path, dict[str, torch.Tensor]]:
    file, pickle = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    if file.is_file():
        try:
            return file, load_file(file)
        except (SafetensorError, OSError) as error:
            raise safetensors_error(file, error) from None
    if not pickle.is_file():
        raise ModelError("no adapter_model.safetensors beside adapter_config.json", file=folder)
    if not allow_pickle:
        raise pickle_error(folder, pickle.name)
    return pickle, pickled_tensors(pickle)


def _is_trained(config: Mapping[str, Any], name: str) -> bool:
    """Tell a tensor that was trained from a copy of an embedding layer that PEFT saved beside it."""
    module, _, kind = name.rpartition(".")
    asked = config.get("modules_to_save") or ()
    return kind != "weight" or any(module.endswith(part) for part in asked)


def _indices(
    config: Mapping[str, Any], module: str, rows: torch.Tensor, folder: Path
) -> tuple[int, ...]:
    asked = config.get("trainable_token_indices") or []
    if isinstance(asked, dict):
        asked = next((found for key, found in asked.items() if module.endswith(key)), [])
    if len(asked) != len(rows) or not all(type(one) is int and one >= 0 for one in asked):
        raise ModelError(
            f"holds {len(rows)} trained rows of {module}, trainable_token_indices names "
            f"{len(asked)}",
            file=folder / "adapter_config.json",
        )
    return tuple(asked)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = _patterned(config.get("alpha_pattern"), module, config.get("lora_alpha"))
    alpha = 8.0 if alpha is None else float(alpha)  # PEFT's default
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _patterned(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:  # noqa: ANN401
    """PEFT's rule: the first pattern that matches the module's name, or the end of it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default

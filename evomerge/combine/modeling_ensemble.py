"""An ensemble as one model of transformers. A copy of this file lies in every saved ensemble.

`AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)` needs this file, torch and
transformers, nothing else. `combiner.json` says who the members are and where they lie, `router.safetensors`
how their scores are predicted. Members are loaded when they are first needed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import logging

COMBINER = "combiner.json"
ROUTER = "router.safetensors"
SCHEMA = 1
HASHED = {".safetensors", ".bin", ".json", ".model"}
"""Weights, configurations and tokenizers."""
SAMPLE_BYTES, SAMPLES = 1 << 16, 64
FACTOR = ".lora_A.weight"


class EnsembleConfig(PreTrainedConfig):  # type: ignore[misc]
    """What is said of an ensemble outside `combiner.json`: what it has in common with its base."""

    model_type = "evomerge_ensemble"


class EnsembleForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Members of one vocabulary, and what decides which of them answers.

    Attributes:
        names: Of the members.
        combiner: The content of `combiner.json`.

    Args:
        config: Of the folder.
        folder: It.
        options: For loading members, such as `dtype`.
    """

    config_class = EnsembleConfig
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(
        self, config: EnsembleConfig, folder: Path, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(config)
        self.combiner = read_combiner(folder)
        self.names = tuple(member["name"] for member in self.combiner["members"])
        self._folder, self._options = folder, dict(options or {})
        self._places = {member["name"]: member for member in self.combiner["members"]}
        self._loaded: dict[str, str] = {}
        self.models = nn.ModuleDict()
        self.base = self._load(self.combiner["base"])
        self.generation_config = self.base.generation_config
        self._router = _Router(folder, self.combiner) if self.combiner["router"] else None
        self.post_init()
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *_: Any,
        config: EnsembleConfig | None = None,
        revision: str | None = None,
        **options: Any,
    ) -> EnsembleForCausalLM:
        """Open an ensemble: a folder, or an id of the Hub; options are passed on where members are loaded.

        Raises:
            OSError: It is no ensemble, or a member is gone or is not what it was; the message names it.
        """
        name = str(pretrained_model_name_or_path)
        folder = (
            Path(name) if Path(name).is_dir() else Path(snapshot_download(name, revision=revision))
        )
        for own in ("trust_remote_code", "adapter_kwargs", "_from_auto", "token", "cache_dir"):
            options.pop(own, None)
        check_members(folder)
        return cls(config or EnsembleConfig.from_pretrained(folder), folder, options)

    def member(self, name: str) -> PreTrainedModel:
        """Return a member's model, loaded when it is first asked for."""
        if name not in self._loaded:
            model = self._load(self._places[name])
            key = next((key for key, one in self.models.items() if one is model), None)
            self._loaded[name] = key or f"member_{len(self.models)}"
            self.models[self._loaded[name]] = model
        found: PreTrainedModel = self.models[self._loaded[name]]
        return found

    @torch.no_grad()
    def route(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Return which member answers each prompt.

        Args:
            prompts: Tokens of each; of one that is longer than the context its end counts.
        """
        if self._router is None:
            raise ValueError("its members all answer together, none alone")
        return self._router(self.base, prompts)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *arguments: Any,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Continue prompts as `generate` of transformers does, each by its member.

        Args:
            inputs: `[B, L]` tokens, padded on the left; also as `input_ids`.
            arguments: Of `generate`.
            attention_mask: `[B, L]`; None: tokens that equal the padding token are padding.
            options: Of `generate`.

        Returns:
            What the member returns that answers all rows; else tokens `[B, L + new]`, padded on the right.

        Raises:
            ValueError: Several members answer, and something else than tokens is asked for.
        """
        tokens = options.pop("input_ids", inputs)
        if not isinstance(tokens, Tensor):
            raise ValueError("expected tokens [B, L] as input_ids")
        mask = self._mask(tokens) if attention_mask is None else attention_mask
        rows = [row[seen.bool()].tolist() for row, seen in zip(tokens, mask, strict=True)]
        chosen = self.route(rows)
        if len(set(chosen)) == 1:
            own = self.member(chosen[0])
            return own.generate(tokens, *arguments, attention_mask=mask, **options)
        several = options.get("num_return_sequences", 1) > 1
        if several or options.get("return_dict_in_generate") or options.get("streamer"):
            raise ValueError(
                "the rows go to several members: ask for tokens only, or pass one row at a time"
            )
        written: dict[int, Tensor] = {}
        for name in dict.fromkeys(chosen):
            places = [place for place, one in enumerate(chosen) if one == name]
            found = self.member(name).generate(
                tokens[places], *arguments, attention_mask=mask[places], **options
            )
            written |= zip(places, found, strict=True)
        width = max(map(len, written.values()))
        joined = tokens.new_full((len(rows), width), self._padding)
        for place, row in written.items():
            joined[place, : len(row)] = row
        return joined

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> CausalLMOutput:
        """Return logits `[B, L, V]`: each row is read by the member that would answer it as a prompt.

        Raises:
            ValueError: A cache is given; which member it is of is not known.
        """
        if past_key_values is not None:
            raise ValueError("a routed ensemble takes no cache; use generate")
        mask = self._mask(input_ids) if attention_mask is None else attention_mask
        rows = [row[seen.bool()].tolist() for row, seen in zip(input_ids, mask, strict=True)]
        chosen = self.route(rows)
        logits: list[Tensor | None] = [None] * len(rows)
        for name in dict.fromkeys(chosen):
            places = [place for place, one in enumerate(chosen) if one == name]
            found = self.member(name)(
                input_ids=input_ids[places], attention_mask=mask[places], use_cache=False
            )
            for place, one in zip(places, found.logits, strict=True):
                logits[place] = one
        return CausalLMOutput(logits=torch.stack([one for one in logits if one is not None]))

    @property
    def _padding(self) -> int:
        config = self.generation_config
        ends = config.eos_token_id
        found = config.pad_token_id
        if found is None:
            found = ends[0] if isinstance(ends, list) else ends
        return 0 if found is None else int(found)

    def _mask(self, tokens: Tensor) -> Tensor:
        """Tell padding as transformers does: tokens that equal the padding token, unless that ends texts."""
        config = self.generation_config
        ends = config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        if config.pad_token_id is None or config.pad_token_id in ends:
            return torch.ones_like(tokens)
        seen: Tensor = tokens != config.pad_token_id
        return seen.long()

    def _load(self, place: Mapping[str, Any]) -> PreTrainedModel:
        """Load a member; what it shares with the base is held once."""
        if place is not self.combiner["base"] and _same_place(place, self.combiner["base"]):
            if place.get("adapter") is None:
                return self.base
            return self._adapted(place)
        return self._opened(place)

    def _opened(self, place: Mapping[str, Any], **options: Any) -> PreTrainedModel:
        own = {"dtype": place["dtype"], "use_safetensors": True, **self._options, **options}
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                parts_of(place, self._folder)[0], **own
            )
        finally:
            if shown:
                logging.enable_progress_bar()
        if hasattr(self, "base"):
            loaded = loaded.to(self.base.device)
        return loaded.eval().requires_grad_(False)

    def _adapted(self, place: Mapping[str, Any]) -> PreTrainedModel:
        """Return the base with an adapter on it: computed in float32 and rounded once."""
        exact = self._opened(place, dtype=torch.float32)
        updates = lora_updates(self._folder / place["adapter"])
        shared = {id(one): one for one in (*self.base.parameters(), *self.base.buffers())}
        model: PreTrainedModel = copy.deepcopy(self.base, dict(shared))
        for name, update in updates.items():
            own, weight = model.get_submodule(name), exact.get_submodule(name).weight
            update = update.to(weight.device)
            turned = update if update.shape == weight.shape else update.T
            own.weight = nn.Parameter((weight + turned).to(own.weight.dtype), requires_grad=False)
        return model


class _Router:
    """Predicts each member's score of a prompt from the base's states, and names the best."""

    def __init__(self, folder: Path, combiner: Mapping[str, Any]) -> None:
        self._settings = combiner["router"]
        self._names = [member["name"] for member in combiner["members"]]
        self._fit = load_file(folder / ROUTER)

    def __call__(self, base: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> list[str]:
        states = mean_states(base, prompts, self._settings["layer"])
        fit = {name: table.double() for name, table in self._fit.items()}
        features = (states.double() - fit["mean"]) / fit["scale"]
        predicted = features @ fit["coefficients"][:, :-1].T + fit["coefficients"][:, -1]
        best = predicted.argmax(dim=1)
        if self._settings["fallback"] is not None:
            fallback = self._names.index(self._settings["fallback"])
            gain = predicted.gather(1, best[:, None])[:, 0] - predicted[:, fallback]
            unsure = gain < self._settings["margin"] * fit["errors"][best, 0]
            best = torch.where(unsure, fallback, best)
        return [self._names[one] for one in best.tolist()]


def mean_states(
    base: PreTrainedModel, prompts: Sequence[Sequence[int]], layer: int, batch_tokens: int = 2048
) -> Tensor:
    """Return the mean hidden state of each prompt in a layer, `[n, d]`, float32, padding left out."""
    most = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    rows = [list(prompt)[-most:] if most else list(prompt) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    found: dict[int, Tensor] = {}
    while order:
        width = len(rows[order[-1]])
        places = order[-max(1, batch_tokens // width) :]
        del order[-len(places) :]
        lengths = torch.tensor([len(rows[place]) for place in places])
        tokens = torch.tensor([rows[n] + [0] * (width - len(rows[n])) for n in places])
        seen = torch.arange(width) < lengths[:, None]
        read = base.base_model(
            input_ids=tokens.to(base.device),
            attention_mask=seen.long().to(base.device),
            use_cache=False,
            output_hidden_states=True,
        )
        states = read.hidden_states[layer].float().cpu()
        sums = (states * seen[:, :, None]).sum(dim=1)
        found |= zip(places, sums / lengths[:, None], strict=True)
    return torch.stack([found[place] for place in range(len(rows))])


def read_combiner(folder: Path) -> dict[str, Any]:
    """Return the content of `combiner.json`.

    Raises:
        OSError: The folder holds no ensemble, or one of a later release.
    """
    path = folder / COMBINER
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = found["schema"]
    except FileNotFoundError:
        raise OSError(f"{folder}: no {COMBINER}; expected a saved ensemble") from None
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{path}: not the description of an ensemble ({error!r})") from None
    if schema != SCHEMA:
        raise OSError(f"{path}: found schema {schema}, this release reads {SCHEMA}")
    return found


def check_members(folder: Path) -> None:
    """Check that every member is there and is what it was.

    Raises:
        OSError: Naming the member that is gone or was changed.
    """
    combiner = read_combiner(folder)
    for place in (combiner["base"], *combiner["members"]):
        named = (
            f"{folder}: the member {place['name']}" if "name" in place else f"{folder}: the base"
        )
        try:
            parts = parts_of(place, folder)
            found = fingerprint(parts)
        except OSError as error:
            raise OSError(f"{named} is gone: {error}") from None
        if found != place["hash"]:
            where = " + ".join(map(str, parts))
            raise OSError(f"{named} is not what it was when the ensemble was saved: {where}")


def parts_of(place: Mapping[str, Any], folder: Path) -> list[Path]:
    """Return where the files of a member lie: its model, and its adapter if it has one.

    Args:
        place: Its entry in `combiner.json`.
        folder: Of the ensemble.

    Raises:
        OSError: The Hub does not give it.
    """
    adapter = [folder / place["adapter"]] if place.get("adapter") is not None else []
    if place.get("path") is not None:
        return [(folder / place["path"]).resolve(), *adapter]
    kept = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
    try:
        found = snapshot_download(place["id"], revision=place.get("revision"), allow_patterns=kept)
    except Exception as error:  # noqa: BLE001 - of any client
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(f"the Hub does not give {place['id']}: {reason}") from None
    return [Path(found), *adapter]


def fingerprint(folders: Sequence[Path]) -> str:
    """Return a hash that changes with a model's files: their sizes, and bytes sampled from each.

    Raises:
        OSError: A folder is gone.
    """
    digest = hashlib.blake2b(digest_size=16)
    for folder in folders:
        if not folder.is_dir():
            raise OSError(f"no folder {folder}")
        for path in sorted(path for path in folder.iterdir() if path.suffix in HASHED):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with path.open("rb") as file:
                for sample in range(SAMPLES if size > SAMPLE_BYTES else 1):
                    file.seek(sample * max(0, size - SAMPLE_BYTES) // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def lora_updates(folder: Path) -> dict[str, Tensor]:
    """Return what a plain LoRA adapter adds: module → scale · B A, `[out, in]`, float32."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    stored = load_file(folder / "adapter_model.safetensors")
    found = {}
    for key, a in stored.items():
        if key.endswith(FACTOR):
            b = stored[key.replace(FACTOR, ".lora_B.weight")]
            rank = a.shape[0]
            scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
            module = key.removeprefix("base_model.model.").removesuffix(FACTOR)
            found[module] = (b.float() @ a.float()) * scale
    return found


def _same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("path", "id", "revision"))

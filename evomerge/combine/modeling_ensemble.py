"""An ensemble as one model of transformers. A copy of this file lies in every saved ensemble.

`AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)` needs this file, the two that it
imports, torch and transformers, nothing else. Members are loaded when they are first needed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutput, CausalLMOutputWithPast
from transformers.utils import logging

from .ensemble_folder import (
    ROUTER,
    check_members,
    lora_updates,
    parts_of,
    read_combiner,
    same_place,
)
from .ensemble_states import mean_states


class EnsembleConfig(PreTrainedConfig):  # type: ignore[misc]
    """What is said of an ensemble outside `combiner.json`: what it has in common with its base."""

    model_type = "evomerge_ensemble"


AutoConfig.register(
    EnsembleConfig.model_type, EnsembleConfig, exist_ok=True
)  # tokenizers ask for it


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
        self._mix = running(self.combiner["mix"]) if self._router is None else {}
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

        So is `trust_remote_code`: members run code of their own only where the caller allows it.

        Raises:
            OSError: It is no ensemble, or a member is gone or is not what it was; the message names it.
        """
        name = str(pretrained_model_name_or_path)
        folder = (
            Path(name) if Path(name).is_dir() else Path(snapshot_download(name, revision=revision))
        )
        for own in ("adapter_kwargs", "_from_auto", "token", "cache_dir"):
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
        if self._router is None:
            if options.get("use_cache") is not False:
                options.setdefault("past_key_values", Caches(len(self._mix)))
            return super().generate(inputs, *arguments, attention_mask=attention_mask, **options)
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
    ) -> CausalLMOutput | CausalLMOutputWithPast:
        """Return logits `[B, L, V]`: of a mix, or of the member that would answer a row as a prompt.

        Raises:
            ValueError: A router is given a cache; which member it is of is not known.
        """
        if self._router is None:
            asked = {"attention_mask": attention_mask, **options}
            return self._mixed(input_ids, past_key_values, bool(use_cache), asked)
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

    def _mixed(
        self, tokens: Tensor, cache: Caches | None, keep: bool, options: Mapping[str, Any]
    ) -> CausalLMOutputWithPast:
        """Ask all members that run, each with its own cache, and mix what they say of the next token."""
        if cache is None and keep:
            cache = Caches(len(self._mix))
        own = [None] * len(self._mix) if cache is None else cache.members
        settings, total = self.combiner["mix"], None
        for (name, weight), part in zip(self._mix.items(), own, strict=True):
            found = self.member(name)(
                input_ids=tokens, past_key_values=part, use_cache=part is not None, **options
            )
            scaled = found.logits.float() / settings["temperature"]
            if len(self._mix) == 1:
                total = found.logits if settings["temperature"] == 1 else scaled
            elif settings["over"] == "logits":
                total = weight * scaled if total is None else total + weight * scaled
            else:
                said = scaled.log_softmax(-1) + math.log(weight)
                total = said if total is None else torch.logaddexp(total, said)
        return CausalLMOutputWithPast(logits=total, past_key_values=cache)

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
        base = self.combiner["base"]
        if place is not base and same_place(place, base) and place["hash"] == base["hash"]:
            return self.base
        return self._opened(place) if place.get("adapter") is None else self._adapted(place)

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
        """Return a model with an adapter on it: computed in float32 and rounded once.

        All other weights of the base are shared with it, unless it has an adapter itself.
        """
        exact = self._opened(place, dtype=torch.float32)
        updates = lora_updates(self._folder / place["adapter"])
        base = self.combiner["base"]
        if same_place(place, base) and base.get("adapter") is None:
            shared = {id(one): one for one in (*self.base.parameters(), *self.base.buffers())}
            model: PreTrainedModel = copy.deepcopy(self.base, dict(shared))
        else:
            model = self._opened(place)
        for name, update in updates.items():
            own, weight = model.get_submodule(name), exact.get_submodule(name).weight
            update = update.to(weight.device)
            turned = update if update.shape == weight.shape else update.T
            own.weight = nn.Parameter((weight + turned).to(own.weight.dtype), requires_grad=False)
        return model


class Caches(DynamicCache):  # type: ignore[misc]
    """A cache of each member that runs, in the interface of one."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.members = [DynamicCache() for _ in range(count)]

    def get_seq_length(self, *arguments: Any) -> int:
        """Return how many tokens have been read."""
        return int(self.members[0].get_seq_length(*arguments))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams that are kept."""
        for one in self.members:
            one.reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        for one in self.members:
            one.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        for one in self.members:
            one.batch_select_indices(indices)

    def crop(self, tokens: int) -> None:
        """Forget what was read behind so many tokens."""
        for one in self.members:
            one.crop(tokens)


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


def running(mix: Mapping[str, Any]) -> dict[str, float]:
    """Return the members of a mix that run → weight: those with the largest weights, scaled to the sum 1."""
    weights = mix["weights"]
    order = sorted(weights, key=lambda name: -weights[name])[: mix["top_k"]]
    kept = {name: weights[name] for name in weights if name in order and weights[name] > 0}
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}

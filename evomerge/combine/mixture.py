"""Mixtures of experts as a module that is rewritten for every candidate, and as folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

from evomerge.candidate import Recipe
from evomerge.candidate import save as save_recipe
from evomerge.candidate.moe_recipe import MoeRecipe
from evomerge.combine.assembly import Assembly, Part
from evomerge.combine.counterparts import views
from evomerge.combine.prompt_gates import prompt_gates
from evomerge.errors import MergeError, RecipeError
from evomerge.merge.card import default_card
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.devices import torch_dtype, usable_device
from evomerge.merge.family import check_finite
from evomerge.merge.files import TensorHeader
from evomerge.merge.live import LiveModel
from evomerge.merge.members import merge_runs, merged_checkpoint
from evomerge.merge.models import OpenModels, open_models
from evomerge.merge.saving import commonest, finished_folder, refuse_taken
from evomerge.merge.shards import SHARD_BYTES, write_tensors
from evomerge.merge.statistics import copy_statistics
from evomerge.merge.tokenizer_files import TokenizerFiles
from evomerge.merge.user_methods import copy_beside
from evomerge.progress import Display, NoDisplay, counted


class ResidentMixtures:
    """One module, which candidates are written into as long as they have as many experts.

    Weights are computed from the resident models, and only where they are not those that the module holds.

    Args:
        live: The models.
    """

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self._form: object = None
        self._resident: _Resident | None = None

    def write(self, recipe: MoeRecipe, merges: Mapping[str, Recipe]) -> nn.Module:
        """Return the module of a mixture; with gates of 0 where `recipe` has none.

        Args:
            recipe: What it is.
            merges: Name → merge that it names as a model.

        Raises:
            RecipeError: A merge is wrong, or what `Assembly.of` finds.
            ModelError: As `Assembly.of` does.
            MergeError: The maths has no answer.
        """
        assembly = Assembly.of(recipe, self._live.models.base)
        form = (assembly.counterpart.name, len(recipe.experts), recipe.shared_expert is None)
        if self._resident is None or form != self._form:
            self._resident = None  # memory is planned for one
            self._form, self._resident = form, _Resident(self._live, assembly)
        return self._resident.write(assembly, merges)


class _Resident:
    def __init__(self, live: LiveModel, assembly: Assembly) -> None:
        self._live = live
        with no_init_weights(), live.device:
            module = AutoModelForCausalLM.from_config(assembly.config, dtype=live.module.dtype)
        module.generation_config = live.module.generation_config
        self._module = module.eval().requires_grad_(False)
        self._views = views(module, assembly.counterpart)
        self._holds: dict[int, object] = {}

    @torch.no_grad()
    def write(self, assembly: Assembly, merges: Mapping[str, Recipe]) -> nn.Module:
        recipe, module = assembly.recipe, self._module
        left = set(self._views)
        for number, part in enumerate(assembly.parts):
            wanted = (part.source, part.scale, recipe.dtype, merges.get(part.source))
            if self._holds.get(number) != wanted:
                self._holds.pop(number, None)  # until it is whole
                self._write_part(part, merges, recipe.dtype)
                self._holds[number] = wanted
            left -= part.names.keys()
        dtype = module.dtype if recipe.dtype is None else torch_dtype(recipe.dtype)
        for name, tensor in assembly.added(recipe.gates or assembly.no_gates(), dtype):
            self._views[name].copy_(tensor)
            left.discard(name)
        if left:
            raise MergeError(f"{min(left)} is in the mixture and in none of the models")
        module.config.num_experts_per_tok = recipe.experts_per_token
        for layer in module.model.layers:
            for router in (layer.mlp, layer.mlp.gate):  # Mixtral's block has it too
                if hasattr(router, "top_k"):
                    router.top_k = recipe.experts_per_token
        found: nn.Module = module
        return found

    def _write_part(self, part: Part, merges: Mapping[str, Recipe], dtype: str | None) -> None:
        live, source = self._live, part.source
        wanted = None if dtype is None else torch_dtype(dtype)
        if source in merges:
            model = merged_checkpoint(source, live.run(merges[source]), live.models)
        elif source in live.checkpoints:
            model = live.checkpoints[source]
        else:
            raise RecipeError(f"{source} is none of the models that were loaded")
        for name in part.names:
            self._views[name].copy_(part.tensor(name, model, wanted))


def save_mixture(
    recipe: MoeRecipe,
    out: Path | str,
    *,
    merges: Mapping[str, Recipe] = MappingProxyType({}),
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    display: Display | None = None,
    card: str | None = None,
    replace: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> None:
    """Write a mixture as a folder that transformers and vLLM load; options and errors are those of `save`.

    Beside the weights, under their names on the Hub, lie `recipe.yaml` in mergekit-moe's form and the gates.

    Args:
        recipe: What it is; without gates they are computed as its `gate_mode` says.
        out: The folder.
        merges: Name → merge that `recipe` names as a model.
        device: As `save` takes it, and the other options.
        dtype: Of the file; None: the recipe's, or the base's own.
        shard_bytes: Largest file.
        display: Shows how many tensors are there; None: nothing does.
        card: The model card.
        replace: Replace an existing folder.
        trust_remote_code: Let the models run code of their own.
        allow_pickle: Accept PyTorch pickles.
    """
    out = Path(out)
    refuse_taken(out, replace=replace)
    device = usable_device(device)
    if dtype is not None:
        torch_dtype(dtype)
    code, pickle = trust_remote_code, allow_pickle
    models = _opened(recipe, merges, trust_remote_code=code, allow_pickle=pickle)
    assembly = Assembly.of(recipe, models.base)
    assembly.check_same_class()
    made = {
        name: merged_checkpoint(name, run, models)
        for name, run in merge_runs(merges, models, device).items()
    }
    _check_finite(assembly, models, merges)
    tokenizer = TokenizerFiles.plan(None, models)
    gates = recipe.gates
    if gates is None:
        gates = prompt_gates(recipe, merges, models, device=device, allow_pickle=pickle)
    known = {**models.checkpoints, **made}
    asked = dtype or recipe.dtype
    result = torch_dtype(asked) if asked else _own_dtype(known[recipe.base_model], merges)
    pieces = {name: part for part in assembly.parts for name in part.names}
    added = dict(assembly.added(gates, result))
    headers = {
        name: TensorHeader(known[part.source].tensors[part.names[name]].shape, result)
        for name, part in pieces.items()
    }
    headers |= {name: TensorHeader(tuple(one.shape), one.dtype) for name, one in added.items()}

    def tensor(name: str) -> torch.Tensor:
        if name in added:
            return added[name]
        part = pieces[name]
        # A file holds no tensor twice: a tied head is a copy of the embeddings.
        return part.tensor(name, known[part.source], result).clone()

    with finished_folder(out) as folder:
        # The gates beside them are no weights, which an index tells vLLM.
        tensors = ((name, tensor(name)) for name in headers)
        shown = counted(tensors, display or NoDisplay(), "merge", len(headers))
        write_tensors(shown, headers, folder, shard_bytes, indexed=True)
        assembly.config.dtype = result
        assembly.config.save_pretrained(folder)
        tokenizer.write(folder)
        written = dataclasses.replace(recipe, gates=gates)
        save_recipe(written, folder / "recipe.yaml", merges)
        copy_beside((one.method for one in merges.values()), folder)
        copy_statistics(written, folder, merges)
        text = default_card(written, out.name, merges) if card is None else card
        (folder / "README.md").write_text(text, encoding="utf-8")


def _opened(
    recipe: MoeRecipe,
    merges: Mapping[str, Recipe],
    *,
    trust_remote_code: bool,
    allow_pickle: bool,
) -> OpenModels:
    """Open all models, the one first that the rest of the mixture begins with."""
    names: list[str] = []
    for name in recipe.model_names():
        names += merges[name].model_names() if name in merges else [name]
    for name, merge in merges.items():
        if merge.vocabulary is not None:
            raise RecipeError(
                "a mixture needs models of one vocabulary; leave the tokenizer out",
                field=f"{name}.tokenizer",
            )
    return open_models(names, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)


def _check_finite(assembly: Assembly, models: OpenModels, merges: Mapping[str, Recipe]) -> None:
    whole = {name for merge in merges.values() for name in merge.model_names()}
    for name in whole:
        check_finite(models.checkpoints[name])
    for part in assembly.parts:
        if part.source not in whole and part.source not in merges:
            check_finite(models.checkpoints[part.source], part.names.values())


def _own_dtype(base: Checkpoint, merges: Mapping[str, Recipe]) -> torch.dtype:
    """Return what the config says, as mergekit reads it; of a merge and where it is silent, the tensors'."""
    said = base.config.dtype
    if isinstance(said, torch.dtype) and base.name not in merges:
        return said
    return commonest(header.dtype for header in base.tensors.values())

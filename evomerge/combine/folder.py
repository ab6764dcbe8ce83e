"""An ensemble as a folder: the router's fit, members that are merges, adapters, and names of all others."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Mix, Router, RouterFit
from evomerge.combine import ensemble_folder, ensemble_states, modeling_ensemble
from evomerge.combine.commands import how_to_serve
from evomerge.combine.ensemble_folder import (
    COMBINER,
    ROUTER,
    SCHEMA,
    check_members,
    fingerprint,
    parts_of,
    read_combiner,
)
from evomerge.combine.modeling_ensemble import EnsembleConfig
from evomerge.errors import MergeError, ModelError
from evomerge.merge.adapter_file import open_adapter
from evomerge.merge.files import INDEX, SINGLE
from evomerge.merge.location import commit, locate, split_adapter
from evomerge.merge.models import open_models
from evomerge.merge.saving import finished_folder, refuse_taken, save
from evomerge.merge.tokenizer_files import TokenizerFiles
from evomerge.merge.user_methods import copy_beside

MEMBERS = "members"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
COMMON = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
"""What tools read of a configuration, whatever the model."""
Place = dict[str, Any]
"""An entry of `combiner.json`: who a member is and where it lies."""


def save_ensemble(
    candidate: Ensemble,
    out: Path | str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    card: str | None = None,
    replace: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    **writing: Any,  # noqa: ANN401
) -> None:
    """Write an ensemble as a folder that `evomerge.load` and transformers open.

    Merges are computed and written under `members/`; so are adapters, which are small, and models that are
    pickles, as safetensors. Any other model that is a member as it is stays where it lies and is named: by
    a path from the folder, or its id on the Hub.

    Args:
        candidate: With what it has learnt.
        out: The folder.
        device: Where merges are computed.
        dtype: Of the members; None: their own.
        card: The model card; None: a short one.
        replace: Replace an existing folder, once the new one is complete.
        trust_remote_code: Let the models run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        writing: Of the members' files: `shard_bytes`, `display` as of `saving.save`.

    Raises:
        UserError: A model, the device or the folder is wrong.
        MergeError: The router has learnt nothing, or the disk does not take the result.
    """
    out = Path(out)
    refuse_taken(out, replace=replace)
    if candidate.router is not None and candidate.fit is None:
        raise MergeError("the router of this ensemble has learnt nothing yet; score it first")
    options = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle}
    features = candidate.features_of
    models = open_models(features.model_names(), features.vocabulary, **options)
    config = models.base.config
    if models.vocabulary is not None:
        models.vocabulary.configure(config)
    with finished_folder(out) as aside:
        writer = _Writer(
            aside, out.absolute(), dtype, config, {**options, **writing, "device": device}
        )
        members = [writer.member(one, name) for name, one in candidate.members.items()]
        combiner = {
            "schema": SCHEMA,
            "kind": candidate.kind,
            "base": writer.member(features),
            "members": members,
            "router": None if candidate.router is None else asdict(candidate.router),
            "mix": None if candidate.mix is None else asdict(candidate.mix),
        }
        _write_json(aside / COMBINER, combiner)
        if candidate.fit is not None:
            (aside / ROUTER).write_bytes(candidate.fit.content)
        _config(config).save_pretrained(aside)
        TokenizerFiles.plan(None, models).write(aside)
        for code in (modeling_ensemble, ensemble_folder, ensemble_states):
            shutil.copyfile(str(code.__file__), aside / Path(str(code.__file__)).name)
        (aside / "recipe.yaml").write_text(candidate.file(), encoding="utf-8")
        copy_beside(candidate.methods, aside)
        text = f"# {out.name}\n" if card is None else card
        (aside / "README.md").write_text(text + how_to_serve(combiner), encoding="utf-8")


class _Writer:
    """Writes members into a folder that will take the place of another.

    Args:
        aside: The folder that is written.
        out: Where it will be.
        dtype: Of the members; None: their own.
        config: Of the base.
        options: For merging.
    """

    def __init__(
        self,
        aside: Path,
        out: Path,
        dtype: str | None,
        config: PretrainedConfig,
        options: Mapping[str, Any],
    ) -> None:
        self._aside, self._out, self._dtype = aside, out, dtype
        self._config, self._options = config, options
        self._taken: set[str] = set()
        self._written: dict[str, str] = {}  # model of pickles → its folder here

    def member(self, merge: Merge, name: str | None = None) -> Place:
        """Write a member, or name where it lies, and return its entry; without a name the base's."""
        named = {} if name is None else {"name": name}
        model = alone(merge)
        parts = ("", None) if model is None else split_adapter(model)
        if model is None or (parts[1] is not None and not is_plain(Path(parts[1]))):
            folder = self._folder(name or "base")
            merge = merge if self._dtype is None else changed(merge, dtype=self._dtype)
            save(merge, self._aside / folder, **self._options)
            return self._entry({**named, "path": folder}, merge)
        place: Place = {**named, **self._where(parts[0], name or "base")}
        if parts[1] is not None:
            place["adapter"] = self._folder(name or "base")
            place["rank"] = copy_adapter(locate(parts[1]), self._aside / place["adapter"])
        return self._entry(place, merge)

    def _entry(self, place: Place, merge: Merge) -> Place:
        """Fill an entry in: dtype, and a hash of the files."""
        inside = str(place.get("path", "")).startswith(f"{MEMBERS}/")
        parts = parts_of(place, self._aside if inside else self._out)
        if "adapter" in place:
            parts[1] = self._aside / place["adapter"]
        own = getattr(self._config, "dtype", None)
        stored = str(own).removeprefix("torch.") if own is not None else "float32"
        dtype = self._dtype or merge.dtype or stored
        return {**place, "dtype": dtype, "hash": fingerprint(parts)}

    def _where(self, model: str, name: str) -> Place:
        """Say where a model lies; one without safetensors is written here, once for all members."""
        code, pickle = (self._options[key] for key in ("trust_remote_code", "allow_pickle"))
        folder = locate(model, allow_pickle=pickle, trust_remote_code=code)
        if not any((folder / file).is_file() for file in (SINGLE, INDEX)):
            if model not in self._written:
                self._written[model] = self._folder(name)
                own = Merge("passthrough", (model,))
                save(own, self._aside / self._written[model], **self._options)
            return {"path": self._written[model]}
        revision = commit(model, folder)
        if revision is None:
            return {"path": os.path.relpath(folder.resolve(), self._out.resolve())}
        return {"id": model.partition("@")[0], "revision": revision}

    def _folder(self, name: str) -> str:
        plain = re.sub(r"[^\w.-]", "_", name).strip(".") or "member"
        found, number = plain, 1
        while found.casefold() in self._taken:
            number += 1
            found = f"{plain}_{number}"
        self._taken.add(found.casefold())
        return f"{MEMBERS}/{found}"


def open_candidate(folder: Path) -> Ensemble:
    """Return a saved ensemble as a candidate: its members by what lies in the folder and beside it.

    Raises:
        ModelError: The folder holds no ensemble, or a member is gone or was changed: it is named.
    """
    try:
        check_members(folder)
        combiner = read_combiner(folder)
    except OSError as error:
        raise ModelError(str(error).removeprefix(f"{folder}: "), file=folder) from None
    members = {
        place["name"]: Merge("passthrough", (_model(place, folder),), dtype=place["dtype"])
        for place in combiner["members"]
    }
    router, mix = combiner["router"], combiner["mix"]
    return Ensemble(
        _model(combiner["base"], folder),
        members,
        None if router is None else Router(**router),
        None if mix is None else Mix(**mix),
        None if router is None else RouterFit.read((folder / ROUTER).read_bytes()),
    )


def alone(merge: Merge) -> str | None:
    """Return the one model that a merge is, as it is; None: it is an average of several, or changed."""
    plain = merge.method == "passthrough" and not (merge.own or merge.shared or merge.fixed)
    is_one = len(merge.experts) == 1 and merge.base is None and merge.vocabulary is None
    return merge.experts[0] if plain and is_one and merge.coefficients is None else None


def is_plain(adapter: Path) -> bool:
    """Tell whether an adapter is nothing but updates of linear layers, as every server takes them."""
    folder = locate(str(adapter))
    if not (folder / ADAPTER_FILES[1]).is_file():
        return False
    opened = open_adapter(folder)
    settings = json.loads((folder / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    return not (
        opened.conv1d or settings.get("alpha_pattern") or settings.get("rank_pattern")
    ) and all(
        change.pair is not None
        and not change.pair.embedding
        and change.weight is None
        and change.rows is None
        for change in opened.changes.values()
    )


def copy_adapter(source: Path, folder: Path) -> int:
    """Copy an adapter's files into a new folder; return its rank."""
    folder.mkdir(parents=True)
    for file in ADAPTER_FILES:
        shutil.copyfile(source / file, folder / file)
    settings = json.loads((folder / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    return int(settings["r"])


def _model(place: Place, folder: Path) -> str:
    """Name a member as recipes do."""
    if "path" in place:
        model = str((folder / place["path"]).resolve())
    else:
        model = f"{place['id']}@{place['revision']}"
    return f"{model}+{(folder / place['adapter']).resolve()}" if "adapter" in place else model


def _config(base: PretrainedConfig) -> EnsembleConfig:
    text = base.get_text_config()
    found = {name: getattr(text, name) for name in COMMON if hasattr(text, name)}
    code = Path(modeling_ensemble.__file__).stem
    config = EnsembleConfig(**found, architectures=["EnsembleForCausalLM"])
    config.auto_map = {
        "AutoConfig": f"{code}.EnsembleConfig",
        "AutoModelForCausalLM": f"{code}.EnsembleForCausalLM",
    }
    return config


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

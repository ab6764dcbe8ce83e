"""Members that are adapted, pickled, or run code of their own: what was scored is what opens."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

import evomerge
from evomerge.candidate.ensemble import Ensemble, Mix
from evomerge.combine import ensemble_folder
from evomerge.combine.folder import open_candidate, save_ensemble
from evomerge.combine.loaded import load
from evomerge.errors import ModelError
from evomerge.merge.live import LiveModel
from tests.combine.crew import PROMPTS, adapter, alone, ensemble
from tests.conftest import Family

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore::UserWarning:peft"
)
CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def assert_as_scored(model: PreTrainedModel, candidate: Ensemble, dtype: str = "float32") -> None:
    """Compare members, and what the router reads, with the models of the search."""
    live = LiveModel(candidate.model_names(), dtype=dtype, allow_pickle=True)
    opened = {name: model.member(name) for name in candidate.members}
    merges = {**candidate.members, "the router's": candidate.features_of}
    for name, module in {**opened, "the router's": model.base}.items():
        live.write(merges[name])
        found = module.state_dict()
        for key, tensor in live.module.state_dict().items():
            assert torch.equal(found[key], tensor), (name, key)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapted", [False, True], ids=["plain base", "adapted base"])
def test_an_adapter_is_applied_on_whatever_model(
    llama_family: Family, tmp_path: Path, dtype: str, adapted: bool
) -> None:
    plain, expert = llama_family.models[:2]
    base = f"{plain}+{adapter(plain, tmp_path / 'first', 1)}" if adapted else plain
    members = {
        "base": alone(base, dtype),
        "plain": alone(plain, dtype),
        "other": alone(f"{plain}+{adapter(plain, tmp_path / 'other', 2)}", dtype),
        "tuned": alone(f"{expert}+{adapter(expert, tmp_path / 'tuned', 3)}", dtype),
    }
    candidate = replace(ensemble(plain, members), base=base)
    save_ensemble(candidate, tmp_path / "best")
    model = load(tmp_path / "best").model
    assert_as_scored(model, candidate, dtype)
    assert model.member("base") is model.base
    assert (model.member("plain") is model.base) != adapted
    assert_as_scored(model, open_candidate(tmp_path / "best"), dtype)


def pickled(model: str, folder: Path) -> str:
    """Copy a model, with a pickle in place of its safetensors file."""
    shutil.copytree(model, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return str(folder)


def test_members_that_are_pickles_are_written_once_as_safetensors(
    llama_family: Family, tmp_path: Path
) -> None:
    base, expert = (
        pickled(one, tmp_path / name)
        for one, name in zip(llama_family.models, ("base", "expert"), strict=False)
    )
    lora = adapter(llama_family.base, tmp_path / "lora", 1)
    models = {"base": base, "tuned": expert, "lora": f"{base}+{lora}"}
    members = {name: alone(model, "bfloat16") for name, model in models.items()}
    candidate = replace(ensemble(llama_family.base, members), base=base)
    with pytest.raises(ModelError, match="pickle"):
        save_ensemble(candidate, tmp_path / "best")
    save_ensemble(candidate, tmp_path / "best", allow_pickle=True)
    combiner = json.loads((tmp_path / "best" / "combiner.json").read_text())
    places = [combiner["base"], *combiner["members"]]
    assert [one["path"] for one in places] == [
        *("members/base", "members/base", "members/tuned", "members/base")
    ]
    model = load(tmp_path / "best").model
    assert_as_scored(model, candidate, "bfloat16")
    assert model.member("base") is model.base


@pytest.fixture
def own_code(llama_family: Family, tmp_path: Path) -> list[str]:
    """Two models whose classes are in a file of theirs."""
    found = []
    for model in llama_family.models[:2]:
        folder = Path(shutil.copytree(model, tmp_path / "own" / Path(model).name))
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "model_type": "own_llama",
            "architectures": ["OwnForCausalLM"],
            "auto_map": {
                "AutoConfig": "own.OwnConfig",
                "AutoModelForCausalLM": "own.OwnForCausalLM",
            },
        }
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "own.py").write_text(CODE)
        found.append(str(folder))
    return found


def test_members_run_their_own_code_where_that_is_allowed(
    own_code: list[str], tmp_path: Path
) -> None:
    base, expert = own_code
    members = {"base": alone(base), "tuned": alone(expert)}
    candidate = Ensemble(base, members, mix=Mix({"base": 1.0, "tuned": 1.0}, top_k=2))
    save_ensemble(candidate, tmp_path / "best", trust_remote_code=True)
    with pytest.raises(ModelError, match="trust_remote_code=True"):
        evomerge.load(tmp_path / "best")
    opened = evomerge.load(tmp_path / "best", trust_remote_code=True)
    assert type(opened.model.member("tuned")).__name__ == "OwnForCausalLM"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "best", trust_remote_code=True)
    tokens = torch.tensor([opened.tokens(PROMPTS[:1])[0]])
    assert torch.equal(plain(tokens).logits, opened.model(tokens).logits)


def test_the_code_of_members_comes_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def snapshot(name: str, **options: object) -> str:
        asked[name] = options
        return str(tmp_path)

    monkeypatch.setattr(ensemble_folder, "snapshot_download", snapshot)
    place = {"id": "org/model", "revision": "abc"}
    assert ensemble_folder.parts_of(place, tmp_path) == [tmp_path]
    assert asked["org/model"]["revision"] == "abc"
    assert "*.py" in asked["org/model"]["allow_patterns"]

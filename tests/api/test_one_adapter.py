"""`evomerge merge --as-lora` and its counterpart in Python: recipes, candidates, trials of a campaign."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from optuna.distributions import FloatDistribution
from safetensors.torch import load_file, save_file

import evomerge
from evomerge import candidate as recipes
from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Mix
from evomerge.candidate.trial import Entry, Estimate, Outcome, TaskScores
from evomerge.cli import run_command
from evomerge.config import Campaign
from evomerge.errors import UserError
from evomerge.merge.saving import save
from evomerge.store import Store
from tests.conftest import Family
from tests.merge.test_adapter import trained

Q = "model.layers.0.self_attn.q_proj.weight"

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore::UserWarning:peft"
)


@pytest.fixture
def merge(llama_family: Family, tmp_path: Path) -> Merge:
    """Two adapters of ranks 3 and 2, which have `q_proj` in common."""
    base = llama_family.base
    trained(base, tmp_path / "one", r=3, target_modules=["q_proj", "up_proj"])
    trained(base, tmp_path / "two", r=2, target_modules=["q_proj"])
    experts = tuple(f"{base}+{tmp_path / name}" for name in ("one", "two"))
    return Merge("task_arithmetic", experts, base, own={"weight": (((0.7, 0.4),),)})


@pytest.fixture
def results(merge: Merge, tmp_path: Path) -> Path:
    """A campaign of one trial, which is the winner and is saved."""
    campaign = Campaign.model_validate(
        {
            "name": "one trial",
            "models": {"base": merge.base, "experts": list(merge.experts), "dtype": "float32"},
            "space": {
                "method": "task_arithmetic",
                "parameters": {"weight": {"low": 0.0, "high": 1.0}},
            },
            "objectives": [{"task": "t", "metric": "acc"}],
            "out": str(tmp_path / "results"),
        }
    )
    scores = TaskScores(("a",), {"acc": (1.0,)}, {"acc": Estimate(1.0)})
    with Store.create(Path(campaign.out), campaign, {}, directions=["maximize"]) as store:
        entry = Entry("trial 0", merge, 0)
        store.asked(entry, {"weight": 0.7}, {"weight": FloatDistribution(0.0, 1.0)})
        store.told(entry, Outcome({"t": scores}), [1.0])
        store.choose(entry, "the best of 1")
    save(merge, tmp_path / "results" / "best")
    return tmp_path / "results"


def written(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_a_winner_is_one_adapter_by_any_name(merge: Merge, results: Path, tmp_path: Path) -> None:
    sources: dict[str, tuple[object, str | None]] = {
        "candidate": (merge, None),
        "recipe": (merge.recipe(), None),
        "file": (results / "best" / "recipe.yaml", None),
        "trial": (results, "0"),
        "winner": (results, "best"),
    }
    for name, (source, trial) in sources.items():
        made = evomerge.merge(source, tmp_path / name, trial=trial, as_lora=8)
        assert (made.folder, made.rank, made.kept) == (tmp_path / name, 5, 1.0)
    assert len({written(tmp_path / name) for name in sources}) == 1


def test_the_command_says_what_is_lost(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(results / "best" / "recipe.yaml"), tmp_path / "out"
    assert run_command(["merge", source, str(out), "--as-lora", "8"]) == 0
    assert capsys.readouterr().out == (
        f"saved the merge as an adapter to {out}\n"
        "rank 5; lost of the squared norm of the change: 0\n"
    )
    assert (
        run_command(
            ["merge", str(results), str(tmp_path / "2"), "--trial", "best", "--as-lora", "2"]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "rank 2; lost of the squared norm of the change: 0." in text
    assert "(of a layer at most 0." in text
    shapes = {
        tensor.shape[0]
        for key, tensor in load_file(tmp_path / "2" / "adapter_model.safetensors").items()
        if "lora_A" in key
    }
    assert shapes == {2}
    config = json.loads((tmp_path / "2" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "up_proj"]


def test_what_cannot_be_one_adapter(
    merge: Merge, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = Merge("passthrough", (merge.experts[0],))
    ensemble = Ensemble(str(merge.base), {"one": alone}, mix=Mix({"one": 1.0}))
    with pytest.raises(UserError, match="is no merge; only a merge can be one adapter"):
        evomerge.merge(ensemble, tmp_path / "out", as_lora=4)
    with pytest.raises(UserError, match="is a folder; say which trial"):
        evomerge.merge(results, tmp_path / "out", as_lora=4)
    with pytest.raises(UserError, match="expected at least 1"):
        evomerge.merge(merge, tmp_path / "out", as_lora=0)
    file = tmp_path / "recipe.yaml"
    body, adapter = merge.experts[0].split("+")
    two = Merge("linear", (body, f"{body}+{adapter}"), own={"weight": (((0.5, 0.5),),)})
    recipes.save(two.recipe(), file)
    assert evomerge.merge(file, tmp_path / "half", as_lora=4).kept == 1.0
    recipes.save(
        Merge(
            "task_arithmetic", (merge.experts[1],), merge.experts[0], own={"weight": (((0.5,),),)}
        ).recipe(),
        file,
    )
    assert run_command(["merge", str(file), str(tmp_path / "out"), "--as-lora", "4"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{file}:" in err
    assert "base_model: found" in err
    assert run_command(["merge", str(file), str(tmp_path / "out"), "--as-lora", "0"]) == 2
    assert not (tmp_path / "out").exists()


def test_an_adapters_recipe_has_its_statistics_and_can_be_merged_again(
    llama_family: Family, tmp_path: Path
) -> None:
    width = load_file(Path(llama_family.base) / "model.safetensors")[Q].shape[1]
    statistics = {f"{place}/{Q}": torch.rand(1, width) for place in range(2)}
    save_file(statistics, tmp_path / "st.safetensors")
    merge = Merge(
        "ties",
        tuple(llama_family.experts[:2]),
        llama_family.base,
        own={"weight": (((0.5, 0.5),),), "density": (((0.5, 0.5),),)},
        fixed={"importance": True},
        statistics=str(tmp_path / "st.safetensors"),
    )
    evomerge.merge(merge, tmp_path / "adapter", as_lora=4)
    assert (tmp_path / "adapter" / "statistics.safetensors").is_file()
    recipe = recipes.load(tmp_path / "adapter" / "recipe.yaml")
    assert recipe.method == "ties"

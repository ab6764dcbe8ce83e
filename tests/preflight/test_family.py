import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from evomerge.candidate import Merge
from evomerge.config import Models
from evomerge.errors import ModelError
from evomerge.preflight.family import check_weights, fingerprint, open_family, size_of
from tests.combine.crew import adapter


def models(base, *experts, **settings):
    named = [{"model": model, "name": f"e{i}"} for i, model in enumerate(experts)]
    return Models.model_validate({"base": base, "experts": named, "dtype": "float32", **settings})


@pytest.fixture
def copied(llama_family, tmp_path):
    """A private copy of an expert, to be damaged."""
    return Path(shutil.copytree(llama_family.experts[0], tmp_path / "expert"))


def test_a_family_is_opened_with_names_layers_and_sizes(llama_family):
    opened = open_family(models(llama_family.base, *llama_family.experts))
    assert opened.family.base == llama_family.base
    assert opened.family.experts == {f"e{i}": m for i, m in enumerate(llama_family.experts)}
    assert opened.family.num_layers == 4
    weights = load_file(Path(llama_family.base) / "model.safetensors")
    assert opened.parameters == sum(tensor.numel() for tensor in weights.values())


def test_zoo_names_resolve_to_shipped_files():
    opened = open_family(models("zoo:base", "zoo:facts"))
    assert (Path(opened.family.base) / "config.json").is_file()
    assert set(opened.hashes) == {"base", "e0"}


def test_a_fingerprint_changes_with_a_single_weight(copied):
    before = fingerprint(str(copied))
    assert fingerprint(str(copied)) == before
    weights = load_file(copied / "model.safetensors")
    weights["model.norm.weight"][3] += 1
    save_file(weights, copied / "model.safetensors")
    assert fingerprint(str(copied)) != before


def test_a_fingerprint_changes_with_a_tokenizer_of_sentencepiece(copied):
    before = fingerprint(str(copied))
    (copied / "tokenizer.model").write_bytes(b"pieces")
    assert fingerprint(str(copied)) != before


def test_a_plus_in_a_path_hides_no_weights(copied, tmp_path, monkeypatch):
    """Neither in the base's path nor in an adapter's; and the current folder has no part in it."""
    monkeypatch.chdir(tmp_path)
    plus = copied.rename(tmp_path / "a+b")
    adapter = tmp_path / "lora+x"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    names = [str(plus), f"{plus}+{adapter}", "a+b", "./a+b+lora+x"]
    before = [fingerprint(name) for name in names]
    assert before[0] == before[2]
    assert before[1] == before[3]
    (tmp_path / "stranger.json").write_text("{}")
    assert [fingerprint(name) for name in names] == before
    weights = load_file(plus / "model.safetensors")
    weights["model.norm.weight"][3] += 1
    save_file(weights, plus / "model.safetensors")
    after = [fingerprint(name) for name in names]
    assert not set(after) & set(before)
    (adapter / "adapter_config.json").write_text("{} ")
    assert fingerprint(names[0]) == after[0]
    assert fingerprint(names[1]) != after[1]


def test_a_pickle_counts_as_weights(copied):
    (copied / "pytorch_model.bin").write_bytes(b"1")
    before = fingerprint(str(copied))
    (copied / "pytorch_model.bin").write_bytes(b"2")
    assert fingerprint(str(copied)) != before


def test_a_hub_id_stands_for_itself():
    assert fingerprint("org/a") == fingerprint("org/a") != fingerprint("org/b")


def test_another_shape_is_refused_by_tensor_and_field(llama_family, copied):
    weights = load_file(copied / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:-1].clone()
    save_file(weights, copied / "model.safetensors")
    with pytest.raises(ModelError, match=r"models\.experts\.1: .*model\.norm\.weight"):
        open_family(models(llama_family.base, llama_family.experts[1], str(copied)))


def test_another_architecture_is_refused(llama_family, qwen2_family):
    with pytest.raises(ModelError, match=r"models\.experts\.0"):
        open_family(models(llama_family.base, qwen2_family.experts[0]))


def test_a_missing_folder_and_an_unknown_zoo_name_are_refused(llama_family, tmp_path):
    with pytest.raises(ModelError, match=r"models\.base"):
        open_family(models(str(tmp_path / "none"), llama_family.experts[0]))
    with pytest.raises(ModelError, match=r'models\.experts\.0: .*did you mean "zoo:facts"'):
        open_family(models(llama_family.base, "zoo:fcats"))


def test_a_truncated_file_and_a_folder_without_safetensors_are_refused(llama_family, copied):
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors: .*"):
        open_family(models(llama_family.base, str(copied)))
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        open_family(models(llama_family.base, str(copied)))


def test_an_adapter_is_named_with_its_base(llama_family, copied):
    weights = load_file(copied / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    rows, columns = weights[f"{name}.weight"].shape
    (copied / "model.safetensors").unlink()
    key = f"base_model.model.{name}"
    lora = {
        f"{key}.lora_A.weight": weights[f"{name}.weight"][:2].clone(),
        f"{key}.lora_B.weight": weights[f"{name}.weight"].new_zeros(rows, 2),
    }
    assert lora[f"{key}.lora_A.weight"].shape == (2, columns)
    save_file(lora, copied / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (copied / "adapter_config.json").write_text(json.dumps(config))
    opened = open_family(models(llama_family.base, str(copied)))
    assert opened.family.experts == {"e0": f"{llama_family.base}+{copied}"}
    size = size_of(opened)
    assert size.adapters == {f"{llama_family.base}+{copied}": 2 * (rows + columns)}
    assert size.total == opened.parameters
    mlps = [tensor.numel() for name, tensor in weights.items() if ".mlp." in name]
    assert sum(size.feed_forward) == sum(mlps)
    assert size.tied_head == 0


def test_a_tied_head_is_counted_apart(qwen2_family):
    opened = open_family(models(*qwen2_family.models[:2]))
    size = size_of(opened)
    weights = load_file(Path(qwen2_family.base) / "model.safetensors")
    assert size.total == opened.parameters
    assert size.tied_head == weights["model.embed_tokens.weight"].numel()


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft")
def test_only_adapters_on_the_base_share_its_weights(llama_family, tmp_path):
    """One on another model is loaded with that model, and so is every one beside an adapted base."""
    base, expert = llama_family.models[:2]
    first, second = (adapter(base, tmp_path / name, seed) for seed, name in enumerate("ab"))
    shared, apart = f"{base}+{first}", f"{expert}+{second}"
    size = size_of(open_family(models(base, shared, apart)))
    assert list(size.adapters) == [shared]
    merges = [Merge("passthrough", (model,)) for model in (base, shared, apart)]
    assert size.of_members(merges, base) == 2 * size.total + size.adapters[shared]
    assert not size_of(open_family(models(shared, f"{base}+{second}"))).adapters


def test_one_model_under_two_names_is_refused(llama_family, copied, tmp_path):
    """Through a link, another way of writing its path, or a copy; as an expert twice or as the base."""
    base, one = llama_family.base, llama_family.experts[0]
    link = tmp_path / "link"
    link.symlink_to(one)
    dotted = f"{Path(one).parent}/./{Path(one).name}"
    for twin in (one, str(link), dotted, str(copied)):
        with pytest.raises(
            ModelError, match=r'experts\.1: the expert "e1" is the same .* "e0"; leave'
        ):
            open_family(models(base, one, twin))
    with pytest.raises(
        ModelError, match=r'experts\.0: the expert "e0" is the same model as the base'
    ):
        open_family(models(base, base))


@pytest.mark.parametrize("spoilt", ["base", "expert"])
def test_nan_is_named_with_its_model_and_field(spoilt, llama_family, copied):
    weights = load_file(copied / "model.safetensors")
    weights["lm_head.weight"][3, 1] = float("nan")
    save_file(weights, copied / "model.safetensors")
    asked = [str(copied), llama_family.base]
    opened = open_family(models(*(asked if spoilt == "base" else reversed(asked))))
    field = {"base": r"models\.base", "expert": r"models\.experts\.0"}[spoilt]
    with pytest.raises(ModelError, match=rf"{field}: lm_head\.weight holds NaN") as caught:
        check_weights(opened)
    assert str(copied) in str(caught.value)


def test_a_base_that_lacks_a_tensor_is_the_field_at_fault(llama_family, copied, tmp_path):
    for name, folder in (("base", copied), ("expert", llama_family.experts[1])):
        weights = load_file(Path(folder) / "model.safetensors")
        del weights["model.norm.weight"]
        less = shutil.copytree(copied, tmp_path / name / "less")
        save_file(weights, less / "model.safetensors")
    found = [str(tmp_path / name / "less") for name in ("base", "expert")]
    with pytest.raises(
        ModelError, match=r"models\.base: lacks model\.norm\.weight, which transformers"
    ):
        open_family(models(*found))

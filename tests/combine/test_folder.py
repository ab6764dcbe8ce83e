from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import evomerge
from evomerge.candidate import Merge, Vocabulary
from evomerge.candidate.ensemble import Ensemble, Mix, Router
from evomerge.combine.folder import open_candidate, save_ensemble
from evomerge.combine.loaded import LoadedEnsemble, load
from evomerge.combine.mixed import MixedMembers
from evomerge.combine.router import route
from evomerge.errors import MergeError, ModelError, RecipeError
from evomerge.inference.states import mean_states
from evomerge.merge.live import LiveModel
from tests.combine.crew import LAYER, PROMPTS, alone, crew, ensemble
from tests.conftest import Family

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore::UserWarning:peft"
)
OPENED_WITHOUT = """
import json, sys
sys.modules["evomerge"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True, padding_side="left")
inputs = tokenizer(json.loads(sys.argv[2]), return_tensors="pt", padding=True)
print(json.dumps(model.generate(**inputs, max_new_tokens=6, do_sample=False).tolist()))
"""


@pytest.fixture(scope="module")
def opened(made: tuple[Ensemble, Path]) -> LoadedEnsemble:
    return load(made[1])


def test_members_are_the_models_that_were_scored(
    made: tuple[Ensemble, Path], opened: LoadedEnsemble
) -> None:
    candidate, _ = made
    live = LiveModel(candidate.model_names(), dtype="float32")
    for name, merge in candidate.members.items():
        live.write(merge)
        assert_equal(opened.model.member(name).state_dict(), live.module.state_dict())


def test_members_are_rounded_once(llama_family: Family, tmp_path: Path) -> None:
    candidate = crew(llama_family, tmp_path, "bfloat16")
    save_ensemble(candidate, tmp_path / "best")
    opened = load(tmp_path / "best")
    live = LiveModel(candidate.model_names(), dtype="bfloat16")
    for name, merge in candidate.members.items():
        live.write(merge)
        assert_equal(opened.model.member(name).state_dict(), live.module.state_dict())
        assert next(opened.model.member(name).parameters()).dtype == torch.bfloat16


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_adapters_share_the_weights_of_their_base(opened: LoadedEnsemble) -> None:
    base, lora, second = (opened.model.member(name) for name in ("base", "lora", "second"))
    assert base is opened.model.base
    name = "model.layers.0.mlp.up_proj.weight"
    assert len({one.get_parameter(name).data_ptr() for one in (base, lora, second)}) == 1
    name = "model.layers.0.self_attn.q_proj.weight"
    assert len({one.get_parameter(name).data_ptr() for one in (base, lora, second)}) == 3


def test_only_members_that_are_needed_are_loaded(made: tuple[Ensemble, Path]) -> None:
    opened = load(made[1])
    (chosen,) = opened.route(PROMPTS[:1])
    opened.generate(PROMPTS[0], max_new_tokens=1)
    assert list(opened.model._loaded) == [chosen]


def test_every_prompt_is_continued_by_its_member(opened: LoadedEnsemble) -> None:
    routes = opened.route(PROMPTS)
    assert len(set(routes)) > 3
    options = {"max_new_tokens": 6, "do_sample": False}
    found = opened.generate(PROMPTS, **options)
    for prompt, member, text in zip(PROMPTS, routes, found, strict=True):
        tokens = torch.tensor([opened.tokens([prompt])[0]])
        own = opened.model.member(member).generate(tokens, **options)
        expected = opened.tokenizer.decode(own[0, tokens.shape[1] :], skip_special_tokens=True)
        assert text == opened.generate(prompt, **options) == expected


def test_the_router_is_that_of_the_search(
    made: tuple[Ensemble, Path], opened: LoadedEnsemble
) -> None:
    candidate, _ = made
    names = list(candidate.members)
    prompts = opened.tokens(PROMPTS)
    states = mean_states(opened.model.base, prompts, [LAYER])[:, 0]
    for margin, fallback in ((0.0, None), (1.0, "best"), (9.0, "best")):
        router = Router(LAYER, fallback, margin)
        opened.model._router._settings = asdict(router)
        expected = [names[one] for one in route(replace(candidate, router=router), states)]
        assert opened.route(PROMPTS) == expected
        assert len(set(expected)) > 1 or margin == 9.0
    opened.model._router._settings = asdict(candidate.router)


def test_a_saved_ensemble_is_a_candidate_again(made: tuple[Ensemble, Path], tmp_path: Path) -> None:
    candidate, folder = made
    found = open_candidate(folder)
    assert list(found.members) == list(candidate.members)
    assert (found.router, found.fit, found.base) == (
        candidate.router,
        candidate.fit,
        candidate.base,
    )
    live = LiveModel(
        dict.fromkeys((*candidate.model_names(), *found.model_names())), dtype="float32"
    )
    for name, merge in candidate.members.items():
        live.write(merge)
        expected = {key: tensor.clone() for key, tensor in live.module.state_dict().items()}
        live.write(found.members[name])
        assert_equal(live.module.state_dict(), expected)
    save_ensemble(found, tmp_path / "again")
    texts = [load(one).generate(PROMPTS, max_new_tokens=3) for one in (folder, tmp_path / "again")]
    assert texts[0] == texts[1]


def test_its_recipe_gives_the_same_bytes(made: tuple[Ensemble, Path], tmp_path: Path) -> None:
    again = made[1].with_name("again")
    evomerge.merge(made[1] / "recipe.yaml", again)
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(made[1]) for p in made[1].rglob("*") if p.is_file())
    cards = [Path("README.md"), Path("members/best/README.md")]
    unlike = [one for one in files if (again / one).read_bytes() != (made[1] / one).read_bytes()]
    assert set(unlike) <= set(cards)
    (again / "router.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"recipe.yaml: .* or an array beside it, is missing"):
        evomerge.merge(again / "recipe.yaml", tmp_path / "third")
    text = (again / "recipe.yaml").read_text().replace("layer: 2", "layers: 2")
    (again / "recipe.yaml").write_text(text)
    shutil.copy(made[1] / "router.safetensors", again)
    with pytest.raises(RecipeError, match="not a file of the kind ensemble"):
        evomerge.merge(again / "recipe.yaml", tmp_path / "third")


def test_members_of_one_vocabulary_bring_their_base(llama_family: Family, tmp_path: Path) -> None:
    base, (first, second, _) = llama_family.base, llama_family.experts
    shares = {"base": (1.0, 0.0, 0.0), "first": (0.0, 1.0, 0.0)}
    members = {
        name: Merge(
            "linear",
            (base, first, second),
            base,
            merges_base=False,
            own={"weight": ((share,),)},
            dtype="float32",
            vocabulary=Vocabulary("union"),
        )
        for name, share in shares.items()
    }
    save_ensemble(ensemble(base, members), tmp_path / "out")
    combiner = json.loads((tmp_path / "out" / "combiner.json").read_text())
    assert combiner["base"]["path"] == "members/base_2"
    assert len(load(tmp_path / "out").generate(PROMPTS[:3], max_new_tokens=2)) == 3


def test_tokens_are_continued_as_transformers_continues_them(opened: LoadedEnsemble) -> None:
    prompt = PROMPTS[3]
    tokens = torch.tensor([opened.tokens([prompt])[0]])
    member = opened.model.member(opened.route([prompt])[0])
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(opened.generate(tokens, **options), member.generate(tokens, **options))
    whole = opened.generate(tokens, return_dict_in_generate=True, **options)
    assert torch.equal(whole.sequences, member.generate(tokens, **options))


def test_what_joins_no_answers_of_several_members_is_refused(opened: LoadedEnsemble) -> None:
    with pytest.raises(ValueError, match="one row at a time"):
        opened.generate(PROMPTS, max_new_tokens=2, return_dict_in_generate=True)
    with pytest.raises(ValueError, match="no cache"):
        opened.model(torch.tensor([[1, 2]]), past_key_values=object())
    with pytest.raises(ValueError, match="input_ids"):
        opened.model.generate(inputs_embeds=torch.zeros(1, 2, 32))
    assert opened.generate([]) == []


def test_rows_are_read_by_the_member_that_answers_them(opened: LoadedEnsemble) -> None:
    tokens = torch.tensor([each[:5] for each in opened.tokens(PROMPTS) if len(each) >= 5])
    logits = opened.model(tokens).logits
    routes = opened.model.route(tokens.tolist())
    assert len(set(routes)) > 1
    for row, member, found in zip(tokens, routes, logits, strict=True):
        expected = opened.model.member(member)(row[None]).logits[0]
        torch.testing.assert_close(found, expected)


def test_transformers_opens_it_without_evomerge(
    made: tuple[Ensemble, Path], opened: LoadedEnsemble
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPENED_WITHOUT, str(made[1]), json.dumps(PROMPTS)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    tokens = torch.tensor(json.loads(done.stdout.splitlines()[-1]))
    width = max(map(len, opened.tokens(PROMPTS)))
    texts = opened.tokenizer.batch_decode(tokens[:, width:], skip_special_tokens=True)
    assert texts == opened.generate(PROMPTS, max_new_tokens=6, do_sample=False)


def test_transformers_opens_it_beside_evomerge(
    made: tuple[Ensemble, Path], opened: LoadedEnsemble
) -> None:
    model = AutoModelForCausalLM.from_pretrained(made[1], trust_remote_code=True)
    prompts = opened.tokens(PROMPTS)
    assert model.route(prompts) == opened.model.route(prompts)
    assert AutoTokenizer.from_pretrained(made[1]).get_vocab() == opened.tokenizer.get_vocab()


def test_the_folder_names_its_members(made: tuple[Ensemble, Path], llama_family: Family) -> None:
    candidate, folder = made
    combiner = json.loads((folder / "combiner.json").read_text())
    places = {place["name"]: place for place in combiner["members"]}
    assert list(places) == list(candidate.members)
    assert (folder / places["base"]["path"]).resolve() == Path(llama_family.base)
    assert (folder / places["an expert/1"]["path"]).resolve() == Path(llama_family.experts[0])
    assert places["lora"]["adapter"] == "members/lora"
    assert places["lora"]["path"] == places["base"]["path"]
    assert (places["head"]["path"], places["best"]["path"]) == ("members/head", "members/best")
    assert sorted(one.name for one in (folder / "members").iterdir()) == [
        *("best", "head", "lora", "second")
    ]
    assert sorted(one.name for one in (folder / "members" / "lora").iterdir()) == [
        *("adapter_config.json", "adapter_model.safetensors")
    ]
    assert all(len(place["hash"]) == 32 for place in places.values())
    assert not list(folder.glob("*.bin"))
    assert "evomerge serve . --upstream" in (folder / "README.md").read_text()


def test_it_moves_with_its_tree(llama_family: Family, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for model in llama_family.models[:2]:
        shutil.copytree(model, tree / Path(model).name)
    members = {"one": alone(str(tree / "base")), "two": alone(str(tree / "expert0"))}
    save_ensemble(ensemble(str(tree / "base"), members), tree / "results" / "best")
    expected = load(tree / "results" / "best").generate(PROMPTS, max_new_tokens=2)
    tree.rename(tmp_path / "moved")
    found = load(tmp_path / "moved" / "results" / "best")
    assert found.generate(PROMPTS, max_new_tokens=2) == expected
    (tmp_path / "moved" / "results" / "best").rename(tmp_path / "alone")
    with pytest.raises(ModelError, match="the base is gone: no folder"):
        load(tmp_path / "alone")


def test_names_that_are_no_file_names_stay_apart(llama_family: Family, tmp_path: Path) -> None:
    own = {"weight": (((0.5,),),)}
    merges = [
        Merge("task_arithmetic", (expert,), llama_family.base, own=own, dtype="float32")
        for expert in llama_family.experts
    ]
    members = dict(zip(("a/b", "a:b", "../A_b"), merges, strict=True))
    save_ensemble(ensemble(llama_family.base, members), tmp_path / "out")
    folders = sorted(one.name for one in (tmp_path / "out" / "members").iterdir())
    assert folders == ["_A_b", "a_b", "a_b_2"]
    assert load(tmp_path / "out").names == ("a/b", "a:b", "../A_b")


@pytest.fixture
def pair(llama_family: Family, tmp_path: Path) -> Path:
    """An ensemble of copied models, to be damaged."""
    for model in llama_family.models[:2]:
        shutil.copytree(model, tmp_path / Path(model).name)
    members = {"one": alone(str(tmp_path / "expert0"))}
    save_ensemble(ensemble(str(tmp_path / "base"), members), tmp_path / "out")
    return tmp_path / "out"


def test_a_member_that_is_gone_is_named(pair: Path) -> None:
    shutil.rmtree(pair.parent / "expert0")
    with pytest.raises(ModelError, match=r"out: the member one is gone: no folder .*/expert0$"):
        load(pair)


def test_a_member_that_was_changed_is_named(pair: Path) -> None:
    file = pair.parent / "expert0" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="the member one is not what it was when the ensemble"):
        load(pair)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no combiner.json; expected a saved ensemble"),
        ("{", "not the description of an ensemble"),
        ("[]", "not the description of an ensemble"),
        ('{"schema": 99}', "found schema 99, this release reads 1"),
    ],
)
def test_a_folder_that_holds_no_ensemble_is_refused(
    pair: Path, content: str | None, message: str
) -> None:
    (pair / "combiner.json").unlink()
    if content is not None:
        (pair / "combiner.json").write_text(content)
    with pytest.raises(ModelError, match=message) as error:
        load(pair)
    assert "\n" not in str(error.value)
    assert str(pair) in str(error.value)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load(tmp_path / "nothing")


def test_what_has_learnt_nothing_is_not_saved(llama_family: Family, tmp_path: Path) -> None:
    made = ensemble(llama_family.base, {"base": alone(llama_family.base)})
    unfitted = Ensemble(made.base, made.members, made.router)
    with pytest.raises(MergeError, match="learnt nothing"):
        save_ensemble(unfitted, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_is_there(made: tuple[Ensemble, Path]) -> None:
    found = AutoTokenizer.from_pretrained(made[1])
    assert found("to be")["input_ids"] == load(made[1]).tokens(["to be"])[0]


MIXES = (
    Mix({"base": 1.0, "lora": 2.0, "best": 1.0}, "probabilities", top_k=3),
    Mix({"base": 1.0, "lora": 2.0, "best": 1.5}, "logits", top_k=2, temperature=1.3),
    Mix({"lora": 1.0}, top_k=1),
)


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: f"{mix.over}-{mix.top_k}")
def test_a_mix_is_that_of_the_search_with_and_without_a_cache(
    made: tuple[Ensemble, Path], tmp_path: Path, mix: Mix
) -> None:
    candidate = Ensemble(made[0].base, made[0].members, mix=mix)
    save_ensemble(candidate, tmp_path / "out")
    opened = load(tmp_path / "out")
    live = LiveModel(candidate.model_names(), dtype="float32")
    searched = MixedMembers(live).build(candidate)
    tokens = torch.tensor([each[:6] for each in opened.tokens(PROMPTS) if len(each) >= 6])
    with torch.no_grad():
        expected = searched(input_ids=tokens).logits
        torch.testing.assert_close(opened.model(tokens).logits, expected)
    options = {"max_new_tokens": 8, "do_sample": False}
    cached = opened.generate(PROMPTS, **options)
    assert cached == opened.generate(PROMPTS, use_cache=False, **options)
    assert opened.generate(PROMPTS[0], num_beams=2, **options)
    written = tokens
    for _ in range(8):
        with torch.no_grad():
            chosen = searched(input_ids=written).logits[:, -1].argmax(-1, keepdim=True)
        written = torch.cat([written, chosen], dim=1)
    assert torch.equal(opened.generate(tokens, eos_token_id=-1, **options), written)
    assert len(opened.model._loaded) == mix.top_k, "others than those that run were loaded"
    with pytest.raises(ValueError, match="all answer together"):
        opened.route(PROMPTS)
    assert open_candidate(tmp_path / "out").mix == mix

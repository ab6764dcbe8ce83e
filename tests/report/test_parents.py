from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard, constants

from evomerge.report.card import model_card
from evomerge.report.leaderboard import leaderboard
from evomerge.report.parents import (
    ParentCard,
    common_licence,
    licence_metadata,
    loading_class,
    read_card,
)
from evomerge.store import Store


def write(folder: Path, front: str = "", config: str = "{}") -> str:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{front}\n---\n\n# A model\n")
    (folder / "config.json").write_text(config)
    return str(folder)


def test_a_card_states_licence_and_data_sets(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "license: MIT\ndatasets: [org/data, c4]")
    assert read_card(folder) == ParentCard("mit", datasets=("org/data", "c4"))
    other = write(tmp_path / "b", "license: other\nlicense_name: own\nlicense_link: LICENSE")
    assert read_card(other) == ParentCard("other", "own", "LICENSE")
    assert read_card(other).stated == "own"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"architectures": ["LlamaForCausalLM"]}', "AutoModelForCausalLM"),
        ('{"architectures": ["A"], "vision_config": {}}', "AutoModelForMultimodalLM"),
        ('{"architectures": ["AForCausalLM"], "vision_config": {}}', "AutoModelForCausalLM"),
        ("[", "AutoModelForCausalLM"),
    ],
)
def test_what_loads_a_merge_of_it(config: str, expected: str, tmp_path: Path) -> None:
    assert loading_class(write(tmp_path / "a", "tags: [x]", config)) == expected
    assert loading_class("zoo:base") == loading_class("org/none") == "AutoModelForCausalLM"


def test_a_configuration_states_it_where_the_card_does_not(tmp_path: Path) -> None:
    assert read_card(write(tmp_path / "a", "tags: [x]", '{"license": "mit"}')).licence == "mit"


@pytest.mark.parametrize("front", ["license: [", "- a", "license: {a: b}", "", "datasets: 3"])
def test_a_damaged_card_states_nothing(tmp_path: Path, front: str) -> None:
    assert read_card(write(tmp_path / "a", front, "{")) == ParentCard()


def test_a_model_that_is_not_here_states_nothing(tmp_path: Path) -> None:
    assert read_card("org/no-such-model") == read_card(str(tmp_path / "gone")) == ParentCard()


def test_the_zoo_is_under_the_licence_of_the_package() -> None:
    assert read_card("zoo:base").licence == "apache-2.0"


def test_a_model_of_the_hub_is_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = tmp_path / "models--org--name"
    write(repo / "snapshots" / "c0ffee", "license: gemma")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("c0ffee")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert read_card("org/name").licence == "gemma"
    assert read_card("org/name@c0ffee").licence == "gemma"
    assert read_card("org/name@0ther") == ParentCard()


def test_of_model_and_adapter_both_must_agree(tmp_path: Path) -> None:
    base, same = write(tmp_path / "a", "license: mit"), write(tmp_path / "b", "license: mit")
    unlike = write(tmp_path / "c", "license: gemma\ndatasets: org/data")
    assert read_card(f"{base}+{same}").licence == "mit"
    assert read_card(f"{base}+{unlike}") == ParentCard(datasets=("org/data",))


def test_one_licence_is_kept_and_several_are_other() -> None:
    own = ParentCard("other", "own", "LICENSE")
    assert licence_metadata([own, own]) == {
        "license": "other",
        "license_name": "own",
        "license_link": "LICENSE",
    }
    assert licence_metadata([ParentCard("mit")] * 3) == {"license": "mit"}
    for unlike in ([ParentCard("mit"), own], [ParentCard("mit"), ParentCard()], [ParentCard()]):
        assert common_licence(unlike) is None
        assert licence_metadata(unlike) == {"license": "other"}


def test_the_card_names_the_conflict(
    make_store: Callable[..., Store], lab: SimpleNamespace, tmp_path: Path
) -> None:
    models = {
        "base": write(tmp_path / "base", "license: mit"),
        "experts": [write(tmp_path / "one", "license: mit\ndatasets: [org/data]")],
    }
    store = make_store(models=models)
    lab.fill(store)
    text = model_card(store, leaderboard(store))
    assert ModelCard(text).data.license == "mit"
    assert ModelCard(text).data.datasets == ["org/data"]
    assert "All parents state the licence `mit`" in text
    store = make_store(models={**models, "experts": [*models["experts"], "zoo:facts", "org/two"]})
    lab.fill(store)
    text = model_card(store, leaderboard(store))
    assert ModelCard(text).data.license == "other"
    assert "| base | mit |" in text
    assert "| expert facts | apache-2.0 |" in text
    assert "| expert two | none that was found |" in text

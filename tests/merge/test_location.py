"""From names to folders."""

from __future__ import annotations

import huggingface_hub
import pytest

from evomerge import zoo
from evomerge.errors import ModelError
from evomerge.merge import location
from evomerge.merge.location import commit, locate, split_adapter


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert locate(str(tmp_path)) == tmp_path


def test_the_zoo_has_its_models():
    assert locate("zoo:facts").samefile(zoo.resolve("zoo:facts"))
    with pytest.raises(ModelError, match='did you mean "zoo:facts"'):
        locate("zoo:fact")


def test_only_what_the_hub_gave_has_a_commit(tmp_path):
    snapshot = tmp_path / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    assert commit("org/model@main", snapshot) == "c0ffee"
    assert commit(str(snapshot), snapshot) is None
    assert commit("zoo:facts", locate("zoo:facts")) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/model", ("org/model", None)),
        ("org/model@main+lora", ("org/model@main", "lora")),
    ],
)
def test_adapters_are_split_off(name, expected):
    assert split_adapter(name) == expected


def test_a_folder_with_a_plus_in_its_name_is_whole(tmp_path):
    folder = tmp_path / "a+b"
    folder.mkdir()
    assert split_adapter(str(folder)) == (str(folder), None)


@pytest.mark.parametrize("name", ["a+b+c", "a+", "+b"])
def test_other_pluses_are_errors(name):
    with pytest.raises(ModelError, match=r"expected MODEL or MODEL\+ADAPTER"):
        split_adapter(name)


def test_the_hub_gives_the_rest(tmp_path, monkeypatch):
    asked = {}

    def download(name, *, revision, allow_patterns, ignore_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(location, "snapshot_download", download)
    assert locate("org/model@v1") == tmp_path
    assert (asked["name"], asked["revision"]) == ("org/model", "v1")
    assert not {"*.bin", "*.py"} & set(asked["patterns"])
    locate("org/model", allow_pickle=True, trust_remote_code=True)
    assert asked["revision"] is None
    assert {"*.bin", "*.py"} <= set(asked["patterns"])


@pytest.mark.parametrize(
    ("listed", "skipped"),
    [
        (["consolidated.safetensors", "model.safetensors"], ["consolidated.safetensors"]),
        (
            ["original/consolidated.00.safetensors", "model.safetensors.index.json"],
            ["original/consolidated.00.safetensors"],
        ),
        (["consolidated.safetensors", "params.json"], []),
        (["model.safetensors", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (
            ["model.safetensors.index.json", "pytorch_model-00001-of-00002.bin"],
            ["pytorch_model-00001-of-00002.bin"],
        ),
        (["config.json", "pytorch_model.bin"], []),
        (["adapter_model.bin", "model.safetensors"], []),
        (None, []),
    ],
)
def test_weights_that_stand_on_the_hub_twice_are_fetched_once(
    listed, skipped, tmp_path, monkeypatch
):
    def listing(self, name, *, revision):
        assert (name, revision) == ("org/model", "v1")
        if listed is None:
            raise ConnectionError
        return listed

    ignored = []
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listing)
    monkeypatch.setattr(
        location,
        "snapshot_download",
        lambda name, **asked: ignored.extend(asked["ignore_patterns"]) or str(tmp_path),
    )
    locate("org/model@v1")
    kept = huggingface_hub.utils.filter_repo_objects(listed or [], ignore_patterns=ignored)
    assert sorted({*(listed or [])} - {*kept}) == skipped


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/at/all", "no such folder; expected a model folder or a Hub id"),
        ("./nowhere", "no such folder"),
        ("bad name/x y", "not a Hub id either"),
        ("nobody/nothing", "the Hub does not give it: "),
    ],
)
def test_what_is_not_found_is_one_line(name, message, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=message) as caught:
        locate(name)
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "x").write_text("", encoding="utf-8")
    with pytest.raises(ModelError, match="is a file; expected a folder"):
        locate(str(tmp_path / "x"))

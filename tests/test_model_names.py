from pathlib import Path

from evomerge.model_names import anchored, short_name, with_name


def test_short_names():
    assert short_name("zoo:facts") == "facts"
    assert short_name("org/model-7b") == "model-7b"
    assert short_name("models/expert/") == "expert"


def test_only_local_folders_are_anchored(tmp_path):
    (tmp_path / "there").mkdir()
    assert anchored("there", tmp_path) == str(tmp_path / "there")
    assert anchored("./absent", tmp_path) == str(tmp_path / "absent")
    assert anchored("/absolute", tmp_path) == "/absolute"
    assert anchored("~/mine", tmp_path) == str(Path("~/mine").expanduser().resolve())
    assert anchored("org/model", tmp_path) == "org/model"
    (tmp_path / "zoo:base").mkdir()
    assert anchored("zoo:base", tmp_path) == "zoo:base"


def test_experts_get_their_short_names():
    assert with_name("zoo:facts") == {"model": "zoo:facts", "name": "facts"}
    assert with_name({"model": "org/m"}) == {"model": "org/m", "name": "m"}
    assert with_name({"model": "org/m", "name": "x"}) == {"model": "org/m", "name": "x"}
    assert with_name(3) == 3
    assert with_name({"model": 3}) == {"model": 3}

from pathlib import Path

import pytest

from evomerge.config.model_names import anchored, by_part, parts, short_name


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


@pytest.mark.parametrize(
    ("model", "folders", "expected"),
    [
        ("org/m", (), ("org/m",)),
        ("org/m+lora", (), ("org/m", "lora")),
        ("a+b", ("a+b",), ("a+b",)),
        ("a+b", ("a", "b", "a+b"), ("a+b",)),  # a folder is left whole
        ("a+b+c", ("a+b", "c"), ("a+b", "c")),
        ("a+b+c", ("a", "b+c"), ("a", "b+c")),
        ("org/m+b+c", ("b+c",), ("org/m", "b+c")),
        ("a+b+c+d", ("a+b", "c+d", "a"), ("a+b", "c+d")),
        ("a+b+c", (), ("a+b+c",)),  # nobody knows
        ("a+b+c", ("a", "c"), ("a+b+c",)),
        ("+a", (), ("+a",)),
    ],
)
def test_where_a_name_is_split(model, folders, expected):
    assert parts(model, folders.__contains__) == expected


def test_both_parts_are_renamed_and_anchored(tmp_path):
    assert by_part(str.upper)("m+lora") == "M+LORA"
    for name in ("a+b", "lora"):
        (tmp_path / name).mkdir()
    assert anchored("a+b", tmp_path) == str(tmp_path / "a+b")
    assert anchored("a+b+lora", tmp_path) == f"{tmp_path}/a+b+{tmp_path}/lora"
    assert anchored("org/m+./lora", tmp_path) == f"org/m+{tmp_path}/lora"

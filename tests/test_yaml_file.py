from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge import yaml_file
from evomerge.errors import CampaignError, UserError

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


def parse(text):
    return yaml_file.parse(text, path=Path("f.yaml"), kind=CampaignError)


@given(st.dictionaries(st.text("abcdef", min_size=1), VALUES, max_size=4))
def test_what_is_dumped_is_read_back(data):
    read = parse(yaml_file.dump(data, header="a comment")).data
    assert read == data
    assert repr(read) == repr(data)  # 1 and 1.0 and True are equal, but not the same


def test_a_text_that_looks_like_a_key_is_read_back():
    data = {"a": ["?0", "? x"], "b": "?0"}
    assert parse(yaml_file.dump(data)).data == data


def test_yaml_1_2_scalars():
    assert parse("a: 1e-3\nb: no\nc: 0x10\n").data == {"a": 0.001, "b": "no", "c": 16}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 'f.yaml:3: duplicate key "a": a key may be given once only'),
        ("a: [1\n", "f.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 1\n", "f.yaml:2: a second YAML document begins here (---); expected one"),
        ("a: *b\n", "f.yaml:1: not valid YAML: found undefined alias"),
        ("- 1\n", "f.yaml:1: found a list, expected a mapping of fields"),
        ("one\n", "f.yaml:1: found a single value, expected a mapping of fields"),
        ("a:\n\tb: 1\n", "f.yaml:2: not valid YAML: found a tab; indent with spaces"),
        ("", "f.yaml:1: found nothing, expected a mapping of fields"),
    ],
)
def test_broken_text_is_one_line_with_its_place(text, message):
    with pytest.raises(CampaignError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_lines_of_nested_values():
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - y\n")
    assert document.line(["a", "b"]) == 2
    assert document.line(["a", "c", 1]) == 5
    assert document.line(["a", "missing"]) == 1
    assert str(document.error(UserError, ["a", "c", 1], "no")) == "f.yaml:5: a.c.1: no"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CampaignError, match=r"none\.yaml: no such file"):
        yaml_file.read(tmp_path / "none.yaml", CampaignError)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CampaignError, match=r"bad\.yaml: cannot be read"):
        yaml_file.read(tmp_path / "bad.yaml", CampaignError)

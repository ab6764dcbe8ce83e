"""A list of spaces in place of one."""

from evomerge.config import Campaign, SpaceSettings

SPACE = """\
space:
  method: ties
  parameters:
    weight: {low: 0.0, high: 1.2}
"""
LIST = """\
space:
  - method: ties
    parameters: {weight: {low: 0.0, high: 1.2}}
  - kind: other
    layers: 2
"""


def test_a_list_holds_spaces_that_compete(read):
    found = read(SPACE, LIST).space
    assert [part.kind for part in found.parts] == ["merge", "other"]
    assert found.parts == found.spaces
    assert found.methods == ("ties",)
    assert (found.parts[1].layers, found.field(1)) == (2, ("space", 1))


def test_one_space_is_its_own_part(read):
    alone = read().space
    assert (alone.parts, alone.spaces, alone.field(0)) == ((alone,), (), ("space",))
    assert (
        read(SPACE, SPACE.replace("  ", "    ").replace("    method", "  - method")).space == alone
    )


def test_a_list_is_written_as_a_list_and_read_back(read, tmp_path):
    campaign = read(SPACE, LIST)
    text = campaign.to_yaml()
    assert "spaces" not in text
    assert "several" not in text
    path = tmp_path / "c.yaml"
    path.write_text(text)
    again = Campaign.load(path)
    assert again.space == campaign.space
    assert again.to_yaml() == text
    assert isinstance(campaign.space, SpaceSettings)


def test_what_is_wrong_in_an_entry_is_named_there(refusal):
    expected = {
        "layers: 2": (
            "layers: some",
            'c.yaml:9: space.1.layers: found "some", expected a number of',
        ),
        "kind: other": ("kind: 3", "c.yaml:8: space.1.kind: found 3, expected a text"),
        "method: ties": ("methods: ties", 'c.yaml:6: space.0.methods: unknown key "methods"; did'),
        "high: 1.2}}": ("high: -1}}", "c.yaml:7: space.0.parameters.weight: an empty range"),
        "1.2}}": (
            "1.2, experts: {x: 1}}}",
            'space.0.parameters.weight.experts.x: unknown expert "x"',
        ),
    }
    for old, (new, message) in expected.items():
        assert message in refusal(SPACE, LIST.replace(old, new, 1))
    assert "c.yaml:6: space.0: found 1, expected a mapping" in refusal(
        SPACE, "space: \n - 1\n - 2\n"
    )
    assert "c.yaml:5: space: found [], expected a mapping, or a list" in refusal(
        SPACE, "space: []\n"
    )

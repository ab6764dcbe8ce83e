import pytest

from evomerge.config import Bounds, Range, SpaceSettings
from evomerge.config.space import AUTO_METHODS

WEIGHT = "    weight: {low: 0.0, high: 1.2}\n"


def weight(text):
    return f"    weight: {{{text}}}\n"


def test_a_range_is_searched_and_a_value_is_fixed(read):
    more = WEIGHT + "    density: 0.5\n    normalize: false\n"
    parameters = read(WEIGHT, more).space.parameters
    assert parameters["weight"] == Range(low=0.0, high=1.2)
    assert (parameters["density"], parameters["normalize"]) == (0.5, False)


def test_all_kinds_of_ranges_are_read(read):
    text = "low: -1, high: 2, experts: {facts: {low: 0, high: 1}, tools: 0.5}"
    found = read(WEIGHT, weight(text)).space.parameters["weight"]
    assert (found.low, found.high) == (-1.0, 2.0)
    assert found.experts == {"facts": Bounds(low=0.0, high=1.0), "tools": 0.5}
    simplex = read(WEIGHT, weight("low: 0, high: 1, sum: 1")).space.parameters["weight"]
    assert simplex.sum == 1.0


def test_one_method_or_several(read):
    assert read().space.method == ("ties",)
    assert read("method: ties", "method: [ties, linear]").space.method == ("ties", "linear")


def test_auto_is_the_best_few_with_ranges_where_none_is_given(read):
    lines = "  method: ties\n  parameters:\n" + WEIGHT
    bare = read(lines, "  method: auto\n").space
    assert bare.method == AUTO_METHODS
    assert bare.parameters == SpaceSettings(method="auto").parameters
    assert bare.parameters["weight"] == Range(low=0.0, high=1.2)
    own = read(lines, "  method: auto\n  parameters: {density: 0.5}\n").space
    assert own.parameters == {**bare.parameters, "density": 0.5}
    again = SpaceSettings.model_validate(bare.model_dump())
    assert (again.method, again.parameters) == (bare.method, bare.parameters)


def test_subsets_are_off_unless_asked_for(read):
    assert read().space.subsets is False
    asked = read("method: ties", "method: ties\n  subsets: true\n  layers: each").space
    assert (asked.subsets, asked.layers) == (True, "each")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("coarse: 2", "give layers the number of groups to search"),
        ("mask_seed: true", "set search.seed, which also seeds the masks"),
    ],
)
def test_what_was_removed_is_refused_with_what_to_use_instead(refusal, text, advice):
    name = text.split(":")[0]
    found = refusal("  method: ties\n", f"  method: ties\n  {text}\n")
    why = f"{name} was removed: measured, it gained nothing; {advice} instead"
    assert found == f"/c/c.yaml:7: space.{name}: {why}"


def test_a_removed_key_of_a_range_is_refused_too(refusal):
    found = refusal(WEIGHT, weight("low: 0, high: 1, profile: 3"))
    assert found == (
        "/c/c.yaml:8: space.parameters.weight.profile: profile was removed: measured, it gained "
        "nothing; use a smaller number of layers instead"
    )


def test_it_is_read_back_as_it_is_written(read):
    text = "low: 0.1, high: 2, log: true, per: [expert], experts: {tools: {low: 0.5, high: 1}}"
    space = read(WEIGHT, weight(text)).space
    assert SpaceSettings.model_validate(space.model_dump(mode="json")) == space


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("low: 1, high: 1", "an empty range: low 1 is not below high 1"),
        ("low: 0, high: 1, log: true", "a log range needs low above 0, found 0"),
        ("low: 0, high: 1, log: yess", 'log: found "yess", expected'),
        ("low: -1, high: 1, sum: 1", "sum scales the experts' values: it needs low of at least 0"),
        ("low: 0, high: 1, per: [layer], sum: 1", "expert among per"),
        ("low: 0, high: 1, sum: 1, experts: {facts: 1}", "and no ranges of single experts"),
        ("low: 0, high: 1, sum: 0", "c.yaml:8: space.parameters.weight.sum: found 0"),
        ("low: 0, high: 1, per: [layer], experts: {facts: 1}", "need expert among per"),
        (
            "low: 0.1, high: 1, log: true, experts: {facts: {low: 0, high: 1}}",
            "a log range needs low above 0, found 0 for expert facts",
        ),
        (
            "low: 0, high: 1, experts: {facts: {low: 2, high: 1}}",
            "c.yaml:8: space.parameters.weight.experts.facts: an empty range: low 2 is not below",
        ),
        (
            "low: 0, high: 1, experts: {facts: {lo: 2, high: 1}}",
            'c.yaml:8: space.parameters.weight.experts.facts.lo: unknown key "lo"; did you mean "low"?',
        ),
        (
            "low: 0, high: 1, experts: {facts: true}",
            "c.yaml:8: space.parameters.weight.experts.facts: found true, expected a number",
        ),
        (
            "low: 0, high: 1, per: [layers]",
            'c.yaml:8: space.parameters.weight.per.0: found "layers"',
        ),
        (
            "low: 0, hihg: 1",
            'c.yaml:8: space.parameters.weight.hihg: unknown key "hihg"; did you mean "high"?',
        ),
    ],
)
def test_a_range_that_means_nothing_is_refused(refusal, text, message):
    assert message in refusal(WEIGHT, weight(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers: 0", "c.yaml:7: space.layers: found 0, expected"),
        ("layers: all", 'c.yaml:7: space.layers: found "all", expected'),
        ("subsets: some", 'c.yaml:7: space.subsets: found "some", expected'),
        ("components: [mlp, mlp]", 'c.yaml:7: space.components.1: "mlp" is given twice'),
        ("components: [mlp, mlp.up]", '"mlp.up" is never reached: its tensors belong to "mlp"'),
        ("components: [rest]", '"rest" is the group of what matches none'),
        ("subset: true", 'c.yaml:7: space.subset: unknown key "subset"; did you mean "subsets"?'),
    ],
)
def test_a_space_that_means_nothing_is_refused(refusal, text, message):
    assert message in refusal("  method: ties\n", f"  method: ties\n  {text}\n")


@pytest.mark.parametrize(
    ("lines", "place", "message"),
    [
        ("low: 0|high: 1|log: true", "9: weight.low", "a log range needs low above 0, found 0"),
        (
            "low: -1|high: 1|sum: 1",
            "11: weight.sum",
            "sum scales the experts' values: it needs low of at least 0, expert among per, and no "
            "ranges of single experts",
        ),
        (
            "low: 0|high: 1|experts: {facts: 1}|per: [layer]",
            "11: weight.experts",
            "ranges of single experts need expert among per",
        ),
        (
            "low: 0.1|high: 1|log: true|experts:|  facts:|    high: 1|    low: 0",
            "15: weight.experts.facts.low",
            "a log range needs low above 0, found 0 for expert facts",
        ),
        ("low: 1|high: 1", "8: weight", "an empty range: low 1 is not below high 1"),
        (
            "low: 0|high: 1|experts:|  facts: {low: 1, high: 0}",
            "12: weight.experts.facts",
            "an empty range: low 1 is not below high 0",
        ),
    ],
)
def test_a_rule_over_several_fields_names_one_and_its_line(refusal, lines, place, message):
    text = "".join(f"      {line}\n" for line in lines.split("|"))
    line, field = place.split(": ")
    found = refusal(WEIGHT, f"    weight:\n{text}")
    assert found == f"/c/c.yaml:{line}: space.parameters.{field}: {message}"


def test_the_longer_component_may_stand_first(read):
    more = "method: ties\n  components: [mlp.up, mlp]"
    assert read("method: ties", more).space.components == ("mlp.up", "mlp")


def test_a_method_is_searched_once(refusal):
    found = refusal("method: ties", "method: [ties, ties]")
    assert found == '/c/c.yaml:6: space.method.1: method "ties" is given twice'

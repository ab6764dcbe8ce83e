import pytest

EXPERTS = "  experts: [zoo:facts, zoo:tools]\n"


def test_an_expert_is_called_after_its_model_unless_it_has_a_name(read):
    models = read(EXPERTS, "  experts: [zoo:facts, org/model, {model: /x/y, name: z}]\n").models
    assert [expert.name for expert in models.experts] == ["facts", "model", "z"]
    assert (models.dtype, models.allow_pickle, models.trust_remote_code) == (
        "bfloat16",
        False,
        False,
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (EXPERTS, "  experts: []\n", "c.yaml:4: models.experts: found []"),
        (EXPERTS, "", "c.yaml:2: models.experts: is missing"),
        (
            EXPERTS,
            "  experts: [a/x, b/x]\n",
            'c.yaml:4: models.experts: two experts are called "x"',
        ),
        (EXPERTS, "  experts: [a/base]\n", 'no expert may be called "base"'),
        (
            EXPERTS,
            "  experts:\n    - {model: a, nmae: x}\n",
            'c.yaml:5: models.experts.0.nmae: unknown key "nmae"; did you mean "name"?',
        ),
        ("zoo:base", "''", "c.yaml:3: models.base: found ''"),
        (EXPERTS, EXPERTS + "  dtype: int8\n", "c.yaml:5: models.dtype: found 'int8'"),
    ],
)
def test_what_is_no_family_is_refused(refusal, old, new, message):
    assert message in refusal(old, new)

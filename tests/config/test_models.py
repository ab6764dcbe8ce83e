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
            'c.yaml:4: models.experts.1: two experts are called "x"; give it as {model: ..., name: ...}',
        ),
        (
            EXPERTS,
            "  experts:\n    - a\n    - {model: b, name: a}\n",
            'c.yaml:6: models.experts.1.name: two experts are called "a"',
        ),
        (
            EXPERTS,
            '  experts:\n    - {model: a, name: "\\u00e9"}\n    - {model: b, name: "e\\u0301"}\n',
            'c.yaml:6: models.experts.1.name: two experts are called "\u00e9"',
        ),
        (
            EXPERTS,
            "  experts:\n    - a\n    - b/base\n",
            'c.yaml:6: models.experts.1: no expert may be called "base"; give it as {model',
        ),
        (
            EXPERTS,
            "  experts:\n    - {model: a, nmae: x}\n",
            'c.yaml:5: models.experts.0.nmae: unknown key "nmae"; did you mean "name"?',
        ),
        ("zoo:base", "''", 'c.yaml:3: models.base: found ""'),
        (EXPERTS, EXPERTS + "  dtype: int8\n", 'c.yaml:5: models.dtype: found "int8"'),
        (
            EXPERTS,
            EXPERTS + "  tokenizer: tool\n",
            'c.yaml:5: models.tokenizer: found "tool"; did you mean "tools"?',
        ),
        (
            EXPERTS,
            "  experts: [{model: a, name: union}]\n  tokenizer: union\n",
            'c.yaml:5: models.tokenizer: an expert is called "union", too; give it another name',
        ),
    ],
)
def test_what_is_no_family_is_refused(refusal, old, new, message):
    assert message in refusal(old, new)


@pytest.mark.parametrize("tokenizer", ["base", "union", "facts", "tools"])
def test_whose_tokens_the_merged_models_have(read, tokenizer):
    assert read(EXPERTS, f"{EXPERTS}  tokenizer: {tokenizer}\n").models.tokenizer == tokenizer
    assert read(EXPERTS, EXPERTS).models.tokenizer is None

"""Every key that mergekit 0.1.5 reads from its files is read here, or refused by name: none is forgotten."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import yaml
from pydantic import BaseModel

from evomerge.candidate import Conditional, Slice, Source, Vocabulary, load_all
from evomerge.errors import RecipeError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mergekit's own
    from mergekit.common import ModelPath, ModelReference
    from mergekit.config import (
        ConditionalParameter,
        InputModelDefinition,
        InputSliceDefinition,
        MergeConfiguration,
        OutputModuleDefinition,
        OutputSliceDefinition,
    )
    from mergekit.merge_methods.registry import registered_methods
    from mergekit.moe.config import Expert, MoEMergeConfig
    from mergekit.tokenizer.config import (
        ModelTokenEmbedding,
        TokenEmbeddingConfig,
        TokenizerConfig,
        ZeroEmbedding,
    )

A = "merge_method: linear\nmodels: [{model: a}]\n"


@dataclass(frozen=True)
class Read:
    """The value of an attribute of what was read, or of a chain of them."""

    attribute: str
    value: object


@dataclass(frozen=True)
class Refused:
    """A part of the one line that says why."""

    message: str


def inputs(text: str) -> str:
    return f"merge_method: linear\nmodels: [{text}]\n"


def sliced(text: str) -> str:
    return f"merge_method: linear\nslices: [{text}]\n"


def module(text: str) -> str:
    return f"merge_method: linear\nmodules: {{default: {text}}}\n"


def token(text: str) -> str:
    return f"{A}tokenizer: {{tokens: {{<x>: {text}}}}}\n"


def mixture(text: str, more: str = "") -> str:
    expert = f"{{source_model: b, positive_prompts: [one]{text}}}"
    other = "{source_model: c, positive_prompts: [two]}"
    return f"base_model: a\nexperts: [{expert}, {other}]\n{more}"


X = "{model: a, layer_range: [0, 2]}"
HALF = {"weight": 0.5}
KIND = {"kind": "model_token", "model": "a"}
KEYS: dict[tuple[type[BaseModel], str], tuple[str, Read | Refused]] = {
    (MergeConfiguration, "merge_method"): (A, Read("method", "linear")),
    (MergeConfiguration, "models"): (A, Read("models", (Source("a"),))),
    (MergeConfiguration, "slices"): (
        sliced(f"{{sources: [{X}]}}"),
        Read("slices", (Slice((Source("a", (0, 2)),)),)),
    ),
    (MergeConfiguration, "modules"): (
        module("{models: [{model: a}]}"),
        Read("models", (Source("a"),)),
    ),
    (MergeConfiguration, "base_model"): (f"{A}base_model: b\n", Read("base_model", "b")),
    (MergeConfiguration, "dtype"): (f"{A}dtype: torch.float16\n", Read("dtype", "float16")),
    (MergeConfiguration, "out_dtype"): (f"{A}out_dtype: bfloat16\n", Read("out_dtype", "bfloat16")),
    (MergeConfiguration, "tokenizer_source"): (
        f"{A}tokenizer_source: base\n",
        Read("vocabulary", Vocabulary("base")),
    ),
    (MergeConfiguration, "tokenizer"): (
        f"{A}tokenizer: {{}}\n",
        Read("vocabulary", Vocabulary("union")),
    ),
    (MergeConfiguration, "chat_template"): (
        f"{A}chat_template: chatml\n",
        Read("chat_template", "chatml"),
    ),
    (MergeConfiguration, "parameters"): (f"{A}parameters: {HALF}\n", Read("parameters", HALF)),
    (OutputModuleDefinition, "models"): (
        module("{models: [{model: a}, {model: b}]}"),
        Read("models", (Source("a"), Source("b"))),
    ),
    (OutputModuleDefinition, "slices"): (
        module(f"{{slices: [{{sources: [{X}]}}]}}"),
        Read("slices", (Slice((Source("a", (0, 2)),)),)),
    ),
    (OutputModuleDefinition, "parameters"): (
        module(f"{{models: [{{model: a}}], parameters: {HALF}}}"),
        Read("parameters", HALF),
    ),
    (OutputSliceDefinition, "sources"): (
        sliced(f"{{sources: [{X}]}}"),
        Read("slices.0.sources", (Source("a", (0, 2)),)),
    ),
    (OutputSliceDefinition, "base_model"): (
        sliced(f"{{sources: [{X}], base_model: a}}"),
        Read("slices.0.base_model", "a"),
    ),
    (OutputSliceDefinition, "residual_weight"): (  # mergekit reads it and never uses it
        sliced(f"{{sources: [{X}], residual_weight: 0.5}}"),
        Read("slices.0.parameters", {}),
    ),
    (OutputSliceDefinition, "parameters"): (
        sliced(f"{{sources: [{X}], parameters: {HALF}}}"),
        Read("slices.0.parameters", HALF),
    ),
    (InputSliceDefinition, "model"): (
        sliced("{sources: [{model: a+b, layer_range: [0, 2]}]}"),
        Read("slices.0.sources.0.model", "a+b"),
    ),
    (InputSliceDefinition, "layer_range"): (
        sliced("{sources: [{model: a, layer_range: [3, 7]}]}"),
        Read("slices.0.sources.0.layer_range", (3, 7)),
    ),
    (InputSliceDefinition, "parameters"): (
        sliced(f"{{sources: [{{model: a, layer_range: [0, 2], parameters: {HALF}}}]}}"),
        Read("slices.0.sources.0.parameters", HALF),
    ),
    (InputModelDefinition, "model"): (inputs("{model: a+b}"), Read("models.0.model", "a+b")),
    (InputModelDefinition, "parameters"): (
        inputs(f"{{model: a, parameters: {HALF}}}"),
        Read("models.0.parameters", HALF),
    ),
    (ConditionalParameter, "value"): (
        inputs("{model: a, parameters: {weight: {value: [0, 1]}}}"),
        Read("models.0.parameters.weight.0", Conditional((0, 1))),
    ),
    (ConditionalParameter, "filter"): (
        inputs("{model: a, parameters: {weight: [{filter: mlp, value: 1}, {value: 0}]}}"),
        Read("models.0.parameters.weight", (Conditional(1, "mlp"), Conditional(0))),
    ),
    (ModelReference, "model"): (inputs("{model: {model: a}}"), Read("models.0.model", "a")),
    (ModelReference, "lora"): (
        inputs("{model: {model: a, lora: b}}"),
        Read("models.0.model", "a+b"),
    ),
    (ModelReference, "override_architecture"): (
        inputs("{model: {model: a, override_architecture: LlamaForCausalLM}}"),
        Refused("override_architecture: overriding the architecture is not supported"),
    ),
    (ModelPath, "path"): (inputs("{model: {model: {path: a}}}"), Read("models.0.model", "a")),
    (ModelPath, "revision"): (
        inputs("{model: {model: {path: a, revision: main}}}"),
        Read("models.0.model", "a@main"),
    ),
    (TokenizerConfig, "source"): (
        f"{A}tokenizer: {{source: {{model: a}}}}\n",
        Read("vocabulary", Vocabulary("a")),
    ),
    (TokenizerConfig, "tokens"): (
        token("{source: a}"),
        Read("vocabulary.tokens", {"<x>": {"source": "a"}}),
    ),
    (TokenizerConfig, "pad_to_multiple_of"): (
        f"{A}tokenizer: {{pad_to_multiple_of: 16}}\n",
        Read("vocabulary.pad_to_multiple_of", 16),
    ),
    (TokenEmbeddingConfig, "source"): (
        token("{source: {model: a}}"),
        Read("vocabulary.tokens", {"<x>": {"source": "a"}}),
    ),
    (TokenEmbeddingConfig, "force"): (
        token("{source: a, force: true}"),
        Read("vocabulary.tokens", {"<x>": {"source": "a", "force": True}}),
    ),
    (ModelTokenEmbedding, "kind"): (
        token(f"{{source: {KIND | {'token': 'w'}}}}"),
        Read("vocabulary.tokens.<x>.source", KIND | {"token": "w"}),
    ),
    (ModelTokenEmbedding, "model"): (
        token("{source: {kind: model_token, model: {model: a, lora: b}, token: w}}"),
        Read("vocabulary.tokens.<x>.source", KIND | {"model": "a+b", "token": "w"}),
    ),
    (ModelTokenEmbedding, "token"): (
        token(f"{{source: {KIND | {'token': 'w'}}}}"),
        Read("vocabulary.tokens.<x>.source.token", "w"),
    ),
    (ModelTokenEmbedding, "token_id"): (
        token(f"{{source: {KIND | {'token_id': 3}}}}"),
        Read("vocabulary.tokens.<x>.source.token_id", 3),
    ),
    (ZeroEmbedding, "kind"): (
        token("{source: {kind: zero}}"),
        Read("vocabulary.tokens.<x>.source", {"kind": "zero"}),
    ),
    (MoEMergeConfig, "base_model"): (mixture(""), Read("base_model", "a")),
    (MoEMergeConfig, "experts"): (mixture(""), Read("experts.1.source_model", "c")),
    (MoEMergeConfig, "gate_mode"): (
        mixture("", "gate_mode: cheap_embed\n"),
        Read("gate_mode", "cheap_embed"),
    ),
    (MoEMergeConfig, "dtype"): (mixture("", "dtype: float16\n"), Read("dtype", "float16")),
    (MoEMergeConfig, "experts_per_token"): (
        mixture("", "experts_per_token: 1\n"),
        Read("experts_per_token", 1),
    ),
    (MoEMergeConfig, "shared_experts"): (
        mixture("", "shared_experts: [{source_model: d, positive_prompts: [all]}]\n"),
        Read("shared_expert.source_model", "d"),
    ),
    (MoEMergeConfig, "architecture"): (
        mixture("", "architecture: mixtral\n"),
        Read("architecture", "mixtral"),
    ),
    (Expert, "source_model"): (mixture(""), Read("experts.0.source_model", "b")),
    (Expert, "positive_prompts"): (mixture(""), Read("experts.0.positive_prompts", ("one",))),
    (Expert, "negative_prompts"): (
        mixture(", negative_prompts: [not]"),
        Read("experts.0.negative_prompts", ("not",)),
    ),
    (Expert, "noise_scale"): (
        mixture(", noise_scale: 0.1"),
        Refused("noise_scale: noise cannot be drawn again"),
    ),
    (Expert, "residual_scale"): (
        mixture(", residual_scale: 0.5"),
        Read("experts.0.residual_scale", 0.5),
    ),
}
FORMS = {kind for kind, _ in KEYS}


def reached(kind: type[BaseModel], found: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """All of mergekit's forms that one of them can hold."""
    found.add(kind)
    waiting = [field.annotation for field in kind.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        waiting += getattr(annotation, "__args__", ())
        is_form = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        if is_form and annotation not in found:
            reached(annotation, found)
    return found


def test_no_key_of_mergekits_is_forgotten():
    forms = reached(MergeConfiguration, set()) | reached(MoEMergeConfig, set())
    assert {(kind, key) for kind in forms for key in kind.model_fields} == KEYS.keys()


def name_of(key: tuple[type[BaseModel], str]) -> str:
    return f"{key[0].__name__}.{key[1]}"


@pytest.mark.parametrize(("text", "expected"), KEYS.values(), ids=map(name_of, KEYS))
def test_every_key_is_read_or_refused(text, expected, tmp_path):
    data = yaml.safe_load(text)
    (MoEMergeConfig if "experts" in data else MergeConfiguration).model_validate(data)
    (tmp_path / "r.yaml").write_text(text)
    if isinstance(expected, Refused):
        with pytest.raises(RecipeError) as caught:
            load_all(tmp_path / "r.yaml")
        assert expected.message in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    found, _ = load_all(tmp_path / "r.yaml")
    for part in expected.attribute.split("."):
        if isinstance(found, dict):
            found = found[part]
        else:
            found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == expected.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{A}dtype: int64\n", 'r.yaml:3: dtype: found "int64", expected one of float32, '),
        (
            "merge_method: linear\nmodules: {text: {models: [{model: a}]}, "
            "vision: {models: [{model: a}]}}\n",
            "modules: found 2 modules (text, vision); models of one module only can be merged",
        ),
    ],
)
def test_what_mergekit_takes_beyond_that_is_refused_by_name(text, message, tmp_path):
    MergeConfiguration.model_validate(yaml.safe_load(text))
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_all(tmp_path / "r.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_parameter_of_mergekits_methods_is_taken():
    from evomerge.merge.methods import METHODS

    for each in registered_methods():
        ours = METHODS[each.spec.name]
        for parameter in (*each.spec.shared_parameters, *each.spec.input_parameters):
            known = ours.parameters.get(parameter.name)
            assert known is not None or parameter.name in ours.ignored, (ours.name, parameter.name)
            if known is not None:
                assert known.per_source == (parameter in each.spec.input_parameters), ours.name
                assert known.required == parameter.required, (ours.name, parameter.name)

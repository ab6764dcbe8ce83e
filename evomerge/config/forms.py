"""What may stand where a campaign file has something of another kind: the forms, by field."""

from __future__ import annotations

from collections.abc import Mapping

FORMS: Mapping[str, str] = {
    "models": "a mapping, such as {base: MODEL, experts: [MODEL, MODEL]}",
    "models.experts": "a list of models, such as [ORG/NAME, ./folder]",
    "models.experts.*": "a model, or {model: MODEL, name: NAME}",
    "space": "a mapping, such as {method: linear, parameters: {weight: {low: 0, high: 1}}}",
    "space.method": "a method, or a list of methods",
    "space.layers": "a number of groups, each, or a list of [start, stop) pairs, such as [[0, 2], [2, 4]]",
    "space.components": "a list of parts of tensor names, such as [self_attn, mlp]",
    "space.parameters": "a mapping, such as {weight: {low: 0, high: 1}}",
    "space.parameters.*": "a value, or a range, such as {low: 0, high: 1}",
    "space.parameters.*.per": "a list of expert, layer and component, or some of them",
    "space.parameters.*.experts": "a mapping, such as {EXPERT: {low: 0, high: 1}, EXPERT: 0.5}",
    "space.parameters.*.experts.*": "a number, or a range, such as {low: 0, high: 1}",
    "objectives": "a list, such as [{task: TASK, metric: METRIC}]",
    "objectives.*": "{task: TASK, metric: METRIC}",
    "keep": "a list, such as [{task: TASK, at_least: 0.95}]",
    "keep.*": "{task: TASK, at_least: SHARE}",
    "costs": "a list, such as [{cost: generated_tokens, weight: 0.1}]",
    "costs.*": "{cost: COST, weight: WEIGHT}",
    "items": "a mapping, such as {search: 64, select: 64, holdout: 200}",
    "items.from": "a mapping, such as {search: train, select: validation, holdout: test}",
    "prompt": "a mapping, such as {apply_chat_template: true}",
    "search": "a mapping, such as {sampler: auto, trials: 200}",
    "workers": "a mapping, such as {count: auto}",
    "workers.count": "a number of workers, or auto",
    "workers.batch_tokens": "a number of tokens, or auto",
    "scorer": "a mapping, such as {backend: hf}",
    "scorer.args": "a mapping, such as {batch_size: 16}",
}
"""Dotted field, `*` for a place in a list or a name that the user chose → what is expected there."""

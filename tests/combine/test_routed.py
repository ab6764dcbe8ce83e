"""Routers on a worker: what they read, learn and answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Router
from evomerge.combine import routed
from evomerge.combine.routed import Routing
from evomerge.combine.router import Ridge, route
from evomerge.errors import MergeError
from evomerge.merge.live import LiveModel

PROMPTS = {
    "search": {
        "a": [(40 + n, 50, 60 + n % 3) for n in range(12)],
        "b": [(90 + n, 95, 99, 100 + n) for n in range(10)],
    },
    "select": {"a": [(40, 51, 61), (47, 50)], "b": [(99, 100, 101), (40, 50, 60), (98, 97)]},
}


@pytest.fixture(scope="module")
def live(llama_family: Any) -> LiveModel:
    return LiveModel(llama_family.models, dtype="float32")


@pytest.fixture
def routing(live: LiveModel) -> Routing:
    return Routing(live, PROMPTS.__getitem__)


def ensemble(live: LiveModel, layer: int = 2) -> Ensemble:
    base, *experts = live.checkpoints
    members = {
        f"e{n}": Merge("passthrough", (one,), dtype="float32") for n, one in enumerate(experts)
    }
    return Ensemble(base, members, Router(layer))


def known(seed: int = 0) -> dict[str, dict[str, tuple[float, ...]]]:
    """The first member is good at a, the second at b, the third at neither."""
    rng = np.random.default_rng(seed)
    means = {"e0": {"a": 0.9, "b": 0.1}, "e1": {"a": 0.2, "b": 0.8}, "e2": {"a": 0.3, "b": 0.3}}
    counts = {"a": 12, "b": 10}
    return {
        name: {t: tuple(m + 0.05 * rng.normal(size=counts[t])) for t, m in own.items()}
        for name, own in means.items()
    }


def features(model: str, layer: int, prompts: Any) -> np.ndarray:
    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        found = [
            module(torch.tensor([tokens]), output_hidden_states=True)
            .hidden_states[layer][0]
            .mean(0)
            for tokens in prompts
        ]
    return torch.stack(found).double().numpy()


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_what_is_fitted_is_the_regression_on_the_bases_states(
    live: LiveModel, routing: Routing, layer: int
) -> None:
    live.write(ensemble(live).members["e2"])  # whatever is there
    made = ensemble(live, layer)
    fitted = routing.fitted(made, known())
    prompts = [tokens for own in PROMPTS["search"].values() for tokens in own]
    expected = Ridge(features(made.base, layer, prompts)).fit(
        {name: [*own["a"], *own["b"]] for name, own in known().items()}
    )
    assert fitted.fit is not None
    for name, table in expected.tables.items():
        np.testing.assert_allclose(fitted.fit.tables[name], table, rtol=2e-2, atol=1e-4)
    assert routing.fitted(fitted, {}) is fitted


def test_items_go_to_the_member_that_the_router_names(live: LiveModel, routing: Routing) -> None:
    fitted = routing.fitted(ensemble(live), known())
    found = routing.answering(fitted, "select")
    for task, prompts in PROMPTS["select"].items():
        chosen = route(fitted, features(fitted.base, 2, prompts))
        for member, name in enumerate(fitted.members):
            own = tuple(n for n, each in enumerate(chosen) if each == member)
            assert found.get(name, {}).get(task, ()) == own
    learnt = routing.answering(fitted, "search")
    assert learnt == {"e0": {"a": tuple(range(12))}, "e1": {"b": tuple(range(10))}}


def test_a_split_is_read_once(
    live: LiveModel, routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    own = routed.mean_states

    def counted(module: Any, tokens: Any, layers: Any) -> Any:
        read.append((len(tokens), len(layers)))
        return own(module, tokens, layers)

    monkeypatch.setattr(routed, "mean_states", counted)
    for layer in (0, 3, 3, 1):
        fitted = routing.fitted(ensemble(live, layer), known(layer))
        routing.answering(fitted, "search")
    assert read == [(22, 5)]
    for layer in (1, 1, 0, 3, 1):
        routing.answering(routing.fitted(ensemble(live, layer), known(layer)), "select")
    assert read == [(22, 5), (5, 2), (5, 4)]


def test_a_member_more_leaves_the_others_as_they_are(live: LiveModel, routing: Routing) -> None:
    whole = ensemble(live)
    some = replace(whole, members={name: whole.members[name] for name in ("e0", "e2")})
    found = routing.fitted(some, known()).fit
    expected = routing.fitted(whole, known()).fit
    assert found is not None
    assert expected is not None
    assert found == expected.without(1)


@pytest.mark.parametrize(
    ("layer", "scores", "message"),
    [
        (5, known(), r"a router of layer 5; the base has 0 \(embeddings\) to 4"),
        (2, {"e0": known()["e0"], "e2": known()["e2"]}, "e1 has no scores on the search items"),
        (2, {**known(), "e1": {"a": (0.5,) * 12, "b": (0.5,) * 9}}, "e1: found 21 scores"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    live: LiveModel, routing: Routing, layer: int, scores: Any, message: str
) -> None:
    with pytest.raises(MergeError, match=message):
        routing.fitted(ensemble(live, layer), scores)


def test_a_router_that_is_not_fitted_answers_nothing(live: LiveModel, routing: Routing) -> None:
    with pytest.raises(MergeError, match="fit it first"):
        routing.answering(ensemble(live), "select")

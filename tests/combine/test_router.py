"""The router's regression, against brute-force refits, and its decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Router, RouterFit
from evomerge.combine.router import LAMBDAS, Ridge, predictions, route
from evomerge.errors import MergeError


def problem(seed: int = 0, items: int = 30, width: int = 6) -> tuple[np.ndarray, dict[str, list]]:
    rng = np.random.default_rng(seed)
    features = rng.normal(3.0, [0.5, 1, 2, 5, 40, 0.01][:width], size=(items, width))
    weights = rng.normal(size=(3, width)) / features.std(axis=0)
    noise = rng.normal(size=(3, items)) * [[0.1], [1.0], [10.0]]
    scores = weights @ (features - features.mean(axis=0)).T + noise + [[0.5], [2.0], [-1.0]]
    return features, {name: list(row) for name, row in zip("abc", scores, strict=True)}


def solved(inputs: np.ndarray, scores: np.ndarray, penalty: float) -> np.ndarray:
    """Ridge regression with a free intercept, by the normal equations; [d + 1]."""
    table = np.column_stack([inputs, np.ones(len(inputs))])
    penalties = np.diag([penalty] * inputs.shape[1] + [0.0])
    return np.linalg.solve(table.T @ table + penalties, table.T @ scores)


def standardised(fit: RouterFit, features: np.ndarray) -> np.ndarray:
    return (features - fit.tables["mean"]) / fit.tables["scale"]


@pytest.mark.parametrize("items", [8, 30, 4])
def test_leave_one_out_errors_are_those_of_refits(items: int) -> None:
    features, scores = problem(items=items)
    ridge = Ridge(features)
    inputs = standardised(ridge.fit(scores), features)
    for penalty in (0.01, 1.0, 300.0):
        for values in map(np.array, scores.values()):
            expected = []
            for left in range(items):
                kept = np.arange(items) != left
                found = solved(inputs[kept], values[kept], penalty)
                expected.append(values[left] - inputs[left] @ found[:-1] - found[-1])
            found = ridge.leave_one_out(values, penalty)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_coefficients_are_the_minimum_of_the_penalised_loss() -> None:
    features, scores = problem()
    fit = Ridge(features).fit(scores, {"a": 3.0, "b": 50.0})
    inputs = standardised(fit, features)
    assert fit.tables["lambdas"][:2, 0].tolist() == [3.0, 50.0]
    for row, name in enumerate("abc"):
        penalty = float(fit.tables["lambdas"][row, 0])

        def loss(w: np.ndarray, name: str = name, penalty: float = penalty) -> float:
            residuals = np.array(scores[name]) - inputs @ w[:-1] - w[-1]
            return float(residuals @ residuals + penalty * w[:-1] @ w[:-1])

        found = fit.tables["coefficients"][row].astype(float)
        best = scipy.optimize.minimize(loss, found, method="BFGS", options={"gtol": 1e-8})
        np.testing.assert_allclose(found, best.x, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            found, solved(inputs, np.array(scores[name]), penalty), rtol=1e-5, atol=1e-6
        )


def test_the_penalty_is_the_one_with_the_smallest_leave_one_out_error() -> None:
    features, scores = problem()
    ridge = Ridge(features)
    fit = ridge.fit(scores)
    for row, values in enumerate(scores.values()):
        errors = {
            30 * each: float((ridge.leave_one_out(values, 30 * each) ** 2).mean())
            for each in LAMBDAS
        }
        best = min(errors, key=errors.__getitem__)
        assert fit.tables["lambdas"][row, 0] == pytest.approx(best)
        assert fit.tables["errors"][row, 0] == pytest.approx(errors[best] ** 0.5)
    assert len(set(fit.tables["lambdas"][:, 0].tolist())) == 3


def test_a_member_joins_and_leaves_without_touching_the_others() -> None:
    features, scores = problem()
    ridge = Ridge(features)
    whole = ridge.fit(scores)
    some = ridge.fit({name: scores[name] for name in "ab"})
    one = Ridge(features.copy()).fit({"c": scores["c"]})
    assert some.joined(one) == whole
    assert whole.without(2) == some
    assert whole.without(0) == ridge.fit({name: scores[name] for name in "bc"})
    for name, table in some.tables.items():
        rows = slice(None) if name in ("mean", "scale") else slice(2)
        assert table.tobytes() == whole.tables[name][rows].tobytes()


def test_predictions_are_those_of_the_fit_as_it_is_stored() -> None:
    features, scores = problem()
    fit = Ridge(features).fit(scores)
    again = RouterFit.read(fit.content)
    found = predictions(again, features)
    assert found.shape == (30, 3)
    assert (found == predictions(fit, features)).all()
    inputs = standardised(fit, features)
    for row, table in enumerate(fit.tables["coefficients"].astype(float)):
        np.testing.assert_allclose(found[:, row], inputs @ table[:-1] + table[-1], rtol=1e-6)
    apart = np.concatenate([predictions(fit, each[None]) for each in features])
    np.testing.assert_allclose(apart, found, rtol=1e-12)


def test_features_that_say_nothing_have_no_part() -> None:
    features, scores = problem()
    noise = 7.0 + 1e-9 * np.random.default_rng(1).normal(size=(30, 1))
    fit = Ridge(np.hstack([features, np.full((30, 1), 2.5), noise])).fit(scores)
    assert abs(fit.tables["coefficients"][:, 6:8]).max() < 1e-6
    plain = Ridge(features).fit(scores)
    np.testing.assert_allclose(
        fit.tables["coefficients"][:, :6], plain.tables["coefficients"][:, :6], rtol=1e-4
    )


@given(st.integers(0, 10**6), st.floats(-100, 100), st.floats(0.01, 100))
def test_scores_may_be_shifted_and_scaled(seed: int, shift: float, scale: float) -> None:
    features, scores = problem(seed)
    moved = {name: [scale * each + shift for each in own] for name, own in scores.items()}
    ridge = Ridge(features)
    found, other = (predictions(ridge.fit(each), features) for each in (scores, moved))
    np.testing.assert_allclose(other, scale * found + shift, rtol=1e-3, atol=1e-3 * (1 + scale))


def ensemble(fit: RouterFit, router: Router) -> Ensemble:
    members = {name: Merge("passthrough", (f"/{name}",)) for name in "abc"}
    return Ensemble("/base", members, router, fit=fit)


def table(errors: tuple[float, ...] = (0.1, 0.2, 0.4)) -> RouterFit:
    """Scores of a, b and c at x: x, 1 - x, and 0.5."""
    found = {
        "mean": [[0.0]],
        "scale": [[1.0]],
        "coefficients": [[1.0, 0.0], [-1.0, 1.0], [0.0, 0.5]],
        "errors": [[each] for each in errors],
        "lambdas": [[1.0]] * 3,
    }
    return RouterFit({name: np.array(each, np.float32) for name, each in found.items()})


def test_the_member_with_the_highest_prediction_answers() -> None:
    found = ensemble(table(), Router(2))
    assert route(found, [[0.9], [0.1], [0.5], [-3.0], [0.51]]) == (0, 1, 0, 1, 0)


def test_a_fallback_answers_where_the_gain_is_small() -> None:
    points = [[0.58], [0.62], [0.42], [0.38], [0.32], [0.28]]
    for margin, expected in (
        (1.0, (2, 0, 2, 2, 2, 1)),  # 0.1 above c for a, 0.2 for b
        (0.5, (0, 0, 2, 1, 1, 1)),
        (0.0, (0, 0, 1, 1, 1, 1)),
        (9.0, (2, 2, 2, 2, 2, 2)),
    ):
        found = ensemble(table(), Router(2, "c", margin))
        assert route(found, points) == expected


def test_an_ensemble_that_is_not_fitted_routes_nothing() -> None:
    with pytest.raises(MergeError, match="fit it first"):
        route(replace(ensemble(table(), Router(2)), fit=None), [[0.5]])


@pytest.mark.parametrize(
    ("features", "scores", "message"),
    [
        ([[1.0]], {"a": [1.0]}, "2 items or more, found 1"),
        ([[1.0], [np.nan]], {"a": [1.0, 2.0]}, "found 2, some of them not finite"),
        ([[1.0], [2.0]], {"a": [1.0]}, "a: found 1 scores, 1 of them finite; expected 2"),
        ([[1.0], [2.0]], {"a": [1.0, np.inf]}, "a: found 2 scores, 1 of them finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, scores, message) -> None:
    with pytest.raises(MergeError, match=message):
        Ridge(features).fit(scores)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(MergeError, match=r"found features of shape \[1, 2\], the router is fitted"):
        predictions(table(), [[0.5, 0.5]])

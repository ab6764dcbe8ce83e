"""Which member answers a prompt: a ridge regression of each member's score on the prompt's hidden state.

The members are independent columns of one regression (`score ~ features`, an intercept without penalty), so
that one joins or leaves without touching the others. The penalty of each is the one with the smallest mean
squared leave-one-out error: with hat matrix H, y_i minus its prediction by all others is
(y_i - ŷ_i) / (1 - H_ii), exactly (Golub, Heath and Wahba 1979 for ridge regression; Allen 1974, PRESS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evomerge.candidate.ensemble import Ensemble, RouterFit
from evomerge.candidate.tables import Array
from evomerge.errors import MergeError

Numbers = NDArray[np.float64]

LAMBDAS = tuple(float(10**exponent) for exponent in np.arange(-3, 3.01, 0.25))
"""Penalties that are tried, times the number of items."""
_CONSTANT = 1e-6
"""A feature whose standard deviation is smaller, relative to its size, says nothing."""


class Ridge:
    """The regression on the features of some items, decomposed once for all members.

    Args:
        features: `[n, d]`, two items or more.

    Raises:
        MergeError: The features are not finite, or of too few items.
    """

    def __init__(self, features: ArrayLike) -> None:
        found = np.asarray(features, dtype=np.float64)
        if len(found) < 2 or not np.isfinite(found).all():
            raise MergeError(
                f"a router is fitted on the finite features of 2 items or more, found {len(found)}"
                + ("" if np.isfinite(found).all() else ", some of them not finite")
            )
        mean, scale = found.mean(axis=0), found.std(axis=0)
        constant = scale <= _CONSTANT * np.maximum(1.0, np.abs(mean))
        # As they are stored, so that a prediction standardises exactly as the fit does.
        shift = {"mean": mean, "scale": np.where(constant, 1.0, scale)}
        self._shift = {name: each.astype(np.float32)[None] for name, each in shift.items()}
        inputs = _standardised(self._shift, found)
        self._centre = inputs.mean(axis=0)  # what rounding leaves
        self._left, self._values, self._right = np.linalg.svd(
            inputs - self._centre, full_matrices=False
        )

    def fit(
        self, scores: Mapping[str, Sequence[float]], lambdas: Mapping[str, float] | None = None
    ) -> RouterFit:
        """Fit members.

        Args:
            scores: Member → a score for each item, more being better.
            lambdas: Member → its penalty; those that are left out get the one with the smallest
                leave-one-out error.

        Raises:
            MergeError: A member has another number of scores, or scores that are not finite.
        """
        columns = [
            self._column(name, values, (lambdas or {}).get(name)) for name, values in scores.items()
        ]
        coefficients, errors, penalties = zip(*columns, strict=True)
        return RouterFit(
            {
                **self._shift,
                "coefficients": np.stack(coefficients).astype(np.float32),
                "errors": np.array(errors, dtype=np.float32)[:, None],
                "lambdas": np.array(penalties, dtype=np.float32)[:, None],
            }
        )

    def leave_one_out(self, scores: ArrayLike, penalty: float) -> Numbers:
        """Return of each item its score minus its prediction by a fit on all others, [n]."""
        centred, projected = self._projected(np.asarray(scores, dtype=np.float64))
        shrunk = self._shrinkage(penalty)
        left = 1.0 - 1.0 / len(centred) - (self._left**2) @ shrunk
        residuals: Numbers = centred - self._left @ (shrunk * projected)
        return residuals / np.maximum(left, np.finfo(np.float64).eps)

    def _column(
        self, name: str, scores: Sequence[float], penalty: float | None
    ) -> tuple[Numbers, float, float]:
        """Return coefficients and intercept, `[d + 1]`, leave-one-out error and penalty of one member."""
        values = np.asarray(scores, dtype=np.float64)
        if values.shape != (len(self._left),) or not np.isfinite(values).all():
            raise MergeError(
                f"{name}: found {values.size} scores, {int(np.isfinite(values).sum())} of them finite; "
                f"expected {len(self._left)}, one for each item"
            )
        grid = [penalty] if penalty is not None else [len(values) * each for each in LAMBDAS]
        errors = [self.leave_one_out(values, each) for each in grid]
        means = [float((each**2).mean()) for each in errors]
        best = max(range(len(grid)), key=lambda place: (-means[place], grid[place]))
        _, projected = self._projected(values)
        weights = self._right.T @ (self._values / (self._values**2 + grid[best]) * projected)
        intercept = values.mean() - weights @ self._centre
        return np.append(weights, intercept), means[best] ** 0.5, grid[best]

    def _projected(self, values: Numbers) -> tuple[Numbers, Numbers]:
        centred = values - values.mean()
        return centred, self._left.T @ centred

    def _shrinkage(self, penalty: float) -> Numbers:
        squares: Numbers = self._values**2
        return squares / (squares + penalty)


def predictions(fit: RouterFit, features: ArrayLike) -> Numbers:
    """Return each member's predicted score of each of n prompts, [n, members].

    Args:
        fit: What the router has learnt.
        features: `[n, d]`, the hidden states of the router's layer, means over the prompts' tokens.

    Raises:
        MergeError: The features have another width.
    """
    found, width = np.asarray(features, dtype=np.float64), fit.tables["mean"].shape[1]
    if found.ndim != 2 or found.shape[1] != width:
        raise MergeError(
            f"found features of shape {list(found.shape)}, the router is fitted on {width}"
        )
    table = fit.tables["coefficients"].astype(np.float64)
    inputs = _standardised(fit.tables, found)
    return np.stack([inputs @ row[:-1] + row[-1] for row in table], axis=1)


def route(ensemble: Ensemble, features: ArrayLike) -> tuple[int, ...]:
    """Return which member answers each of n prompts, by position among `members`.

    The one with the highest predicted score, of equals the first; the fallback where that is less than
    `margin` leave-one-out errors above its own.

    Args:
        ensemble: A routed one that is fitted.
        features: As `predictions` takes them.

    Raises:
        MergeError: The ensemble has no router, or it is not fitted.
    """
    router, fit = ensemble.router, ensemble.fit
    if router is None or fit is None:
        raise MergeError("an ensemble routes once its router is fitted; search, or fit it first")
    scores = predictions(fit, features)
    best = scores.argmax(axis=1)
    if router.fallback is not None:
        other = list(ensemble.members).index(router.fallback)
        gain = scores[np.arange(len(best)), best] - scores[:, other]
        needed = router.margin * fit.tables["errors"].astype(np.float64)[best, 0]
        best = np.where(gain < needed, other, best)
    return tuple(int(each) for each in best)


def _standardised(shift: Mapping[str, Array], features: Numbers) -> Numbers:
    found: Numbers = (features - shift["mean"]) / shift["scale"].astype(np.float64)
    return found

"""How much each searched number matters for the best trials, by Optuna's evaluator."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 20
"""Trials; of fewer nothing is said."""
MOST = 1_000
"""Trials that are looked at; of more every n-th."""
BEST = 0.1
"""The share of the trials that count as the best."""


def parameter_importances(
    points: Sequence[Mapping[str, float]],
    values: Sequence[float],
    distributions: Mapping[str, BaseDistribution],
) -> dict[str, float]:
    """Return how well each searched number tells the best tenth of the trials from all of them.

    PED-ANOVA (S. Watanabe et al. 2023, 2304.10255), which is fast however many numbers there are.

    Args:
        points: Of complete trials.
        values: One of each; more is better.
        distributions: The range of each dimension.

    Returns:
        Dimension → its share, the largest first; they add up to 1. Empty where trials are too few, or alike.
    """
    if len(points) < FEWEST or len(set(values)) < 2:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    step = -(-len(points) // MOST)
    study = optuna.create_study(direction="maximize")
    for point, value in zip(points[::step], values[::step], strict=True):
        known = {name: one for name, one in distributions.items() if name in point}
        params = {name: point[name] for name in known}
        trial = optuna.trial.create_trial(params=params, distributions=known, value=value)
        study.add_trial(trial)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials in a part of a space: they count little
        found: dict[str, float] = optuna.importance.get_param_importances(
            study, evaluator=evaluator
        )
    return found

"""Conditions as Optuna's constraints, which TPE, GP and NSGA-II heed by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

PREFIX = "constraints:"
"""Of the system attributes from which Optuna 5 reads a trial's constraints; met where at most 0."""


def as_constraints(violations: Sequence[float]) -> dict[str, float] | None:
    """Return `create_trial`'s argument `constraints`; None where the campaign has no conditions."""
    return {str(position): float(one) for position, one in enumerate(violations)} or None


def set_constraints(study: optuna.Study, number: int, violations: Sequence[float]) -> None:
    """Give a running trial its constraints; call it before the trial is told.

    `Trial.set_constraint` would do, but a trial that is replayed has no `Trial`, and making one draws
    from the sampler.

    Args:
        study: In memory.
        number: The trial's number in it.
        violations: By how much each condition is missed; empty: nothing happens.
    """
    trial = study.get_trials(deepcopy=False)[number]
    for name, value in (as_constraints(violations) or {}).items():
        study._storage.set_trial_system_attr(trial._trial_id, PREFIX + name, value)

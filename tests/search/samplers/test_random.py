from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from scipy.stats import kstest

from evomerge.search.samplers.random import RandomSampler
from evomerge.search.samplers.sampler import Measurement, Problem

SPACE = {"x": FloatDistribution(-0.5, 1.5), "y": FloatDistribution(1e-4, 1.0, log=True)}


def test_a_draw_is_a_function_of_seed_number_and_attempt() -> None:
    one = RandomSampler(Problem(SPACE))
    first = one.propose(3)
    one.asked(3, first)
    one.told(3, first, Measurement((1.0,), -1.0))
    one.known(first, Measurement((1.0,), -1.0))
    assert one.propose(3) == first == RandomSampler(Problem(SPACE)).propose(3)
    others = [one.propose(4), one.propose(3, 1), RandomSampler(Problem(SPACE, seed=1)).propose(3)]
    assert all(other != first for other in others)


@pytest.mark.parametrize("name", SPACE)
def test_draws_are_uniform_or_log_uniform(name: str) -> None:
    one, values = RandomSampler(Problem(SPACE)), np.empty(500)
    for number in range(len(values)):
        values[number] = one.propose(number)[name]
    low, high = SPACE[name].low, SPACE[name].high
    if SPACE[name].log:
        low, high, values = math.log(low), math.log(high), np.log(values)
    assert kstest((values - low) / (high - low), "uniform").pvalue > 0.01

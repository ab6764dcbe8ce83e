"""How often the reports' 95 % intervals hold the true value.

    python -m benchmarks.statistics.coverage [--runs 10000] [--only WORD]

Scores are drawn whose mean is known, and the interval of each draw is asked whether it holds it. Of 0/1
scores the true rate is drawn anew each time, from half to one and a half times the rarer side's: at one rate
and few items the coverage of any interval jumps with the rate (L. D. Brown, T. T. Cai and A. DasGupta 2001),
as the last rows show.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from evomerge.report.intervals import Floats, wilson
from evomerge.report.statistics import Stratum, interval

SIZES = (50, 200, 1_000)
_BOTH = 0.7  # of the items on which two models agree, the share that they have right
Drawn = tuple[Sequence[Stratum], float]
Draw = Callable[[np.random.Generator, int], Drawn]
"""(generator, items) → strata, and the true value of their weighted mean."""
Scores = Callable[[np.random.Generator, int], tuple[Floats, float]]
"""(generator, items) → scores, and their true mean."""


def matches(rate: float) -> Scores:
    """0/1 scores of a rate near the given one."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Floats, float]:
        near = _near(rng, rate)
        return (rng.random(n) < near).astype(float), near

    return draw


def normal(rng: np.random.Generator, n: int) -> tuple[Floats, float]:
    """Scores without skew."""
    return rng.normal(-3.0, 2.0, n), -3.0


def log_likelihoods(shape: float) -> Scores:
    """Log-likelihoods: at most 0, with a long tail below; the smaller the shape, the longer."""
    return lambda rng, n: (-rng.gamma(shape, size=n), -shape)


def overlaps(rng: np.random.Generator, n: int) -> tuple[Floats, float]:
    """F1 scores of words: a third 0, a third 1, the others between."""
    kind = rng.integers(0, 3, n)
    return np.where(kind == 2, rng.random(n), kind), 0.5


def alone(scores: Scores) -> Draw:
    """One task."""

    def draw(rng: np.random.Generator, n: int) -> Drawn:
        values, true = scores(rng, n)
        return [Stratum(values)], true

    return draw


def objective(*tasks: tuple[Scores, float, float]) -> Draw:
    """Several tasks: scores, share of the items, weight of each."""

    def draw(rng: np.random.Generator, n: int) -> Drawn:
        strata, true = [], 0.0
        total = sum(abs(weight) for *_, weight in tasks)
        for scores, part, weight in tasks:
            values, mean = scores(rng, max(2, round(part * n)))
            strata.append(Stratum(values, weight))
            true += weight / total * mean
        return strata, true

    return draw


def share(rate: float, best: float, alike: float) -> Draw:
    """0/1 scores as a share of the best expert's; `alike`: how far both find the same items hard."""

    def draw(rng: np.random.Generator, n: int) -> Drawn:
        rates = _near(rng, rate), _near(rng, best)
        values, divisor = _alike(rng, rates, n, alike)
        return [Stratum(values, divisor=divisor)], rates[0] / rates[1]

    return draw


def share_of_overlaps(rng: np.random.Generator, n: int) -> Drawn:
    """F1 scores as a share of the best expert's."""
    values, true = overlaps(rng, n)
    divisor = np.where(rng.random(n) < 0.5, values, np.sqrt(rng.random(n)))
    return [Stratum(values, divisor=divisor)], true / (0.5 * true + 0.5 * 2 / 3)


def shares(rng: np.random.Generator, n: int) -> Drawn:
    """Two tasks of unlike items and weights, each as a share of its best expert's."""
    (first, one), (second, two) = share(0.9, 0.95, 0.5)(rng, n), share(0.4, 0.6, 0.3)(rng, n // 2)
    weights = (1.0, 3.0)
    found = zip((*first, *second), weights, strict=True)
    return [Stratum(s.values, w, s.divisor) for s, w in found], (one + 3 * two) / 4


def pairs(gains: float, losses: float) -> Draw:
    """Paired 0/1 scores: shares of the items that only one of both has right."""

    def draw(rng: np.random.Generator, n: int) -> Drawn:
        first, second, more, less = _pairs(rng, n, gains, losses)
        return [Stratum(first, minus=second)], more - less

    return draw


def paired(differences: Scores) -> Draw:
    """Paired continuous scores that differ by the given."""

    def draw(rng: np.random.Generator, n: int) -> Drawn:
        second, _ = log_likelihoods(1.0)(rng, n)
        found, true = differences(rng, n)
        return [Stratum(second + found, minus=second)], true

    return draw


def laplace(rng: np.random.Generator, n: int) -> tuple[Floats, float]:
    """Differences of log-likelihoods: most are small, few large."""
    return rng.laplace(0.05, 0.5, n), 0.05


def paired_objective(rng: np.random.Generator, n: int) -> Drawn:
    """Differences over three unlike tasks: 0/1 with few discordant pairs, 0/1, log-likelihoods."""
    drawn = pairs(0.03, 0.02)(rng, n), pairs(0.15, 0.1)(rng, 2 * n), paired(laplace)(rng, n // 2)
    weights = (1.0, 2.0, 0.5)
    strata = [
        Stratum(one.values, weight, minus=one.minus)
        for ((one,), _), weight in zip(drawn, weights, strict=True)
    ]
    return strata, sum(w * true for (_, true), w in zip(drawn, weights, strict=True)) / 3.5


def paired_share(rng: np.random.Generator, n: int) -> Drawn:
    """Differences of 0/1 scores as a share of the best expert's, who is as the second on most items."""
    first, second, gains, losses = _pairs(rng, n, 0.15, 0.1)
    divisor = np.where(rng.random(n) < 0.7, second, rng.random(n) < 0.8)
    rate = 0.7 * (losses + _BOTH * (1 - gains - losses)) + 0.3 * 0.8
    return [Stratum(first, divisor=divisor, minus=second)], (gains - losses) / rate


CASES: Mapping[str, Draw] = {
    **{f"proportion near {rate}": alone(matches(rate)) for rate in (0.02, 0.05, 0.5, 0.9, 0.98)},
    "mean, normal": alone(normal),
    "mean, log-likelihoods, skewness -2": alone(log_likelihoods(1.0)),
    "mean, log-likelihoods, skewness -2.8": alone(log_likelihoods(0.5)),
    "mean, F1": alone(overlaps),
    "objective, 0/1 near 0.98, 0.5, 0.05": objective(
        (matches(0.98), 1.0, 1.0), (matches(0.5), 2.0, 2.0), (matches(0.05), 0.5, 0.5)
    ),
    "objective, five of 0/1 near 0.98": objective(*[(matches(0.98), 1.0, 1.0)] * 5),
    "objective, 0/1 near 0.98 (weights 5 and 1) and 0.5": objective(
        (matches(0.98), 1.0, 5.0), (matches(0.98), 1.0, 1.0), (matches(0.5), 1.0, 1.0)
    ),
    "objective, 0/1 near 0.9, log-likelihoods, F1": objective(
        (matches(0.9), 1.0, 3.0), (log_likelihoods(1.0), 0.5, 1.0), (overlaps, 2.0, 1.0)
    ),
    "objective, 0/1 less log-likelihoods": objective(
        (matches(0.98), 1.0, 1.0), (log_likelihoods(0.5), 1.0, -0.1)
    ),
    "share, 0.5 of 0.6": share(0.5, 0.6, 0.0),
    "share, 0.5 of 0.6, alike": share(0.5, 0.6, 0.5),
    "share, 0.9 of 0.95, alike": share(0.9, 0.95, 0.5),
    "share, 0.95 of 0.9, very alike": share(0.95, 0.9, 0.9),
    "share, 0.3 of 0.2": share(0.3, 0.2, 0.3),
    "share, F1": share_of_overlaps,
    "objective of shares": shares,
    "pairs, 0/1, 3 % gained and 3 % lost": pairs(0.03, 0.03),
    "pairs, 0/1, 5 % gained and 5 % lost": pairs(0.05, 0.05),
    "pairs, 0/1, 6 % gained and 2 % lost": pairs(0.06, 0.02),
    "pairs, 0/1, 10 % gained and 10 % lost": pairs(0.1, 0.1),
    "pairs, 0/1, 30 % gained and 10 % lost": pairs(0.3, 0.1),
    "pairs, normal": paired(normal),
    "pairs, log-likelihoods": paired(laplace),
    "pairs, objective over unlike tasks": paired_objective,
    "pairs, share": paired_share,
}


def coverage(draw: Draw, n: int, runs: int, seed: int = 0) -> float:
    """Return the share of draws whose interval holds the true value; none counts as one that does not."""
    rng, held = np.random.default_rng([seed, n]), 0
    for _ in range(runs):
        strata, true = draw(rng, n)
        ends = interval(strata)
        held += ends is not None and ends[0] <= true <= ends[1]
    return held / runs


def exact_coverage(rate: float, n: int) -> float:
    """Return the chance that Wilson's interval holds the rate of 0/1 scores."""
    ends = np.array([wilson(k, n) for k in range(n + 1)])
    holds = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
    return float(stats.binom.pmf(np.arange(n + 1), n, rate)[holds].sum())


def _near(rng: np.random.Generator, rate: float) -> float:
    rarer = min(rate, 1 - rate)
    return rate + rng.uniform(-0.5, 0.5) * rarer


def _pairs(
    rng: np.random.Generator, n: int, gains: float, losses: float
) -> tuple[Floats, Floats, float, float]:
    """0/1 scores of two models, and the true shares that only one of both has right, near the given."""
    gains, losses = _near(rng, gains), _near(rng, losses)
    same = 1 - gains - losses
    kinds = rng.choice(4, n, p=[gains, losses, same * _BOTH, same * (1 - _BOTH)])
    first, second = np.isin(kinds, (0, 2)), np.isin(kinds, (1, 2))
    return first.astype(float), second.astype(float), gains, losses


def _alike(
    rng: np.random.Generator, rates: Sequence[float], n: int, alike: float
) -> tuple[Floats, ...]:
    """0/1 scores of models that find the same items hard (a Gaussian copula)."""
    own = rng.standard_normal((len(rates), n))
    latent = np.sqrt(alike) * rng.standard_normal(n) + np.sqrt(1 - alike) * own
    return tuple((latent < stats.norm.ppf(rates)[:, np.newaxis]).astype(float))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--only", default="", help="cases with this word in their names")
    arguments = parser.parse_args()
    print("| interval of | " + " | ".join(f"{n} items" for n in SIZES) + " |")
    print("| --- |" + " ---: |" * len(SIZES))
    for name, draw in CASES.items():
        if arguments.only in name:
            found = [coverage(draw, n, arguments.runs) for n in SIZES]
            print(f"| {name} | " + " | ".join(f"{one:.1%}" for one in found) + " |", flush=True)
    for rate in (0.02, 0.05, 0.5, 0.9):
        if arguments.only in "proportion of exactly":
            found = [exact_coverage(rate, n) for n in SIZES]
            print(
                f"| proportion of exactly {rate} | " + " | ".join(f"{c:.1%}" for c in found) + " |"
            )


if __name__ == "__main__":
    main()

"""Merging the zoo's five specialists: mergekit to disk, evomerge to disk, evomerge into a live model.

    python -m benchmarks.speed.merge [--rounds 5]

All three run the same recipe (weights by layer group and component), one thread, in turn, in one process;
ratios are of medians. What a search pays for a candidate is the live column: no file is read or written.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from evomerge import candidate as recipe
from evomerge import zoo
from evomerge.candidate import Recipe
from evomerge.config import SpaceSettings
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS
from evomerge.merge.saving import save
from evomerge.space import Family, Space

SPECIALISTS = ("extraction", "dialogue", "tools", "translation", "facts")
CASES = {
    "task_arithmetic": {},
    "ties": {"density": {"low": 0.2, "high": 1.0}},
    "dare_linear": {"density": {"low": 0.2, "high": 1.0}},
    "dare_ties": {"density": {"low": 0.2, "high": 1.0}},
}


def main() -> None:
    """Print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args([] if __name__ != "__main__" else None).rounds
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(f"{'method':18}{'mergekit':>10}{'disk':>9}{'live':>9}{'disk ×':>9}{'live ×':>9}")
    for method in CASES:
        theirs, disk, live = _case(method, rounds)
        print(
            f"{method:18}{theirs:8.3f} s{disk:7.3f} s{live:7.4f} s{theirs / disk:9.1f}{theirs / live:9.1f}"
        )


def _case(method: str, rounds: int) -> tuple[float, float, float]:
    made, models = _recipe(method)
    resident = LiveModel(models, dtype="float32")
    resident.write(made)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        times: dict[str, list[float]] = {"mergekit": [], "disk": [], "live": []}
        for _ in range(rounds + 1):  # the first one warms up
            times["mergekit"].append(_timed(lambda: _mergekit(made, scratch / "theirs")))
            times["disk"].append(_timed(lambda: save(made, scratch / "ours", replace=True)))
            times["live"].append(_timed(lambda: resident.write(made)))
            shutil.rmtree(scratch / "theirs")
    medians = [statistics.median(times[name][1:]) for name in ("mergekit", "disk", "live")]
    return medians[0], medians[1], medians[2]


def _recipe(method: str) -> tuple[Recipe, list[str]]:
    """Return a recipe with 30 weights (and densities), and its models."""
    experts = {name: str(zoo.resolve(f"zoo:{name}")) for name in SPECIALISTS}
    base = str(zoo.resolve("zoo:base"))
    settings = SpaceSettings.model_validate(
        {
            "method": method,
            "layers": 2,
            "components": ["self_attn", "mlp"],
            "parameters": {"weight": {"low": 0.0, "high": 1.0}, **CASES[method]},
        }
    )
    space = Space.build(settings, Family(base, experts, 4, "float32"), METHODS)
    names = list(space.distributions)
    point = {name: 0.2 + 0.6 * position / len(names) for position, name in enumerate(names)}
    return space.candidate(point), [base, *experts.values()]


def _mergekit(made: Recipe, out: Path) -> None:
    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    config = MergeConfiguration.model_validate(yaml.safe_load(recipe.dumps(made)))
    run_merge(config, str(out), MergeOptions(copy_tokenizer=True, quiet=True))


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

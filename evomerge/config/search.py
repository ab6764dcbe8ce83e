"""How the search goes: sampler, budget, racing, and where it starts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from evomerge.config.settings import Count, NonEmpty, Settings

SamplerName = Literal["auto", "gradient", "cmaes", "tpe", "nsga2", "gp", "random", "qmc"]
Pruner = Literal["none", "race"]

TRIALS = 200
"""Budget of a search that is given none, and what a sampler plans for where no number follows from it."""

EARLIER_FIELDS = {"slope_items": "gradient_items"}
EARLIER_VALUES = {("sampler", "slope"): "gradient", ("pruner", "wilcoxon"): "race"}
"""Names of earlier releases, which files may still use: field → field, (field, value) → value."""


class Search(Settings):
    """The study.

    Attributes:
        sampler: By name: `gradient` descends the gold answers' loss, then goes on as CMA-ES; `cmaes`, `tpe`,
            `nsga2`, `gp`, `random` and `qmc` as in Optuna. `auto`: `gradient` wherever it can be used, else
            `cmaes` (`mode: pareto`: `nsga2`).
        trials: Budget: candidates that the sampler may ask for. None: no limit; the default is 200 where
            no other budget is given, and None where one is.
        hours: Budget: wall time of one run of the search; whichever comes first.
        item_evaluations: Budget: items scored for trials, an item of a gradient counting as three;
            whichever comes first.
        target: Budget: stop once the searched value reaches this (`mode: mean`).
        seed: Makes the search repeatable.
        finalists: How many of the best trials are scored again on `select`.
        pruner: `race`: items are scored in blocks in random order, and a candidate that is
            significantly worse than the best so far is given up; one that is as good is given up with
            probability 0.1 at most. `none`: every candidate is scored in full.
        gradient_items: Items of each task that one step of a descent reads, drawn again for every step.
        deterministic: Hear results in the order of asking, so that several workers ask for the very
            same trials whichever is faster.
        warm_start: The results folder of an earlier campaign, whose best trials this one begins with.
    """

    sampler: SamplerName = "auto"
    trials: Count | None = None
    hours: float | None = Field(default=None, gt=0)
    item_evaluations: Count | None = None
    target: float | None = None
    seed: int = Field(default=0, ge=0)
    finalists: Count = 8
    pruner: Pruner = "none"
    gradient_items: Count = 16
    deterministic: bool = False
    warm_start: NonEmpty | None = None

    @model_validator(mode="before")
    @classmethod
    def _some_budget(cls, data: Any) -> Any:  # noqa: ANN401 - before validation it may be anything
        budgets = ("trials", "hours", "item_evaluations", "target")
        if isinstance(data, dict) and all(data.get(budget) is None for budget in budgets):
            return {**data, "trials": TRIALS}
        return data


def with_current_names(data: Any) -> tuple[Any, tuple[str, ...]]:  # noqa: ANN401 - a parsed file
    """Rename what a file's `search` calls by an earlier name; return the data, and a note on each."""
    search = data.get("search") if isinstance(data, dict) else None
    if not isinstance(search, dict):
        return data, ()
    renamed: dict[str, Any] = {}
    notes: list[str] = []
    for field, value in search.items():
        name = EARLIER_FIELDS.get(str(field), str(field))
        current = EARLIER_VALUES.get((name, value), value) if isinstance(value, str) else value
        if name != str(field):
            notes.append(f"search.{field} is the earlier name of search.{name}; write {name}")
        if current != value:
            notes.append(
                f"search.{name}: {value} is the earlier name of {current}; write {current}"
            )
        renamed[name] = current
    return {**data, "search": renamed}, tuple(notes)

"""How the search goes: sampler, budget, racing, and where it starts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from evomerge.config.settings import Count, LocalPath, NonEmpty, Settings

Pruner = Literal["none", "race"]
Scale = Literal["group", "tensor", "row"]

TRIALS = 200
"""Budget of a search that is given none, and what a sampler plans for where no number follows from it."""

EARLIER_FIELDS = {"slope_items": "gradient_items"}
EARLIER_VALUES = {("sampler", "slope"): "gradient", ("pruner", "wilcoxon"): "race"}
"""Names of earlier releases, which files may still use: field → field, (field, value) → value."""


class Search(Settings):
    """The study."""

    sampler: NonEmpty = "auto"
    """By name: `gradient` descends the objectives' losses, then goes on as CMA-ES; `cmaes`, `tpe`, `nsga2`,
    `gp`, `random` and `qmc` as in Optuna. `auto`: `gradient` wherever it can be used, else `cmaes`
    (without `mode: mean`: `nsga2`)."""
    trials: Count | None = None
    """Budget: candidates that the sampler may ask for. None: no limit; the default is 200 where no other
    budget is given, and None where one is."""
    hours: float | None = Field(default=None, gt=0)
    """Budget: wall time of one run of the search; whichever comes first."""
    item_evaluations: Count | None = None
    """Budget: items scored for trials, an item of a gradient counting as three; whichever comes first."""
    target: float | None = None
    """Budget: stop once the searched value reaches this (`mode: mean`)."""
    seed: int = Field(default=0, ge=0)
    """Makes the search repeatable."""
    finalists: Count = 8
    """How many of the best trials are scored again on `select`."""
    pruner: Pruner = "none"
    """`race`: items are scored in blocks in random order, and a candidate that is significantly worse than
    the best so far is given up; one that is as good is given up with probability 0.1 at most. `none`: every
    candidate is scored in full."""
    gradient_items: Count = 8
    """Items of each task that one step of a descent reads, drawn again for every step."""
    scales: tuple[Scale, ...] | None = None
    """What a descent learns a coefficient of each expert for: every `group` (layers × component; always
    among them), every `tensor`, every output `row`; a weight is the sum of the three. Default: all that the
    methods take."""
    deterministic: bool = False
    """Take results in the order of asking, so that several workers ask for the very same trials whichever
    is faster."""
    warm_start: LocalPath | None = None
    """The results folder of an earlier campaign, whose best trials this one begins with."""

    @model_validator(mode="before")
    @classmethod
    def _current_names(cls, data: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - not yet validated
        if not isinstance(data, dict):
            return data
        notes = info.context["notes"] if info.context else []
        current: dict[str, Any] = {}
        for field, value in data.items():
            name = str(EARLIER_FIELDS.get(field, field))
            new = EARLIER_VALUES.get((name, value), value) if isinstance(value, str) else value
            if name != field:
                notes.append(f"search.{field} is the earlier name of search.{name}; write {name}")
            if new != value:
                notes.append(f"search.{name}: {value} is the earlier name of {new}; write {new}")
            current[name] = new
        return current

    @field_validator("scales")
    @classmethod
    def _with_group(cls, scales: tuple[Scale, ...] | None) -> tuple[Scale, ...] | None:
        if scales is None:
            return None
        found = f"found [{', '.join(scales)}]"
        if len(set(scales)) < len(scales):
            raise ValueError(f"{found}, expected each scale once")
        if "group" not in scales:
            raise ValueError(f"{found}, expected group among them; tensor and row are added to it")
        return scales

    @model_validator(mode="before")
    @classmethod
    def _some_budget(cls, data: Any) -> Any:  # noqa: ANN401 - not yet validated
        budgets = ("trials", "hours", "item_evaluations", "target")
        if isinstance(data, dict) and all(data.get(budget) is None for budget in budgets):
            return {**data, "trials": TRIALS}
        return data

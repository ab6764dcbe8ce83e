"""The campaign file: validated, frozen settings, and nothing else.

`Campaign.load` answers wrong input with one error that names file, line and field; what only the models
or the tasks can refute is `evomerge check`'s job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from evomerge import yaml_file
from evomerge.config.faults import FieldError, first_error
from evomerge.config.loggers import Loggers
from evomerge.config.models import Models
from evomerge.config.objectives import (
    Constraints,
    CostName,
    CostSettings,
    ItemCounts,
    Keep,
    KeepCost,
    Objective,
    PromptSettings,
)
from evomerge.config.search import TRIALS, Search
from evomerge.config.settings import (
    FilledIn,
    LocalPath,
    NonEmpty,
    Settings,
    from_folder,
    with_default,
)
from evomerge.config.space import Range, Spaces
from evomerge.config.workers import ScorerSettings, Workers
from evomerge.errors import CampaignError, nearest


class Campaign(Settings):
    """One search, as its file states it; paths are absolute once loaded."""

    name: NonEmpty
    """What reports call it."""
    models: Models
    """Base and experts."""
    space: Spaces
    """Methods, groups of layers and components, ranges; or a list of such spaces, whose kinds compete."""
    objectives: tuple[Objective, ...] = Field(min_length=1)
    """Tasks to get better at."""
    mode: Literal["mean", "pareto", "tradeoff"] = "mean"
    """Several objectives as their weighted `mean`, as a `pareto` front with each objective and cost for
    itself, or as a `tradeoff`: the front of the weighted mean and each cost."""
    normalize: Literal["none", "best_expert"] = "none"
    """Divide each task's value by the best expert's, so that tasks of unlike scales weigh alike."""
    keep: Constraints = ()
    """Constraints that the winner must meet: on tasks, and on what it takes."""
    costs: tuple[CostSettings, ...] = ()
    """What a model takes, as objectives."""
    methods: LocalPath | None = None
    """A Python file that declares merge methods of your own, which `space.method` may then name."""
    statistics: LocalPath | None = None
    """A safetensors file of importances of the experts' weights, in place of those that their search prompts
    give, for methods that read them (`importance: true`)."""
    tasks_path: LocalPath | None = None
    """A folder of lm-eval task files beside lm-eval's own."""
    items: ItemCounts = ItemCounts()
    """Splits."""
    prompt: PromptSettings = PromptSettings()
    """How prompts are rendered."""
    search: Search = Search()
    """Sampler and budget."""
    workers: Workers = Workers()
    """How many workers evaluate, and what each gets."""
    scorer: ScorerSettings = ScorerSettings()
    """The backend."""
    loggers: Loggers = ()
    """Who else is told of trials and scores while the campaign runs."""
    out: Annotated[FilledIn, AfterValidator(from_folder)] = ""
    """The results folder; default `results/NAME`."""
    _notes: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="before")
    @classmethod
    def _default_out(cls, data: Any) -> Any:  # noqa: ANN401 - not yet validated
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            return with_default(data, "out", f"results/{data['name']}")
        return data

    @field_validator("loggers")
    @classmethod
    def _each_logger_once(cls, loggers: Loggers) -> Loggers:
        names = [one.name for one in loggers]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise FieldError(f'logger "{name}" is given twice', place)
        return loggers

    @field_validator("objectives")
    @classmethod
    def _each_once(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        names = [objective.task for objective in objectives]
        for place, name in enumerate(names):
            if name in names[:place]:
                message = f'task "{name}" is given twice; one objective a task'
                raise FieldError(message, place, "task")
        return objectives

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        tasks = [objective.task for objective in self.objectives]
        for place, keep in enumerate(self.keep):
            if isinstance(keep, Keep) and keep.task not in tasks:
                message = (
                    f'task "{keep.task}" is none of the objectives; {nearest(keep.task, tasks)}'
                )
                raise FieldError(message, "keep", place, "task")
        if self.search.target is not None and self.mode != "mean":
            message = "a target is one value, and a Pareto front has several; it needs mode: mean"
            raise FieldError(message, "search", "target")
        if self.mode == "tradeoff" and not self.costs:
            message = "a tradeoff is between the tasks and costs, and there are none; give costs"
            raise FieldError(message, "mode")
        if self.search.deterministic and "time" in self.asked_costs:
            message = "time is measured, so trials would differ; take active_parameters, which are counted"
            raise FieldError(message, "search", "deterministic")
        names = self.expert_names()
        for place, goal in enumerate(self.objectives):
            if goal.teacher is not None and goal.teacher not in names:
                message = f'unknown expert "{goal.teacher}"; {nearest(goal.teacher, names)}'
                raise FieldError(message, "objectives", place, "teacher")
        for place, part in enumerate(self.space.parts):
            for parameter, setting in part.parameters.items():
                for name in setting.experts if isinstance(setting, Range) else ():
                    if name not in names:
                        message = f'unknown expert "{name}"; {nearest(name, names)}'
                        where = (*self.space.field(place), "parameters", parameter, "experts", name)
                        raise FieldError(message, *where)
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """What the campaign's file calls by an earlier name, a line each."""
        return self._notes

    @classmethod
    def load(cls, path: str | Path) -> Campaign:
        """Read and validate a campaign file; relative paths are taken from its folder.

        Raises:
            CampaignError: Naming file, line and field, what was found and what was expected.
        """
        return cls.from_document(yaml_file.read(path, CampaignError))

    @classmethod
    def from_document(cls, document: yaml_file.Document) -> Campaign:
        """Validate a parsed campaign file. Raises as `load` does."""
        folder = Path.cwd() if document.path is None else document.path.resolve().parent
        notes: list[str] = []
        try:
            campaign = cls.model_validate(document.data, context={"folder": folder, "notes": notes})
        except ValidationError as error:
            raise first_error(document, error, cls) from None
        campaign._notes = tuple(notes)
        return campaign

    def to_yaml(self) -> str:
        """Write the campaign with every default filled in; `load` reads the same campaign back."""
        return yaml_file.dump(self.model_dump(mode="json", by_alias=True))

    def override(
        self,
        *,
        out: str | Path | None = None,
        trials: int | None = None,
        workers: int | None = None,
        seed: int | None = None,
    ) -> Campaign:
        """Return the campaign with what the command line says; None leaves a setting as it is."""
        search = {"trials": trials, "seed": seed}
        search = {key: value for key, value in search.items() if value is not None}
        changes: dict[str, object] = {}
        if search:
            changes["search"] = self.search.model_copy(update=search)
        if workers is not None:
            changes["workers"] = self.workers.model_copy(update={"count": workers})
        if out is not None:
            changes["out"] = str(Path(out).resolve())
        return self.model_copy(update=changes)

    @property
    def value_names(self) -> tuple[str, ...]:
        """What the values of a trial are called, in their order: `mean`, `TASK/METRIC`, costs."""
        goals = [f"{goal.task}/{goal.metric}" for goal in self.objectives]
        costs = [cost.cost for cost in self.costs]
        if self.mode == "pareto":
            return (*goals, *costs)
        if self.mode == "tradeoff":
            return ("mean", *costs)
        return ("mean",) if len(goals) + len(costs) > 1 else tuple(goals)

    @property
    def kept_costs(self) -> tuple[CostName, ...]:
        """The costs that constraints are on."""
        return tuple(one.cost for one in self.keep if isinstance(one, KeepCost))

    @property
    def asked_costs(self) -> tuple[CostName, ...]:
        """The costs that are objectives, then those that only constraints are on."""
        return tuple(dict.fromkeys([*(one.cost for one in self.costs), *self.kept_costs]))

    @property
    def planned_trials(self) -> int:
        """Trials that a sampler plans for: the budget, or what it says of them.

        That is `search.trials`; without it as many as `search.item_evaluations` pay for in full; else 200.
        """
        if self.search.trials is not None:
            return self.search.trials
        if self.search.item_evaluations is not None:
            return max(1, self.search.item_evaluations // self.items_per_trial)
        return TRIALS

    @property
    def items_per_trial(self) -> int:
        """Items that a candidate is scored on at most."""
        return len(self.objectives) * self.items.search

    def expert_names(self) -> tuple[str, ...]:
        """Return the experts' names in the order of the file."""
        return tuple(expert.name for expert in self.models.experts)

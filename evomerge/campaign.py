"""The campaign file: validated, frozen settings, and nothing else.

Every settings type of the program lives here. `Campaign.load` answers wrong input with one error that
names file, line and field; what only the models or the tasks can refute is `evomerge check`'s job.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from evomerge import yaml_file
from evomerge.errors import CampaignError
from evomerge.model_names import anchored, with_name
from evomerge.validation import first_error

DType = Literal["float32", "bfloat16", "float16"]
Sampler = Literal["cmaes", "tpe", "nsga2", "gp", "random", "qmc"]
DataSplit = Literal["train", "validation", "test"]
Axis = Literal["expert", "layer", "component"]
NonEmpty = Annotated[str, Field(min_length=1)]


class Settings(BaseModel):
    """Frozen; refuses unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True
    )


class Expert(Settings):
    """A model fine-tuned from the base.

    Attributes:
        model: A local folder (full checkpoint or PEFT adapter), a Hub id, or `zoo:NAME`.
        name: What reports call it; by default the last part of `model`.
    """

    model: NonEmpty
    name: NonEmpty


class Models(Settings):
    """The family.

    Attributes:
        base: The common ancestor: a local folder, a Hub id, or `zoo:NAME`.
        experts: One or more models fine-tuned from it; a bare text, or `{model, name}`.
        dtype: Of the merged weights and of the forward passes.
        trust_remote_code: Let models and tasks run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
    """

    base: NonEmpty
    experts: tuple[Annotated[Expert, BeforeValidator(with_name)], ...] = Field(min_length=1)
    dtype: DType = "bfloat16"
    trust_remote_code: bool = False
    allow_pickle: bool = False

    @field_validator("experts")
    @classmethod
    def _unique(cls, experts: tuple[Expert, ...]) -> tuple[Expert, ...]:
        names = [expert.name for expert in experts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f'two experts are called "{twice[0]}"; give one of them as {{model: ..., name: ...}}'
            )
        if "base" in names:
            raise ValueError('no expert may be called "base"; give it as {model: ..., name: ...}')
        return experts


class Range(Settings):
    """A searched number.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Search its logarithm.
        per: Which of expert, layer (group) and component (group) it differs by; default all that apply.
    """

    low: float
    high: float
    log: bool = False
    per: tuple[Axis, ...] = ("expert", "layer", "component")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"an empty range: low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, found {self.low:g}")
        return self


def _kind_of_parameter(value: object) -> str:
    return "range" if isinstance(value, Range | dict) else "value"


Parameter = Annotated[
    Annotated[Range, Tag("range")] | Annotated[bool | int | float, Tag("value")],
    Discriminator(_kind_of_parameter),
]


class Space(Settings):
    """What is searched.

    Attributes:
        method: A merge method; or several, then the method is searched too.
        layers: Number of contiguous groups of layers; or `each`; or explicit [start, stop) pairs.
        components: Substrings of tensor names, each a group of its own; the others form `rest`.
        parameters: Parameter of the method → a range (searched) or a value (fixed).
    """

    method: tuple[NonEmpty, ...] = Field(min_length=1)
    layers: Annotated[int, Field(ge=1)] | Literal["each"] | tuple[tuple[int, int], ...] = 1
    components: tuple[NonEmpty, ...] = ()
    parameters: Mapping[str, Parameter]

    @field_validator("method", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Objective(Settings):
    """One lm-eval task to get better at.

    Attributes:
        task: Name of a task or group.
        metric: What the sampler sees: one of the task's metrics, or `gold_loglikelihood`,
            `gold_probability` (multiple choice), `gold_exact_match` (teacher-forced).
        weight: Share in the weighted mean.
        report: The metric that picks the winner on `select` and is reported; default `metric`.
        num_fewshot: Overrides the task's own number of examples.
    """

    task: NonEmpty
    metric: NonEmpty
    weight: float = Field(default=1.0, gt=0)
    report: NonEmpty = ""
    num_fewshot: int | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _report_is_metric(cls, data: Any) -> Any:  # noqa: ANN401 - before validation it may be anything
        if isinstance(data, dict) and data.get("report") is None and "metric" in data:
            return {**data, "report": data["metric"]}
        return data


class Drawn(Settings):
    """The data set's own split (train, validation, test) that each of ours is drawn from."""

    search: DataSplit | None = None
    select: DataSplit | None = None
    holdout: DataSplit | None = None


class Items(Settings):
    """How many items of every task each split gets; the three are disjoint.

    Attributes:
        search: Seen by the sampler.
        select: Pick the winner among finalists.
        holdout: Reported, read once.
        seed: Draws the items: by hash of (task, seed, id).
        drawn_from: In the file `from`: the data set's split each is drawn from; default: lm-eval's.
    """

    search: int = Field(default=64, ge=1)
    select: int = Field(default=64, ge=1)
    holdout: int = Field(default=200, ge=1)
    seed: int = Field(default=0, ge=0)
    drawn_from: Drawn = Field(default=Drawn(), alias="from")


class Prompt(Settings):
    """How lm-eval renders prompts; the fields are lm-eval's own.

    Attributes:
        apply_chat_template: Wrap prompts in the tokenizer's chat template.
        fewshot_as_multiturn: Examples as turns of the conversation.
        system_instruction: A system message.
    """

    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None


class Search(Settings):
    """The study.

    Attributes:
        sampler: Optuna's sampler, by name.
        trials: Budget: candidates that the sampler may ask for.
        hours: Budget: wall time; whichever comes first.
        item_evaluations: Budget: items scored for trials; whichever comes first.
        seed: Makes the search repeatable.
        finalists: How many of the best trials are scored again on `select`.
    """

    sampler: Sampler = "cmaes"
    trials: int = Field(default=200, ge=1)
    hours: float | None = Field(default=None, gt=0)
    item_evaluations: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    finalists: int = Field(default=8, ge=1)


class Workers(Settings):
    """Who evaluates.

    Attributes:
        count: Number of Ray workers; `auto`: what the machine's cores or GPUs hold; 0: in this process.
        cpus: Cores of one worker, its threads too.
        gpus: GPUs of one worker, fractions too.
        batch_tokens: Tokens of one forward pass; `auto`: sized from the machine.
    """

    count: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class Scorer(Settings):
    """What runs the models on the items.

    Attributes:
        backend: `resident`: passes over the live weights; or one of lm-eval's model types (`hf`, `vllm`,
            …), which loads each candidate from a folder in memory.
        args: Arguments of such a model type.
        allow_unsafe_code: Let tasks run code that a model writes.
    """

    backend: NonEmpty = "resident"
    args: Mapping[str, Any] = Field(default_factory=dict)
    allow_unsafe_code: bool = False

    @model_validator(mode="after")
    def _args_have_a_taker(self) -> Self:
        if self.args and self.backend == "resident":
            raise ValueError("args are for lm-eval's model types; give backend too, such as hf")
        return self


class Campaign(Settings):
    """One search, as its file states it; paths are absolute once loaded.

    Attributes:
        name: What reports call it.
        models: Base and experts.
        space: What is searched.
        objectives: Tasks to get better at.
        mode: Several objectives as their weighted `mean`, or as a `pareto` front.
        tasks_path: A folder of lm-eval task files beside lm-eval's own.
        items: Splits.
        prompt: How prompts are rendered.
        search: Sampler and budget.
        workers: Who evaluates.
        scorer: What runs the models on the items.
        out: The results folder.
    """

    name: NonEmpty
    models: Models
    space: Space
    objectives: tuple[Objective, ...] = Field(min_length=1)
    mode: Literal["mean", "pareto"] = "mean"
    tasks_path: str | None = None
    items: Items = Items()
    prompt: Prompt = Prompt()
    search: Search = Search()
    workers: Workers = Workers()
    scorer: Scorer = Scorer()
    out: str

    @model_validator(mode="before")
    @classmethod
    def _default_out(cls, data: Any) -> Any:  # noqa: ANN401 - before validation it may be anything
        if isinstance(data, dict) and data.get("out") is None and isinstance(data.get("name"), str):
            return {**data, "out": f"results/{data['name']}"}
        return data

    @field_validator("objectives")
    @classmethod
    def _each_once(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        names = [objective.task for objective in objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f'task "{twice[0]}" is given twice; one objective a task')
        return objectives

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
        try:
            campaign = cls.model_validate(document.data)
        except ValidationError as error:
            raise first_error(document, error, _FIELDS) from None
        folder = Path.cwd() if document.path is None else document.path.resolve().parent
        return campaign._anchored(folder)

    def to_yaml(self) -> str:
        """Write the campaign with every default filled in; `load` reads the same campaign back."""
        return yaml_file.dump(_compact(self.model_dump(mode="json", by_alias=True)))

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

    def expert_names(self) -> tuple[str, ...]:
        """Return the experts' names in the order of the file."""
        return tuple(expert.name for expert in self.models.experts)

    def _anchored(self, folder: Path) -> Campaign:
        experts = tuple(
            expert.model_copy(update={"model": anchored(expert.model, folder)})
            for expert in self.models.experts
        )
        models = self.models.model_copy(
            update={"base": anchored(self.models.base, folder), "experts": experts}
        )
        tasks_path = self.tasks_path and str((folder / self.tasks_path).resolve())
        paths = {"tasks_path": tasks_path, "out": str((folder / self.out).resolve())}
        return self.model_copy(update={"models": models, **paths})


def _compact(data: dict[str, Any]) -> dict[str, Any]:
    if len(data["space"]["method"]) == 1:
        data["space"]["method"] = data["space"]["method"][0]
    return data


_FIELDS: dict[str, type[Settings]] = {
    "": Campaign,
    "models": Models,
    "experts": Expert,
    "space": Space,
    "parameters": Range,
    "from": Drawn,
    "objectives": Objective,
    "items": Items,
    "prompt": Prompt,
    "search": Search,
    "workers": Workers,
    "scorer": Scorer,
}

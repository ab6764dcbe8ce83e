"""What is searched for: tasks, constraints, costs; and the items they are measured on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from evomerge.config.faults import FieldError, MissingFieldError
from evomerge.config.settings import (
    Count,
    FilledIn,
    LocalPath,
    NonEmpty,
    Settings,
    with_default,
)

DataSplit = Literal["train", "validation", "test"]


def _known_cost(cost: object) -> object:
    if cost == "seconds_per_item":
        raise ValueError(
            "seconds_per_item is no longer a cost: equal models differed in it by the load of the "
            "machine; use time, which is measured beside the base, or what is counted: active_parameters, "
            "generated_tokens"
        )
    return cost


Costs = Literal["parameters", "active_parameters", "generated_tokens", "time"]
CostName = Annotated[Costs, BeforeValidator(_known_cost)]
"""What a model takes, relative to the base: all of its weights, those that a token is computed with, or
tokens written an item, all counted; or the time to continue a prompt, measured beside the base."""
Reference = Literal["best_expert", "base", "best_baseline"]
Loss = Literal["gold", "expert", "both"]


TEACHER_MATCH = "teacher_match"
"""Share of prompts that a model answers as the teacher does, both greedily."""
MAX_TOKENS = 256
"""Of an answer to a prompt, where the campaign says nothing."""


class Objective(Settings):
    """One lm-eval task to get better at; or, without labels, a file of prompts that an expert answers."""

    task: FilledIn = ""
    """Name of a task or group; of `prompts` what reports call them, by default the file's name."""
    prompts: LocalPath | None = None
    """In place of a task: a file of JSON lines, `{"prompt": TEXT}`, `{"text": TEXT}` or
    `{"messages": [...]}`, whose labels are the greedy answers of the `teacher`."""
    metric: FilledIn = ""
    """What the sampler sees: one of the task's metrics, or `gold_loglikelihood`, `gold_probability`
    (multiple choice), `gold_exact_match` (teacher-forced). Of `prompts` `teacher_match` by default."""
    weight: float = Field(default=1.0, gt=0)
    """Share in the weighted mean."""
    report: FilledIn = ""
    """The metric that picks the winner on `select` and is reported; default `metric`."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Overrides the task's own number of examples."""
    loss: Loss = "expert"
    """What the gradient sampler descends: the gold answer's loss (`gold`), the divergence from the
    teacher (`expert`), or the mean of both (`both`)."""
    teacher: NonEmpty | None = None
    """An expert's name; default: the expert that is best on the task's search items. `prompts` need one."""
    max_tokens: Count | None = None
    """Of `prompts`: most tokens of an answer; default 256."""
    until: tuple[NonEmpty, ...] = ()
    """Of `prompts`: texts at which an answer ends, beside the model's own end."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:  # noqa: ANN401 - not yet validated
        if not isinstance(data, dict):
            return data
        if isinstance(data.get("prompts"), str):
            stem = re.sub(r"[^\w.-]+", "_", Path(data["prompts"]).stem)
            for field, value in (
                ("task", stem),
                ("metric", TEACHER_MATCH),
                ("max_tokens", MAX_TOKENS),
            ):
                data = with_default(data, field, value)
        return with_default(data, "report", data["metric"]) if data.get("metric") else data

    @model_validator(mode="after")
    def _task_or_prompts(self) -> Self:
        for field in ("task", "metric"):
            if not getattr(self, field):
                raise MissingFieldError(field)
        if self.prompts is None:
            for field in ("max_tokens", "until"):
                if getattr(self, field):
                    raise FieldError(
                        f'is for prompts, and "{self.task}" is a task; its own file says how answers end',
                        field,
                    )
            return self
        if not re.fullmatch(r"[\w.-]+", self.task):
            message = f'found "{self.task}", expected letters, digits, dots and dashes: files get the name'
            raise FieldError(message, "task")
        if self.teacher is None:
            raise MissingFieldError("teacher")
        if self.num_fewshot:
            message = f"found {self.num_fewshot}, expected none: a file of prompts has no examples"
            raise FieldError(message, "num_fewshot")
        return self


class Keep(Settings):
    """A constraint: what the winner must not lose. Candidates that break it rank behind all others."""

    task: NonEmpty
    """One of the objectives' tasks."""
    at_least: float = Field(gt=0)
    """Share of the reference's score (for a metric better when lower: at most 1 / share of it; for
    log-likelihoods, share of the probability: best + ln share)."""
    of: Reference = "best_expert"
    """Whose score: `best_expert` on this task, `base`, or `best_baseline`."""


class KeepCost(Settings):
    """A constraint: what the winner may take at most."""

    cost: CostName
    """`parameters` (all weights), `active_parameters` (those that a token is computed with),
    `generated_tokens` (an item) or `time` (to continue a prompt), each relative to the base's."""
    at_most: float = Field(gt=0)
    """Times the base's."""


def _kind_of_constraint(value: object) -> str:
    of_cost = isinstance(value, KeepCost) or (isinstance(value, dict) and "cost" in value)
    return "on cost" if of_cost else "on task"


Constraints = tuple[
    Annotated[
        Annotated[Keep, Tag("on task")] | Annotated[KeepCost, Tag("on cost")],
        Discriminator(_kind_of_constraint),
    ],
    ...,
]


class CostSettings(Settings):
    """What a model takes, as an objective that is better when lower."""

    cost: CostName
    """`parameters` (all weights), `active_parameters` (those that a token is computed with),
    `generated_tokens` (an item) or `time` (to continue a prompt), each relative to the base's."""
    weight: float = Field(default=0.1, gt=0)
    """In `mode: mean`, how much one base's worth of it takes off the mean; in the other modes it is an
    objective of its own and the weight does not matter."""


class DrawnFrom(Settings):
    """The data set's own split (train, validation, test) that each of ours is drawn from."""

    search: DataSplit | None = None
    """That of the items that the sampler sees."""
    select: DataSplit | None = None
    """That of the items that pick the winner."""
    holdout: DataSplit | None = None
    """That of the items that are reported."""


class ItemCounts(Settings):
    """How many items of every task each split gets; the three are disjoint.

    A document is in one of the three for all tasks: documents of equal content, or that ask the same text,
    are one.
    """

    search: Count = 64
    """Seen by the sampler."""
    select: Count = 64
    """Pick the winner among finalists."""
    holdout: Count = 200
    """Reported, read once."""
    seed: int = Field(default=0, ge=0)
    """Draws the items: by hash of (task, seed, id), or of (seed, document) where tasks share it."""
    drawn_from: DrawnFrom = Field(default=DrawnFrom(), alias="from")
    """In the file `from`: the data set's split each is drawn from; default: lm-eval's."""


class PromptSettings(Settings):
    """How lm-eval renders prompts; the fields are lm-eval's own."""

    apply_chat_template: bool = False
    """Wrap prompts in the tokenizer's chat template."""
    fewshot_as_multiturn: bool = False
    """Examples as turns of the conversation; default, as in lm-eval: where a chat template is applied."""
    system_instruction: str | None = None
    """A system message."""

    @model_validator(mode="before")
    @classmethod
    def _as_lm_eval(cls, data: Any) -> Any:  # noqa: ANN401 - not yet validated
        if isinstance(data, dict) and data.get("apply_chat_template") is True:
            return {"fewshot_as_multiturn": True, **data}
        return data

    @model_validator(mode="after")
    def _turns_need_a_template(self) -> Self:
        if self.fewshot_as_multiturn and not self.apply_chat_template:
            raise FieldError(
                "found true without apply_chat_template: true, which has the turns",
                "fewshot_as_multiturn",
            )
        return self

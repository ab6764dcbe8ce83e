"""What is searched for: tasks, conditions, costs; and the items they are measured on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from evomerge.config.settings import Count, Filled, NonEmpty, Settings

DataSplit = Literal["train", "validation", "test"]
CostName = Literal["parameters", "generated_tokens"]
Reference = Literal["best_expert", "base", "best_baseline"]


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
    report: Filled = ""
    num_fewshot: int | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _report_is_metric(cls, data: Any) -> Any:  # noqa: ANN401 - before validation it may be anything
        if isinstance(data, dict) and data.get("report") is None and "metric" in data:
            return {**data, "report": data["metric"]}
        return data


class Keep(Settings):
    """A condition: what the winner must not lose. Candidates that break it rank behind all others.

    Attributes:
        task: One of the objectives' tasks.
        at_least: Share of the reference's score (for a metric better when lower: at most 1 / share of it;
            for log-likelihoods, share of the probability: best + ln share).
        of: Whose score: `best_expert` on this task, `base`, or `best_baseline`.
    """

    task: NonEmpty
    at_least: float = Field(gt=0)
    of: Reference = "best_expert"


class Cost(Settings):
    """What a model takes, as an objective that is better when lower.

    Attributes:
        cost: `parameters` or `generated_tokens` (an item), each relative to the base's. Both are
            counted, so equal models cost the same.
        weight: In `mode: mean`, how much one base's worth of it takes off the mean; in `mode: pareto`
            it is an objective of its own and the weight does not matter.
    """

    cost: CostName
    weight: float = Field(default=0.1, gt=0)

    @field_validator("cost", mode="before")
    @classmethod
    def _counted(cls, cost: Any) -> Any:  # noqa: ANN401 - before validation it may be anything
        if cost == "seconds_per_item":
            raise ValueError(
                "seconds_per_item is no longer a cost: equal models differed in it by the load of the "
                "machine; use generated_tokens or parameters, which are counted"
            )
        return cost


class Drawn(Settings):
    """The data set's own split (train, validation, test) that each of ours is drawn from.

    Attributes:
        search: That of the items that the sampler sees.
        select: That of the items that pick the winner.
        holdout: That of the items that are reported.
    """

    search: DataSplit | None = None
    select: DataSplit | None = None
    holdout: DataSplit | None = None


class Items(Settings):
    """How many items of every task each split gets; the three are disjoint.

    A document is in one of the three for all tasks: documents of equal content, or that ask the same text,
    are one.

    Attributes:
        search: Seen by the sampler.
        select: Pick the winner among finalists.
        holdout: Reported, read once.
        seed: Draws the items: by hash of (task, seed, id), or of (seed, document) where tasks share it.
        drawn_from: In the file `from`: the data set's split each is drawn from; default: lm-eval's.
    """

    search: Count = 64
    select: Count = 64
    holdout: Count = 200
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

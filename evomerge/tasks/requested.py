"""What a caller asks of the room: tasks, the style of their prompts, and how many items of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from evomerge.candidate.trial import Split

Source = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class TaskRequest:
    """One lm-eval task or group.

    Attributes:
        task: Its name.
        num_fewshot: Examples in the prompt; None: the task's own number. A task whose file says
            `num_fewshot: 0` keeps it, as in lm-eval.
        answers: Folder of the task's files where it is a file of prompts that a teacher answered. Its
            prompts are read as they stand there, and the answers do not make a document another one.
    """

    task: str
    num_fewshot: int | None = None
    answers: str | None = None


@dataclass(frozen=True)
class PromptStyle:
    """How lm-eval renders prompts; the fields are those of `lm_eval.simple_evaluate`, and their defaults."""

    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = True  # no turns without a template
    system_instruction: str | None = None


@dataclass(frozen=True)
class SplitPlan:
    """How many items of every task each split gets; a document is in one split for all tasks.

    Attributes:
        counts: Split → number of items of each requested task; None: all that are left. A group's
            items are shared out among its tasks in proportion to their sizes.
        seed: Draws the items: see `splits.draw`.
        drawn_from: Split → the data set's split that it is drawn from; default the one lm-eval scores.
        first: Take the first documents instead of drawing, so many of each of a group's tasks, or all where
            there are fewer, as lm-eval's `limit` does.
    """

    counts: Mapping[Split, int | None]
    seed: int = 0
    drawn_from: Mapping[Split, Source | None] = field(default_factory=dict)
    first: bool = False

"""Objectives without labels: their prompts are read, and stand in for tasks until a teacher answered them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from evomerge.config import Campaign
from evomerge.config.faults import at_field
from evomerge.errors import CampaignError, TaskError
from evomerge.inference.encoding import Encoder
from evomerge.preflight.family import OpenFamily
from evomerge.tasks import Items, Prompts, TaskRequest, read_prompts, write_task


def asked(campaign: Campaign, family: OpenFamily) -> tuple[Prompts, ...]:
    """Read the files of prompts, of the objectives that have one.

    Raises:
        TaskError: A file, or a line of one, cannot be used.
        CampaignError: The longest answers do not fit the model's context.
    """
    found = []
    for place, goal in enumerate(campaign.objectives):
        if goal.prompts is None or goal.max_tokens is None:
            continue
        context = Encoder(family.tokenizer, family.base.config).max_length
        if goal.max_tokens >= context:
            raise CampaignError(
                f"found {goal.max_tokens}, expected fewer than the {context} tokens of the model's context",
                field=f"objectives.{place}.max_tokens",
            )
        with at_field(f"objectives.{place}.prompts"):
            texts = read_prompts(Path(goal.prompts), family.tokenizer)
        found.append(Prompts(goal.task, texts, goal.max_tokens, goal.until))
    return tuple(found)


@contextmanager
def folder_of(prompts: Sequence[Prompts], answers: Path | None) -> Iterator[Path | None]:
    """Yield the folder of the tasks that prompts become.

    Args:
        prompts: What the files hold.
        answers: That folder where teachers wrote their answers; None: stand-ins are written to one that
            does not stay.
    """
    if answers is not None or not prompts:
        yield answers
        return
    with tempfile.TemporaryDirectory(prefix="evomerge-prompts-") as folder:
        for each in prompts:
            write_task(Path(folder), each)
        yield Path(folder)


def requests_of(campaign: Campaign, answers: Path | None) -> tuple[TaskRequest, ...]:
    """Return a campaign's tasks; `answers`: folder of those that are prompts which teachers answered."""
    return tuple(
        TaskRequest(goal.task, goal.num_fewshot, None if goal.prompts is None else str(answers))
        for goal in campaign.objectives
    )


def check_teachers(campaign: Campaign, family: OpenFamily, items: Items) -> None:
    """Check that teachers which the campaign names have every token of their tasks' gold answers.

    Raises:
        TaskError: Naming the teacher, the task and a token.
    """
    tokenizer = family.tokenizer
    for place, goal in enumerate(campaign.objectives):
        if goal.teacher is None or goal.loss == "gold":
            continue
        absent = {tokenizer.unk_token_id} - {None}
        if family.vocabulary is not None:
            own = family.vocabulary.own[family.family.experts[goal.teacher]]
            absent |= set((own < 0).nonzero()[:, 0].tolist())
        answers = [text for leaf in items.leaves(goal.task, "search") for text in leaf.gold_texts]
        tokens = tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
        without = [[each for each in of_answer if each in absent] for of_answer in tokens]
        count = sum(map(bool, without))
        if count:
            first = tokenizer.convert_ids_to_tokens(next(filter(None, without))[0])
            raise TaskError(
                f'"{goal.teacher}" cannot encode parts of {count} of {len(answers)} gold answers of task '
                f'"{goal.task}" (the first: {first}); name another teacher, or set loss: gold',
                field=f"objectives.{place}.teacher",
            )

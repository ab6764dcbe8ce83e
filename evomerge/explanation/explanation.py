"""What is said of a winner, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evomerge.candidate.trial import Split
from evomerge.merge.task_vectors import TaskVectorConflicts
from evomerge.report.scores import Value
from evomerge.report.statistics import PairedTest

SCHEMA = 1
CHANGE = 0.1
"""Of an expert's weight, whose effect is predicted."""


@dataclass(frozen=True)
class TestedGain:
    """What the winner is better by than without a part, on the same items; above 0: the part helps.

    Attributes:
        test: Winner minus ablation, in the direction in which more is better.
        p_corrected: Its p after Holm's correction over all experts (or groups) and tasks.
    """

    __test__ = False  # not pytest's

    test: PairedTest
    p_corrected: float

    @property
    def is_significant(self) -> bool:
        """Whether it can be told from chance."""
        return self.p_corrected < 0.05


@dataclass(frozen=True)
class Contribution:
    """What one part of the winner adds.

    Attributes:
        expert: The expert or member; empty: all experts of a group.
        layers: Of the group.
        tensors: The component of the group.
        mean: On the weighted mean; None where it cannot be tested, or there are no scores.
        tasks: Task → gain; None likewise.
        unchanged: Without the part it is the same model.
        failure: Why the model without it has no scores; empty: it has.
    """

    expert: str
    layers: str
    tensors: str
    mean: TestedGain | None
    tasks: Mapping[str, TestedGain | None]
    unchanged: bool = False
    failure: str = ""

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.expert:
            return self.expert
        layers = "all layers" if self.layers == "all" else f"layers {self.layers}"
        return layers if self.tensors == "all" else f"{layers}, {self.tensors}"


@dataclass(frozen=True)
class Sensitivity:
    """Gradients of the winner's loss by its weights.

    Attributes:
        experts: Names, in the order of the gradients.
        layers: Of each group.
        tensors: Of each component.
        losses: Task → mean loss of the search items' gold answers, nats.
        gradients: Task → gradient of that loss by each weight, `[groups][components][experts]`.
    """

    experts: tuple[str, ...]
    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    losses: Mapping[str, float]
    gradients: Mapping[str, tuple[tuple[tuple[float, ...], ...], ...]]

    def predicted(self, expert: str, task: str) -> float:
        """Return what `CHANGE` more of an expert's weight everywhere adds to the loss, to first order."""
        place = self.experts.index(expert)
        return CHANGE * sum(row[place] for group in self.gradients[task] for row in group)


@dataclass(frozen=True)
class ItemExample:
    """One item that the winner answers better, or worse, than another model.

    Attributes:
        task: The task.
        item: Its id.
        prompt: What is asked.
        gold: What is right.
        answer: The winner's.
        other_answer: The other model's.
        score: The winner's.
        other_score: The other model's.
        others: Mean score of all parents and naive merges: how unusual it is to answer that.
    """

    task: str
    item: str
    prompt: str
    gold: str
    answer: str
    other_answer: str
    score: float
    other_score: float
    others: float


@dataclass(frozen=True)
class ItemChanges:
    """Items that the winner gains and loses against another model.

    Attributes:
        against: Its name.
        part: `best expert` or `plain average`.
        split: Whose items.
        gained: Task → how many items the winner answers better.
        lost: Task → how many worse.
        items: Task → how many there are.
        examples_gained: The most telling ones: what few other models answer.
        examples_lost: Likewise: what most other models answer.
    """

    against: str
    part: str
    split: Split
    gained: Mapping[str, int]
    lost: Mapping[str, int]
    items: Mapping[str, int]
    examples_gained: tuple[ItemExample, ...] = ()
    examples_lost: tuple[ItemExample, ...] = ()


@dataclass(frozen=True)
class Conflict:
    """How experts lie to each other.

    Attributes:
        experts: Names, in the order of all matrices.
        task_vectors: Part of the model → their task vectors, two by two; the last is of all parts.
        distances: `[layers + 1][experts][experts]`, from the embeddings to the last layer: how far the mean
            hidden states of the same prompts are apart, as a share of how long they are; empty: not known.
        prompts: How many prompts were read.
    """

    experts: tuple[str, ...]
    task_vectors: tuple[TaskVectorConflicts, ...]
    distances: tuple[tuple[tuple[float, ...], ...], ...] = ()
    prompts: int = 0


@dataclass(frozen=True)
class RandomControl:
    """The winner's numbers on task vectors that are noise of the same norms, tensor by tensor.

    Attributes:
        seed: Draws the noise.
        mean: Its weighted mean; None where there is none.
        tasks: Task → value.
        failure: Why it has no scores; empty: it has.
    """

    seed: int
    mean: Value | None
    tasks: Mapping[str, Value]
    failure: str = ""


@dataclass(frozen=True)
class Explanation:
    """Why a winner works, as far as that can be measured.

    Attributes:
        campaign: Its name.
        winner: The winner's name.
        label: What it is, such as its method.
        tasks: The objectives' tasks.
        mean: The winner's weighted mean on the select items.
        values: Task → its value there.
        how: What it means that an expert is left out.
        experts: What each expert adds, in the order of the campaign.
        groups: What the experts add together in each group of layers and component.
        sensitivity: None where there are no gradients.
        changes: Items gained and lost.
        conflict: Between the experts; None where there is one expert only.
        random: The control, where it was ever asked for.
        notes: Why something does not apply.
        summary: All of it in a paragraph.
    """

    campaign: str
    winner: str
    label: str
    tasks: tuple[str, ...]
    mean: Value | None
    values: Mapping[str, Value]
    how: str = ""
    experts: tuple[Contribution, ...] = ()
    groups: tuple[Contribution, ...] = ()
    sensitivity: Sensitivity | None = None
    changes: tuple[ItemChanges, ...] = ()
    conflict: Conflict | None = None
    random: RandomControl | None = None
    notes: tuple[str, ...] = ()
    summary: str = field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {"schema": SCHEMA, **asdict(self)}

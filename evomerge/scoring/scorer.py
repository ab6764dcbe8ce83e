"""A module's scores on a split: tokenised and planned once, then forward passes and metrics only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn

from evomerge.candidate.trial import Split, Target, Targets, TaskScores
from evomerge.inference.drafts import Drafts
from evomerge.inference.encoding import Encoder
from evomerge.inference.engine import Engine
from evomerge.scoring.answering import LeafPart, Scored, answer
from evomerge.scoring.item_loss import ItemLoss
from evomerge.scoring.tokenised import TokenisedLeaf, TokenisedPrompts, generation_prompt
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import TEACHER_DIVERGENCE
from evomerge.tasks.rendering import Leaf
from evomerge.tasks.scores import Asked, LeafValues, assemble


@dataclass(frozen=True)
class MemberPart:
    """Items that one of several modules answers."""

    build: Callable[
        [], nn.Module
    ]  # makes the module as it is to be scored; called when it is its turn
    positions: Mapping[str, Sequence[int]]  # task → which of its items, by position, ascending
    # Task → the module's scores on all items of the split, all metrics among them, where they are known
    scored: Mapping[str, TaskScores] = field(default_factory=dict)


class Scorer:
    """Scores modules on the same items: causal language models of transformers, in eval mode.

    Items are tokenised once for all modules that read alike. What is found out about a module and
    planned for it is kept as long as it lives, whatever its weights become meanwhile.

    Args:
        items: What to score them on; their tokenizer is the modules'.
        batch_tokens: Most tokens of one forward pass; `auto`: sized from the machine and the model.
        memory: Bytes of the module's device that passes may take; None: half of what is there.

    Attributes:
        loss: Differentiable losses of modules on the same items, and what teachers say of them.
    """

    takes: Literal["module", "folder"] = "module"
    races = True
    gradients = True

    def __init__(
        self,
        items: Items,
        *,
        batch_tokens: int | Literal["auto"] = "auto",
        memory: int | None = None,
    ) -> None:
        self._items = items
        self._batch_tokens, self._memory = batch_tokens, memory
        self._engines: WeakKeyDictionary[nn.Module, Engine] = WeakKeyDictionary()
        self._encoders: dict[Hashable, Encoder] = {}
        self._tokenised: dict[tuple[Encoder, int], TokenisedLeaf] = {}
        self._drafts = Drafts()  # of earlier candidates, whatever module wrote them
        self.loss = ItemLoss(items, self.engine, self.tokenised)

    def check(self, metrics: Mapping[str, tuple[str, ...]]) -> None:
        """Raise as `score` does where it cannot give these metrics; no model is needed."""
        self._asked(self._items.splits[0], metrics)

    def engine(self, module: nn.Module) -> Engine:
        """Return what a module's passes need, made at its first use; best while its weights are sound.

        Raises:
            ModelError: The module is recurrent.
            NotFinite: Its logits are NaN.
        """
        if module not in self._engines:
            engine = self._engine_of(module)
            engine.encoder = self._encoders.setdefault(engine.encoder.key, engine.encoder)
            self._engines[module] = engine
        return self._engines[module]

    def tokenised(self, encoder: Encoder, leaf: Leaf) -> TokenisedLeaf:
        """Return the documents of a leaf as an encoder's modules read them."""
        key = encoder, id(leaf)
        if key not in self._tokenised:
            self._tokenised[key] = TokenisedLeaf(leaf, encoder)
        return self._tokenised[key]

    def score(
        self,
        module: nn.Module,
        split: Split,
        metrics: Mapping[str, tuple[str, ...] | None],
        *,
        bootstrap_iterations: int = 0,
        targets: Mapping[str, Targets] = MappingProxyType({}),
    ) -> Scored:
        """Score a module as it is now.

        Only what the metrics need is computed: `gold_*` metrics never generate.

        Args:
            module: What to score.
            split: Which items.
            metrics: Requested task or group → its metrics; None: every metric, as `lm_eval` gives them,
                and ours, over the items that have a gold answer.
            bootstrap_iterations: Draws for standard errors without a closed form; 0: they have none.
            targets: Requested task or group → what its teacher says of each item, for
                `teacher_divergence`.

        Raises:
            TaskError: An unknown task, split or metric, an item that cannot be scored, or a teacher that is
                missing or says nothing of an item.
            ModelError: The module is recurrent.
            NotFinite: The logits are NaN or infinite.
            Collapsed: The module writes the same token over and over, whatever it is asked.
        """
        asked = self._asked(split, metrics)
        whole = {task: range(len(self._items.ids(task, split))) for task in asked}
        (scored,) = self._scored(
            self.engine(module), split, asked, targets, [whole], bootstrap_iterations
        )
        return scored

    def score_in_blocks(
        self,
        module: nn.Module,
        split: Split,
        metrics: Mapping[str, tuple[str, ...]],
        blocks: Sequence[Mapping[str, Sequence[int]]],
        *,
        targets: Mapping[str, Targets] = MappingProxyType({}),
    ) -> Iterator[Scored]:
        """Score a module block by block, for a caller that may stop in between. Raises as `score` does.

        Args:
            module: What to score.
            split: Which items.
            metrics: Requested task or group → its metrics.
            blocks: Task → which of its items, by position among `Items.ids`, ascending; no item twice.
            targets: As `score` takes them.

        Yields:
            The scores on all items so far, in the order of `Items.ids`, aggregated as if they were
            scored in one go; a task without any is left out. Tokens and items count all blocks so far.
        """
        asked = self._asked(split, metrics)
        yield from self._scored(self.engine(module), split, asked, targets, blocks, 0)

    def score_parts(
        self,
        parts: Sequence[MemberPart],
        split: Split,
        metrics: Mapping[str, tuple[str, ...] | None],
        *,
        bootstrap_iterations: int = 0,
        targets: Mapping[str, Targets] = MappingProxyType({}),
    ) -> Scored:
        """Score several modules together, each on items of its own. Raises as `score` does.

        Args:
            parts: Who answers what; together every item of `metrics`' tasks once.
            split: Which items.
            metrics: As `score` takes them.
            bootstrap_iterations: As `score` takes it.
            targets: As `score` takes them.

        Returns:
            Each item's values are those of the module that answers it, aggregated as one model's.
        """
        asked = self._asked(split, metrics)
        found = self._leaf_values(split, asked)
        generated = 0
        for part in parts:
            for task in part.scored:
                _take(found[task], part.positions[task], part.scored[task])
            rest = {task: own for task, own in part.positions.items() if task not in part.scored}
            if any(rest.values()):
                engine = self.engine(part.build())
                said = self._said(engine, split, {task: asked[task] for task in rest}, targets)
                generated += answer(engine, self._parts(engine, found, said, rest))
        tasks, subtasks = assemble(self._items, asked, found, bootstrap_iterations)
        for task, scores in tasks.items():  # of single items it is not known, and cuts are alike
            cut = [each.scored[task].truncated for each in parts if task in each.scored]
            tasks[task] = replace(scores, truncated=max(scores.truncated, *cut, 0))
        return Scored(tasks, subtasks, generated, sum(len(each.items) for each in tasks.values()))

    def prompts(self, module: nn.Module) -> TokenisedPrompts:
        """Return the prompts of the items, as a module reads them."""
        encoder = self.engine(module).encoder
        return TokenisedPrompts(self._items, lambda leaf: self.tokenised(encoder, leaf))

    def write(
        self, module: nn.Module, prompts: Sequence[str], max_tokens: int, until: Sequence[str]
    ) -> list[str]:
        """Let a module continue prompts greedily; each text is what follows its prompt.

        Args:
            module: What writes.
            prompts: As it reads them.
            max_tokens: Most tokens of a text.
            until: Texts at which one ends, and which it is cut at.

        Raises:
            TaskError: `max_tokens` is more than the context holds.
            ModelError: The module is recurrent.
            NotFinite: The logits are NaN or infinite.
            Collapsed: The module writes the same token over and over, whatever it is asked.
        """
        engine = self.engine(module)
        encoder, options = engine.encoder, {"until": list(until), "max_gen_toks": max_tokens}
        asked = [
            generation_prompt("prompts", tokens, options, encoder)
            for tokens in encoder.prompts(prompts)
        ]
        with torch.inference_mode():
            written = engine.write(asked)
        return [
            encoder.stopping.text(tokens, prompt.rule, behind=prompt.tokens)
            for tokens, prompt in zip(written, asked, strict=True)
        ]

    def forget_drafts(self) -> None:
        """Forget what earlier candidates wrote; scores stay the same, the next one takes longer."""
        self._drafts.clear()

    def _asked(
        self, split: Split, metrics: Mapping[str, tuple[str, ...] | None]
    ) -> dict[str, Asked]:
        return {task: Asked.of(self._items, task, split, names) for task, names in metrics.items()}

    def _engine_of(self, module: nn.Module) -> Engine:
        return Engine(module, self._items.tokenizer, self._batch_tokens, self._memory, self._drafts)

    def _scored(
        self,
        engine: Engine,
        split: Split,
        asked: Mapping[str, Asked],
        targets: Mapping[str, Targets],
        blocks: Sequence[Mapping[str, Sequence[int]]],
        iterations: int,
    ) -> Iterator[Scored]:
        found, said = self._leaf_values(split, asked), self._said(engine, split, asked, targets)
        generated = items = 0
        for block in blocks:
            parts = self._parts(engine, found, said, block)
            generated += answer(engine, parts)
            items += sum(len(part.positions) for part in parts)
            yield Scored(*assemble(self._items, asked, found, iterations), generated, items)

    def _leaf_values(self, split: Split, asked: Mapping[str, Asked]) -> dict[str, list[LeafValues]]:
        return {
            task: [LeafValues(leaf, metrics) for leaf in self._items.leaves(task, split)]
            for task, metrics in asked.items()
        }

    def _said(
        self,
        engine: Engine,
        split: Split,
        asked: Mapping[str, Asked],
        targets: Mapping[str, Targets],
    ) -> dict[str, list[Target]]:
        """Return what teachers say of each task's items, where that is asked for."""
        return {
            task: self.loss.checked_targets(engine, task, split, targets.get(task))
            for task, metrics in asked.items()
            if TEACHER_DIVERGENCE in (metrics.golds or ())
        }

    def _parts(
        self,
        engine: Engine,
        found: Mapping[str, Sequence[LeafValues]],
        said: Mapping[str, Sequence[Target]],
        block: Mapping[str, Sequence[int]],
    ) -> list[LeafPart]:
        return [
            LeafPart(
                self.tokenised(engine.encoder, values.leaf),
                values,
                positions,
                said.get(task, ())[first : first + len(values.leaf.docs)],
            )
            for task, leaves in found.items()
            for values, positions, first in _shared_out(leaves, block.get(task, ()))
            if positions
        ]


def _shared_out(
    leaves: Sequence[LeafValues], positions: Sequence[int]
) -> Iterator[tuple[LeafValues, Sequence[int], int]]:
    """Share a task's positions out among its leaves; beside each, at which position it begins."""
    first = 0
    for values in leaves:
        stop = first + len(values.leaf.docs)
        yield values, [each - first for each in positions if first <= each < stop], first
        first = stop


def _take(leaves: Sequence[LeafValues], positions: Sequence[int], known: TaskScores) -> None:
    """Add documents of a task whose scores are known of the model that answers them."""
    for values, own, first in _shared_out(leaves, positions):
        if own:
            found = {
                name: [each[first + position] for position in own]
                for name, each in known.metrics.items()
            }
            values.take(own, found, [known.answers[position] for position in own if known.answers])

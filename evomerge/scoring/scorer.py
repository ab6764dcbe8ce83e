"""A module's scores on a split: tokenised and planned once, then forward passes and metrics only."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from evomerge.candidate.trial import Split, TaskScores
from evomerge.errors import TaskError
from evomerge.inference import gold
from evomerge.inference.batches import Batch
from evomerge.inference.drafts import Drafts
from evomerge.inference.encoding import Encoder
from evomerge.inference.engine import Engine
from evomerge.inference.loglikelihood import TokenScores
from evomerge.scoring.gold_loss import GoldLoss
from evomerge.scoring.workload import Excerpt, Need, Part, Workload, gather, lay_out
from evomerge.tasks.assembly import (
    Asked,
    LeafValues,
    asked_metrics,
    assemble,
    everything,
    leaf_scores,
    union,
)
from evomerge.tasks.evaluation import item_values
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import GOLD_LOGLIKELIHOOD, GOLD_PROBABILITY, filter_names, named
from evomerge.tasks.rendering import Leaf


@dataclass(frozen=True)
class Scored:
    """Scores on one split.

    Attributes:
        tasks: Requested task or group → scores.
        subtasks: Task of a requested group → scores.
        generated_tokens: Tokens that were generated.
        items: Items that were scored.
    """

    tasks: Mapping[str, TaskScores]
    subtasks: Mapping[str, TaskScores]
    generated_tokens: int
    items: int


class Scorer:
    """Scores modules on the same items: causal language models of transformers, in eval mode.

    Items are tokenised once for all modules that read alike. What is found out about a module and
    planned for it is kept as long as it lives, whatever its weights become meanwhile.

    Args:
        tokenizer: The modules'.
        items: What to score them on.
        batch_tokens: Most tokens of one forward pass; `auto`: sized from the machine and the model.
        memory: Bytes of the module's device that passes may take; None: half of what is there.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        items: Items,
        *,
        batch_tokens: int | Literal["auto"] = "auto",
        memory: int | None = None,
    ) -> None:
        self._items = items
        self._tokenizer, self._batch_tokens, self._memory = tokenizer, batch_tokens, memory
        self._engines: WeakKeyDictionary[nn.Module, Engine] = WeakKeyDictionary()
        self._encoders: dict[Hashable, Encoder] = {}
        self._laid_out: dict[Hashable, Workload] = {}
        self._drafts = Drafts()  # of earlier candidates, whatever module wrote them
        self.gold_loss = GoldLoss(items, self.engine)

    def engine(self, module: nn.Module) -> Engine:
        """Return what a module's passes need, made at its first use; best while its weights are sound.

        Raises:
            ModelError: The module is recurrent.
            NotFinite: Its logits are NaN.
        """
        if module not in self._engines:
            engine = Engine(module, self._tokenizer, self._batch_tokens, self._memory, self._drafts)
            engine.encoder = self._encoders.setdefault(engine.encoder.key, engine.encoder)
            self._engines[module] = engine
        return self._engines[module]

    def score(
        self,
        module: nn.Module,
        split: Split,
        metrics: Mapping[str, tuple[str, ...]],
        *,
        bootstrap_iterations: int = 0,
    ) -> Scored:
        """Score a module as it is now.

        Only what the metrics need is computed: `gold_*` metrics never generate.

        Args:
            module: What to score.
            split: Which items.
            metrics: Requested task or group → its metrics.
            bootstrap_iterations: Draws for standard errors without a closed form; 0: they have none.

        Raises:
            TaskError: An unknown task, split or metric, or an item that cannot be scored.
            ModelError: The module is recurrent.
            NotFinite: The logits are NaN or infinite.
            Collapsed: The module writes the same token over and over, whatever it is asked.
        """
        asked = self._asked(split, metrics)
        whole = self._whole(split, asked)
        (scored,) = self._scored(self.engine(module), split, asked, [whole], bootstrap_iterations)
        return scored

    def score_everything(
        self, module: nn.Module, split: Split, *, bootstrap_iterations: int = 0
    ) -> Scored:
        """Score a module as it is now by every metric, as `lm_eval` does, and by ours.

        Our `gold_*` metrics are over the items that have a gold answer, and left out where none has.

        Args:
            module: What to score.
            split: Which items.
            bootstrap_iterations: Draws for standard errors without a closed form; 0: they have none.

        Raises:
            As `score` does.
        """
        asked = dict.fromkeys(self._items.tasks)
        whole = self._whole(split, asked)
        (scored,) = self._scored(self.engine(module), split, asked, [whole], bootstrap_iterations)
        return scored

    def score_in_blocks(
        self,
        module: nn.Module,
        split: Split,
        metrics: Mapping[str, tuple[str, ...]],
        blocks: Sequence[Mapping[str, Sequence[int]]],
    ) -> Iterator[Scored]:
        """Score a module block by block, for a caller that may stop in between.

        Every item is tokenised once, whatever the blocks. Raises as `score` does.

        Args:
            module: What to score.
            split: Which items.
            metrics: Requested task or group → its metrics.
            blocks: Task → which of its items, by position among `Items.ids`, ascending; no item twice.

        Yields:
            The scores on all items so far, in the order of `Items.ids`, aggregated as if they were
            scored in one go; a task without any is left out. Tokens and items count all blocks so far.
        """
        asked = self._asked(split, metrics)
        yield from self._scored(self.engine(module), split, asked, blocks, 0)

    def forget_drafts(self) -> None:
        """Forget what earlier candidates wrote; scores stay the same, the next one takes longer."""
        self._drafts.clear()

    def _asked(self, split: Split, metrics: Mapping[str, tuple[str, ...]]) -> dict[str, Asked]:
        return {
            task: asked_metrics(self._items, task, split, names) for task, names in metrics.items()
        }

    def _whole(self, split: Split, tasks: Iterable[str]) -> dict[str, range]:
        return {task: range(len(self._items.ids(task, split))) for task in tasks}

    def _scored(
        self,
        engine: Engine,
        split: Split,
        asked: Mapping[str, Asked | None],
        blocks: Sequence[Mapping[str, Sequence[int]]],
        iterations: int,
    ) -> Iterator[Scored]:
        """Score block by block what is asked of each task; None: everything."""
        whole = [leaf for task in asked for leaf in self._items.leaves(task, split)]
        wanted = [
            metrics or everything(leaf)
            for task, metrics in asked.items()
            for leaf in self._items.leaves(task, split)
        ]
        by_task = {task: metrics or Asked(None) for task, metrics in asked.items()}
        found: list[list[LeafValues]] = [[] for _ in whole]
        generated = items = 0
        for block in blocks:
            shares = [
                share
                for task in asked
                for share in _cut(self._items.leaves(task, split), block.get(task, ()))
            ]
            here = [number for number, share in enumerate(shares) if share.positions]
            answers = self._answers(engine, [shares[n] for n in here], [wanted[n] for n in here])
            for number, part in zip(here, answers.parts, strict=True):
                share, names = shares[number], wanted[number]
                found[number].append(answers.leaf(part, share.positions, names))
            scores = [
                leaf_scores(leaf, union(values), iterations) if values else None
                for leaf, values in zip(whole, found, strict=True)
            ]
            generated += answers.generated_tokens
            items += sum(len(share.positions) for share in shares)
            yield Scored(*assemble(self._items, split, by_task, scores), generated, items)

    def _answers(
        self, engine: Engine, shares: Sequence[_Share], wanted: Sequence[Asked]
    ) -> _Answers:
        needs = [
            Need(share.whole, each.requests or GOLD_PROBABILITY in each.golds, bool(each.golds))
            for share, each in zip(shares, wanted, strict=True)
        ]
        work, batches = self._plan(engine, shares, needs)
        with torch.inference_mode():
            tokens = engine.read(batches, len(work.readings))
            written = engine.write(work.prompts)
        texts = [
            engine.encoder.stopping.text(each, prompt.rule)
            for each, prompt in zip(written, work.prompts, strict=True)
        ]
        return _Answers(work, tokens, texts, sum(map(len, written)))

    def _plan(
        self, engine: Engine, shares: Sequence[_Share], needs: Sequence[Need]
    ) -> tuple[Workload, list[Batch]]:
        """Lay out batches; those of whole leaves are kept, those of a race's blocks never come again."""
        key = tuple((id(need.leaf), need.requests, need.gold) for need in needs)
        whole = all(share.leaf is share.whole for share in shares)
        if whole and key in engine.plans:
            return cast("tuple[Workload, list[Batch]]", engine.plans[key])
        excerpts = [
            Excerpt(self._tokenised(engine.encoder, need), share.leaf, share.positions)
            for share, need in zip(shares, needs, strict=True)
        ]
        work = gather(excerpts)
        planned = work, engine.plan(work.readings)
        if whole:
            engine.plans[key] = planned
        return planned

    def _tokenised(self, encoder: Encoder, need: Need) -> Workload:
        key = encoder, id(need.leaf), need.requests, need.gold
        if key not in self._laid_out:
            self._laid_out[key] = lay_out([need], encoder)
        return self._laid_out[key]


@dataclass(frozen=True)
class _Share:
    """A block's documents of one leaf, as a leaf of their own, and where they stand in the whole."""

    leaf: Leaf
    positions: Sequence[int]
    whole: Leaf


class _Answers:
    """What the module answered, by reading and prompt."""

    def __init__(
        self, work: Workload, tokens: TokenScores, texts: Sequence[str], generated_tokens: int
    ) -> None:
        self.parts, self.generated_tokens = work.parts, generated_tokens
        self._texts = texts
        count = len(work.readings)
        self._sums, self._greedy = tokens.sums(), tokens.greedy()
        self._tokens = torch.bincount(tokens.reading, minlength=count)

    def leaf(self, part: Part, positions: Sequence[int], asked: Asked) -> LeafValues:
        values: dict[str, Sequence[Any]] = {}
        if asked.named is None:
            filters = filter_names(part.leaf.task)
            computed = item_values(part.leaf, self._responses(part), None)
            values |= {named(pair, filters): each for pair, each in computed.items()}
        elif asked.named:
            pairs = list(asked.named.values())
            computed = item_values(part.leaf, self._responses(part), pairs)
            values |= {name: computed[pair] for name, pair in asked.named.items()}
        for name in asked.golds:
            values[name] = self._gold(part, name)
            if asked.named is not None and None in values[name]:
                raise TaskError(
                    f'task "{part.leaf.name}": {name} was asked for, but a gold answer has no tokens of '
                    "its own; there is nothing to score"
                )
        return LeafValues(positions, values, len(part.cut))

    def _responses(self, part: Part) -> list[list[Any]]:
        if part.first_prompt is not None:
            texts = self._texts[part.first_prompt : part.first_prompt + len(part.leaf.docs)]
            return [[text] for text in texts]
        sums, greedy, _ = self._by(
            part.of_requests, part.first_request_reading, _requests(part.leaf)
        )
        if part.leaf.task.OUTPUT_TYPE == "loglikelihood_rolling":
            return [[value] for value in sums.tolist()]
        flat = iter(zip(sums.tolist(), (greedy > 0).tolist(), strict=True))
        return [[next(flat) for _ in requests] for requests in part.leaf.requests]

    def _gold(self, part: Part, metric: str) -> list[float | None]:
        """Return one value a document; None where its gold answer, if it has one, was not read."""
        leaf = part.leaf
        if part.of_requests:
            sums, greedy, tokens = self._by(
                part.of_requests, part.first_request_reading, _requests(leaf)
            )
            right = torch.tensor(_right(leaf), device=sums.device)
            sums, greedy, tokens = sums[right], greedy[right], tokens[right]
            there = [gold is not None for gold in leaf.golds]
        else:
            sums, greedy, tokens = self._by(part.of_gold, part.first_gold_reading, len(leaf.docs))
            there = (tokens > 0).tolist()
        if metric == GOLD_PROBABILITY:
            values = self._gold_probability(part)
        elif metric == GOLD_LOGLIKELIHOOD:
            values = sums / tokens.clamp(min=1)
        else:
            values = greedy
        return [
            value if is_there else None
            for value, is_there in zip(values.tolist(), there, strict=True)
        ]

    def _gold_probability(self, part: Part) -> Tensor:
        leaf = part.leaf
        sums, _, _ = self._by(part.of_requests, part.first_request_reading, _requests(leaf))
        rows = []  # (request, document, whether it is right)
        first = 0
        for document, requests in enumerate(leaf.requests):
            choices = len(leaf.task.doc_to_choice(leaf.docs[document]))
            gold_answer = leaf.golds[document]
            golds = () if gold_answer is None else gold_answer.choices
            rows += [(first + choice, document, choice in golds) for choice in range(choices)]
            first += len(requests)
        request, item, right = (
            torch.tensor(each, device=sums.device) for each in zip(*rows, strict=True)
        )
        return gold.gold_probability(sums[request], item, right, len(leaf.docs))

    def _by(self, owner: Sequence[int], first: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Add up readings by whom they belong to: log-likelihoods, all greedy (0 or 1), tokens."""
        part = slice(first, first + len(owner))
        index = torch.tensor(owner, device=self._sums.device, dtype=torch.int64)
        missed = gold.summed_loglikelihood(1 - self._greedy[part], index, count)
        return (
            gold.summed_loglikelihood(self._sums[part], index, count),
            (missed == 0).float(),
            gold.summed_loglikelihood(self._tokens[part].float(), index, count),
        )


def _cut(leaves: Sequence[Leaf], positions: Sequence[int]) -> tuple[_Share, ...]:
    """Share a task's positions out among its leaves; all of a leaf is the leaf itself."""
    shares = []
    first = 0
    for whole in leaves:
        stop = first + len(whole.docs)
        own = [position - first for position in positions if first <= position < stop]
        first = stop
        leaf = whole
        if len(own) < len(whole.docs):
            leaf = replace(
                whole,
                ids=tuple(whole.ids[each] for each in own),
                docs=tuple(whole.docs[each] for each in own),
                requests=tuple(whole.requests[each] for each in own),
            )
        shares.append(_Share(leaf, own, whole))
    return tuple(shares)


def _requests(leaf: Leaf) -> int:
    return sum(len(requests) for requests in leaf.requests)


def _right(leaf: Leaf) -> list[int]:
    """The request with each document's (first) gold answer, counted over all; its first without one."""
    found, first = [], 0
    for gold_answer, requests in zip(leaf.golds, leaf.requests, strict=True):
        found.append(first + (0 if gold_answer is None else gold_answer.choices[0]))
        first += len(requests)
    return found

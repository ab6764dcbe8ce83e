"""LoRA training on answers: batches, loss, early stopping on held-back items, resumable."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from items import Item, Render
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Schedule:
    """How a LoRA adapter is trained: AdamW, linear warm-up (a tenth) and linear decay to zero.

    Attributes:
        steps: At most.
        batch: Items a step.
        rank: Of the adapter.
        rate: Peak learning rate.
        seed: Of the adapter and of the order of the items.
        check_every: Steps between two checks on held-back items.
        patience: Checks in a row that may bring nothing better before training stops.
    """

    steps: int
    batch: int = 8
    rank: int = 16
    rate: float = 2e-3
    seed: int = 0
    check_every: int = 20
    patience: int = 3


@dataclass(frozen=True)
class Check:
    """How well held-back items were answered after some steps.

    Attributes:
        step: So many; 0 is the base.
        exact_match: Share of answers whose every token is the likeliest one, which is greedy generation's.
        loss: Negative log-likelihood of the answers' tokens, mean, in nats.
    """

    step: int
    exact_match: float
    loss: float

    def better_than(self, other: Check) -> bool:
        """Compare by exact match, then by loss."""
        return (self.exact_match, -self.loss) > (other.exact_match, -other.loss)


@dataclass
class State:
    """What training has come to, as it is stored at every check.

    Attributes:
        adapter: Name → trained tensor.
        optimizer: The optimiser's own state.
        checks: One at each check so far.
        best: The adapter at the best of these.
    """

    step: int = 0
    adapter: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    best: Mapping[str, Tensor] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Replace a file."""
        aside = file.with_name(file.name + ".part")
        torch.save({**vars(self), "checks": [astuple(one) for one in self.checks]}, aside)
        aside.replace(file)

    @classmethod
    def load(cls, file: Path) -> State:
        """Read what `save` wrote."""
        stored = torch.load(file)
        return cls(**{**stored, "checks": [Check(*one) for one in stored["checks"]]})


@dataclass(frozen=True)
class Encoded:
    """Token ids of one item: prompt, answer, end token; the first `prompt` of them are prompt."""

    ids: list[int]
    prompt: int


@dataclass(frozen=True)
class Batch:
    """Items as one prefix tree of tokens: what several items begin with is computed once.

    Items of a job share their system message, a third of their tokens. Every token sees the tokens
    on its way to the root, so losses and gradients are those of the items one by one.

    Attributes:
        ids: [1, tokens], int64.
        positions: [1, tokens], int64: depths in the tree.
        sees: [1, 1, tokens, tokens], bool: a token's ancestors, itself included.
        predicts: [answer tokens], int64: index of the token before each answer token.
        targets: [answer tokens], int64: ids of the answer tokens, item after item.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    predicts: Tensor
    targets: Tensor


def encode(tokenizer: Any, render: Render, items: Sequence[Item]) -> list[Encoded]:
    """Token ids of prompt and answer, tokenised apart as at generation, then the end token."""
    encoded = []
    for item in items:
        prompt = tokenizer(render(item.messages), add_special_tokens=False).input_ids
        answer = tokenizer(item.answer, add_special_tokens=False).input_ids
        encoded.append(Encoded([*prompt, *answer, tokenizer.eos_token_id], len(prompt)))
    return encoded


def collate(items: Sequence[Encoded], device: torch.device | str = "cpu") -> Batch:
    """Grow the prefix tree of some items; the loss lies on answers and end tokens alone."""
    nodes: dict[tuple[int, int], int] = {}  # (parent, token id) → index; the root is -1
    parents, depths, predicts, targets = [], [], [], []
    for item in items:
        at = -1
        for depth, token in enumerate(item.ids):
            if depth >= item.prompt:
                predicts.append(at)
                targets.append(token)
            if (at, token) not in nodes:
                nodes[at, token] = len(nodes)
                parents.append(at)
                depths.append(depth)
            at = nodes[at, token]
    sees = torch.eye(len(nodes), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] |= sees[parent]
    return Batch(
        torch.tensor([[token for _, token in nodes]], device=device),
        torch.tensor([depths], device=device),
        sees[None, None].to(device),
        torch.tensor(predicts, device=device),
        torch.tensor(targets, device=device),
    )


def answer_losses(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Negative log-likelihood of every answer token, float32, [answer tokens], in nats."""
    return F.cross_entropy(answer_logits(model, batch), batch.targets, reduction="none")


def answer_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits where an answer token is predicted, float32, [answer tokens, vocabulary].

    They are computed nowhere else: with a vocabulary of 49,152 the output layer is a fifth of the
    forward pass.
    """
    hidden = model.get_decoder()(
        input_ids=batch.ids,
        attention_mask=batch.sees,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    return model.get_output_embeddings()(hidden[0, batch.predicts]).float()


@torch.no_grad()
def check(model: PreTrainedModel, items: Sequence[Encoded], step: int, size: int = 16) -> Check:
    """Answer items with the model as it is, teacher-forced, `size` items a forward pass."""
    right, total, tokens = 0, 0.0, 0
    for start in range(0, len(items), size):
        some = items[start : start + size]
        batch = collate(some, model.device)
        logits = answer_logits(model, batch)
        total += F.cross_entropy(logits, batch.targets, reduction="sum").item()
        tokens += len(batch.targets)
        hits = (logits.argmax(-1) == batch.targets).split(
            [len(item.ids) - item.prompt for item in some]
        )
        right += sum(bool(of_item.all()) for of_item in hits)
    return Check(step, right / len(items), total / tokens)


def train_lora(
    model: PreTrainedModel,
    items: Sequence[Encoded],
    schedule: Schedule,
    *,
    held_back: Sequence[Encoded] = (),
    state_file: Path | None = None,
    on_step: Callable[[int, float], None],
) -> tuple[PeftModel, list[Check]]:
    """Wrap `model` with adapters on all linear layers and train these on `items`.

    The same model, items and schedule on the same machine give the same adapter, also when training
    was interrupted and goes on from its last check.

    Args:
        model: The frozen base; it is wrapped in place.
        items: What to train on.
        schedule: Steps, batch size, rank, rate, seed and checks.
        held_back: What checks are made on: training stops early by them, and the adapter of the best
            check is kept. None: the last adapter is.
        state_file: Where the state is stored at every check, and taken from when it is there.
        on_step: Called with the number of the step and its loss (nats a token).

    Returns:
        The wrapped model, and the checks, the first of them of the base.
    """
    torch.manual_seed(schedule.seed)
    adapter = LoraConfig(
        r=schedule.rank,
        lora_alpha=2 * schedule.rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, adapter)
    trained = {name: one for name, one in wrapped.named_parameters() if one.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=schedule.rate, weight_decay=0.0)
    state = State()
    if state_file is not None and state_file.exists():
        state = State.load(state_file)
        _write(trained, state.adapter)
        optimizer.load_state_dict(dict(state.optimizer))
    warm_up = max(1, schedule.steps // 10)
    draws = batches(items, schedule.batch, random.Random(schedule.seed))
    for step, chosen in islice(enumerate(draws), state.step, schedule.steps + 1):
        if held_back and (step % schedule.check_every == 0 or step == schedule.steps):
            wrapped.eval()
            _store(state, check(wrapped.get_base_model(), held_back, step), trained, optimizer)
            if state_file is not None:
                state.save(state_file)
        if step == schedule.steps or _no_longer_better(state.checks, schedule.patience):
            break
        wrapped.train()
        share = min((step + 1) / warm_up, (schedule.steps - step) / schedule.steps)
        optimizer.param_groups[0]["lr"] = schedule.rate * share
        loss = answer_losses(wrapped.get_base_model(), collate(chosen, model.device)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        on_step(step + 1, loss.item())
    _write(trained, state.best)
    wrapped.eval()
    return wrapped, state.checks


def _store(
    state: State, found: Check, trained: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Bring the state up to a check; one that was made before an interruption is made again."""
    state.step, state.optimizer = found.step, optimizer.state_dict()
    state.adapter = {name: value.detach().clone() for name, value in trained.items()}
    earlier = [one for one in state.checks if one.step < found.step]
    if all(found.better_than(one) for one in earlier):
        state.best = state.adapter
    state.checks = [*earlier, found]


def _no_longer_better(checks: Sequence[Check], patience: int) -> bool:
    best = 0
    for at, one in enumerate(checks):
        if one.better_than(checks[best]):
            best = at
    return len(checks) - 1 - best >= patience


@torch.no_grad()
def _write(trained: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        trained[name].copy_(value)


def batches(
    items: Sequence[Encoded], size: int, draw: random.Random
) -> Iterator[Sequence[Encoded]]:
    """Batches in a new order every epoch, without end; an epoch's short rest is dropped.

    Raises:
        ValueError: Fewer items than one batch needs.
    """
    if len(items) < size:
        raise ValueError(f"{len(items)} items are fewer than one batch of {size}")
    while True:
        epoch = draw.sample(items, len(items))
        for start in range(0, len(items) - size + 1, size):
            yield epoch[start : start + size]

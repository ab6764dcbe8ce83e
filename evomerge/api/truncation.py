"""An ensemble's full models turned into adapters of its base, so that one server answers for all of them.

What that loses is measured: the loss of the gold answers of the select items, before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble
from evomerge.candidate.trial import Split
from evomerge.combine.folder import alone, is_plain, open_candidate, save_ensemble
from evomerge.combine.routed import Routing
from evomerge.errors import UserError
from evomerge.merge.adapter_output import Truncated, write_adapter
from evomerge.merge.live import LiveModel
from evomerge.merge.location import split_adapter
from evomerge.merge.models import open_models
from evomerge.merge.saving import refuse_taken
from evomerge.report.formats import markdown
from evomerge.report.grid import Cell, Grid, Line, Report, number
from evomerge.scoring import Scorer
from evomerge.single import campaign_items
from evomerge.store import Store
from evomerge.tasks import Items
from evomerge.tasks.metrics import GOLD_LOGLIKELIHOOD

SPLIT: Split = "select"
Losses = Mapping[str, NDArray[np.float64]]
"""Task → of each select item the loss of the gold answer, nats a token."""


@dataclass(frozen=True)
class TruncatedMember:
    """A member as it was and as an adapter.

    Attributes:
        kept: Share of its task vector's squared norm that the adapter has.
        left: Tensors that differ from the base's, and that the adapter leaves the base's.
        full: Mean loss over the select items, the mean of the tasks', nats a token, as it was.
        adapter: The same as an adapter.
        own_items: How many of them the router sends to it.
        own_lost: By how much the mean loss on these rises; None where there are none.
    """

    kept: float
    left: tuple[str, ...]
    full: float
    adapter: float
    own_items: int
    own_lost: float | None


@dataclass(frozen=True)
class Truncation:
    """What was turned into adapters, and what that loses.

    Attributes:
        folder: The ensemble that was written.
        rank: Of the adapters.
        members: Name → what became of it.
    """

    folder: Path
    rank: int
    members: Mapping[str, TruncatedMember]

    def grid(self) -> Grid:
        """Return it as a table."""
        headers = ("", "norm kept", "full", "adapter", "lost", "items it answers", "lost on them")
        lines = []
        for name, one in self.members.items():
            values = (one.kept, one.full, one.adapter, one.adapter - one.full)
            own = "" if one.own_lost is None else number(one.own_lost)
            texts = [*map(number, values), str(one.own_items), own]
            lines.append(Line(name, "", tuple(map(Cell, texts))))
        left = sum(len(one.left) for one in self.members.values())
        note = f"{left} embeddings, norms, heads or biases that differ stay the base's in adapters"
        title = f"loss on the {SPLIT} items, nats a token; adapters of rank {self.rank}"
        return Grid(title, headers, tuple(lines), (note,) if left else ())


def adapters(results: Path, out: Path, *, rank: int, device: str = "cpu") -> Truncation:
    """Write a campaign's ensemble once more, with each full model as an adapter of the base.

    Args:
        results: A results folder whose winner is a routed ensemble.
        out: The folder to write.
        rank: Of the adapters.
        device: Where everything is computed.

    Raises:
        UserError: The winner is no routed ensemble, its base has an adapter, or none of its members is a full
            model; or the items have no gold answers, so that what is lost cannot be told.
    """
    refuse_taken(out, replace=False)
    best = results / "best"
    candidate = open_candidate(best)
    if candidate.router is None:
        raise UserError("mixes its members; no one server can answer for it", file=best)
    if split_adapter(candidate.base)[1] is not None:
        raise UserError(f"its base, {candidate.base}, has an adapter already", file=best)
    full = full_members(candidate)
    if not full:
        raise UserError("every member is the base or an adapter of it already", file=best)
    with Store.open(results, write=False) as store:
        run, facts = store.campaign, store.facts
    code, pickle = run.models.trust_remote_code, run.models.allow_pickle
    models = open_models(
        [candidate.base, *full.values()], trust_remote_code=code, allow_pickle=pickle
    )
    items = campaign_items(run, facts, results, models.tokenizer)
    tasks = [task for task in items.tasks if not items.gold_faults(task, SPLIT)]
    if not tasks:
        raise UserError("no task has gold answers, so what is lost cannot be told", file=results)
    with TemporaryDirectory(prefix="evomerge-adapters-") as folder:
        members = dict(candidate.members)
        made: dict[str, Truncated] = {}
        for name, model in full.items():
            adapter = Path(folder) / str(len(made))
            made[name] = write_adapter(
                models.base, models.checkpoints[model], adapter, rank=rank, device=device
            )
            alike = (f"{candidate.base}+{adapter}",)
            members[name] = replace(members[name], experts=alike)
        ensemble = replace(candidate, members=members)
        live = LiveModel(
            list(dict.fromkeys((*candidate.model_names(), *ensemble.model_names()))),
            dtype=run.models.dtype,
            device=device,
            trust_remote_code=code,
            allow_pickle=pickle,
        )
        found = _compared(candidate, ensemble, made, live, items, tasks)
        truncation = Truncation(out, rank, found)
        card = f"# {out.name}\n\n{markdown.write(Report((truncation.grid(),), (), None))}"
        save_ensemble(
            ensemble, out, device=device, card=card, trust_remote_code=code, allow_pickle=pickle
        )
    return truncation


def full_members(ensemble: Ensemble) -> dict[str, str]:
    """Return the members that are neither the base nor a plain adapter of it: name → model."""
    found = {}
    for name, merge in ensemble.members.items():
        model = alone(merge)
        assert model is not None  # as all members of a saved ensemble are
        body, adapter = split_adapter(model)
        if body != ensemble.base or (adapter is not None and not is_plain(Path(adapter))):
            found[name] = model
    return found


def _compared(
    before: Ensemble,
    after: Ensemble,
    made: Mapping[str, Truncated],
    live: LiveModel,
    items: Items,
    tasks: Sequence[str],
) -> dict[str, TruncatedMember]:
    """Score members as they were and as adapters."""
    scorer = Scorer(items)
    routing = Routing(live, scorer.prompts(live.module).tokens)
    answering = routing.answering(before, SPLIT)
    metrics = dict.fromkeys(tasks, (GOLD_LOGLIKELIHOOD,))

    def losses(merge: Merge) -> Losses:
        live.write(merge)
        scores = scorer.score(live.module, SPLIT, metrics).tasks
        return {task: -np.array(scores[task].metrics[GOLD_LOGLIKELIHOOD]) for task in tasks}

    found = {}
    for name, one in made.items():
        places = answering.get(name, {})
        pair = losses(before.members[name]), losses(after.members[name])
        full, adapter = (fmean(float(each[task].mean()) for task in tasks) for each in pair)
        own = [
            np.concatenate([each[task][list(places.get(task, ()))] for task in tasks])
            for each in pair
        ]
        lost = None if not len(own[0]) else float((own[1] - own[0]).mean())
        found[name] = TruncatedMember(one.kept, one.left, full, adapter, len(own[0]), lost)
    return found

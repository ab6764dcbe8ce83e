r"""Routed ensembles beside merges, simple routers and oracles, on the zoo.

    python -m benchmarks.search.combiners [--experts extraction dialogue ...] [--seeds 0 1 2] [--items 64]

A seed draws the items. All learn from the search items, what is searched is chosen on as many select items,
and everything is reported on held-out ones.

best expert             the one with the highest mean on select
best naive merge        parents apart, the one with the highest mean on search
best weight merge       the winner of a search as in `search_spaces/quickstart.yaml`: two descents
routed                  between base, experts and the best naive merge, as in a campaign; layer and margin on
                        a grid
routed, experts only    between base and experts
routed, searched merge  with the best weight merge in the naive one's place, whose scores on the search items
                        are those that it was searched by
nearest centroid        the task whose mean search prompt is the nearest (standardised states, the layer
                        chosen on select), and the member that is best on that task's search items
lowest perplexity       the expert under which the prompt is likeliest
task oracle             of each task the member with the highest held-out mean
item oracle             of each item the member with the highest held-out score

Also written: what a routed ensemble costs to score, in processor seconds, relative to its members' own
passes on the same items.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import nn

import evomerge
from evomerge import zoo
from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Router
from evomerge.candidate.trial import SPLITS, Split
from evomerge.combine.routed import Routing
from evomerge.config import Campaign
from evomerge.inference.states import mean_states
from evomerge.merge.live import LiveModel
from evomerge.preflight.check import Preflight, preflight
from evomerge.scoring import MemberPart, Scorer

EXPERTS = ("extraction", "dialogue", "tools", "translation", "facts", "formats", "verse")
METRICS = {"verse": "constraints_met"}
NAIVE, BEST = "best naive merge", "best weight merge"
MARGINS = (0.0, 0.1, 0.25, 0.5, 1.0)
TASKS_PATH = Path(__file__).parents[1] / "tasks"
Values = dict[str, np.ndarray[Any, np.dtype[np.float64]]]
"""Task → of each item the score of each member, [items, members]."""
Choices = Mapping[str, Sequence[int]]
"""Task → of each item the member that answers."""


def campaign(experts: Sequence[str], seed: int, items: int, holdout: int, trials: int) -> Campaign:
    """Return the search for the best weight merge."""
    tasks = {name: METRICS.get(name, "exact_match") for name in experts}
    return Campaign.model_validate(
        {
            "name": "merge",
            "models": {
                "base": str(zoo.resolve("zoo:base")),
                "experts": [{"model": str(zoo.resolve(f"zoo:{e}")), "name": e} for e in experts],
                "dtype": "float32",
            },
            "space": {
                "method": "task_arithmetic",
                "layers": "each",
                "components": ["self_attn", "mlp"],
                "parameters": {"weight": {"low": -0.5, "high": 2.0}},
            },
            "objectives": [{"task": f"zoo_{e}", "metric": m} for e, m in tasks.items()],
            "tasks_path": str(TASKS_PATH),
            "items": {"search": items, "select": items, "holdout": holdout, "seed": seed},
            "search": {"sampler": "gradient", "trials": trials, "seed": seed},
            "workers": {"count": 0},
        }
    )


class Bench:
    """One draw of the items, one resident model, and the members' scores on all splits."""

    def __init__(self, ready: Preflight, naive: Merge, best: Merge) -> None:
        family = ready.family.family
        models = {"base": family.base, **family.experts}
        self.members = {
            name: Merge("passthrough", (model,), dtype="float32") for name, model in models.items()
        } | {NAIVE: naive, BEST: best}
        self.experts = list(family.experts)
        self.base, self.layers = family.base, family.num_layers
        self.metrics = {goal.task: goal.metric for goal in ready.campaign.objectives}
        self.live = LiveModel(list(models.values()), dtype="float32")
        self.scorer = Scorer(ready.items)
        self.prompts = self.scorer.prompts(self.live.module)
        self.routing = Routing(self.live, self.prompts.tokens)
        self.values: dict[Split, Values] = {split: self._values(split) for split in SPLITS}

    def mean(self, chosen: Choices, split: Split = "holdout") -> dict[str, float]:
        """Return task → mean score of what was chosen."""
        return {
            task: float(np.take_along_axis(table, np.array(chosen[task])[:, None], 1).mean())
            for task, table in self.values[split].items()
        }

    def always(self, member: int) -> Choices:
        """Return the choice of one member for everything, on the held-out items."""
        return {task: [member] * len(table) for task, table in self.values["holdout"].items()}

    def best_expert(self) -> Choices:
        """Return the expert with the highest mean on select."""
        means = np.mean([table.mean(axis=0) for table in self.values["select"].values()], axis=0)
        return self.always(1 + int(means[1 : 1 + len(self.experts)].argmax()))

    def routed(self, merge: str | None) -> tuple[Choices, dict[str, Any]]:
        """Return who answers the held-out items by the router that is best on select, and what it is."""
        names = [name for name in self.members if name not in (NAIVE, BEST) or name == merge]
        members = {name: self.members[name] for name in names}
        known = {
            name: {t: table[:, n].tolist() for t, table in self.values["search"].items()}
            for n, name in enumerate(self.members)
        }
        fits = {
            layer: self.routing.fitted(Ensemble(self.base, members, Router(layer)), known)
            for layer in range(self.layers + 1)
        }
        found: list[tuple[float, Ensemble]] = []
        for fitted in fits.values():
            assert fitted.router is not None
            for margin in MARGINS if merge else (0.0,):
                router = Router(fitted.router.layer, merge, margin)
                made = Ensemble(self.base, members, router, fit=fitted.fit)
                mean = fmean(self.mean(self._chosen(made, "select"), "select").values())
                found.append((mean, made))
        _, best = max(found, key=lambda pair: pair[0])
        assert best.router is not None
        about = {"layer": best.router.layer, "margin": best.router.margin}
        return self._chosen(best, "holdout"), about | {"cost": self._cost(best)}

    def nearest_centroid(self) -> Choices:
        """Return the member that is best on the task whose mean prompt is the nearest."""
        tables = self.values["search"]
        owners = np.array([int(table.mean(axis=0).argmax()) for table in tables.values()])
        states = {split: self._states(split) for split in SPLITS}
        flat = np.concatenate(list(states["search"].values()))
        mean, scale = flat.mean(axis=0), flat.std(axis=0) + 1e-6

        def chosen(split: Split, layer: int) -> Choices:
            centroids = np.stack(
                [(own[:, layer].mean(axis=0) - mean[layer]) / scale[layer]
                 for own in states["search"].values()]
            )  # fmt: skip
            found = {}
            for task, own in states[split].items():
                points = (own[:, layer] - mean[layer]) / scale[layer]
                apart = ((points[:, None] - centroids) ** 2).sum(axis=2)
                found[task] = owners[apart.argmin(axis=1)].tolist()
            return found

        means = [
            fmean(self.mean(chosen("select", layer), "select").values())
            for layer in range(self.layers + 1)
        ]
        return chosen("holdout", int(np.argmax(means)))

    def lowest_perplexity(self) -> Choices:
        """Return the expert under which each prompt is likeliest."""
        prompts = self.prompts.tokens("holdout")
        flat = [tokens for own in prompts.values() for tokens in own]
        losses = []
        for name in self.experts:
            self.live.write(self.members[name])
            losses.append(prompt_losses(self.live.module, flat))
        best = iter((1 + np.argmin(losses, axis=0)).tolist())
        return {task: [next(best) for _ in own] for task, own in prompts.items()}

    def task_oracle(self) -> Choices:
        """Return of each task the member with the highest held-out mean."""
        found = {t: int(table.mean(axis=0).argmax()) for t, table in self.values["holdout"].items()}
        return {task: [best] * len(self.values["holdout"][task]) for task, best in found.items()}

    def item_oracle(self) -> Choices:
        """Return of each item the member with the highest score."""
        return {t: table.argmax(axis=1).tolist() for t, table in self.values["holdout"].items()}

    def _chosen(self, ensemble: Ensemble, split: Split) -> Choices:
        names = list(self.members)
        found = {task: [0] * len(table) for task, table in self.values[split].items()}
        for name, own in self.routing.answering(ensemble, split).items():
            for task, positions in own.items():
                for position in positions:
                    found[task][position] = names.index(name)
        return found

    def _cost(self, ensemble: Ensemble) -> dict[str, float]:
        """Return processor seconds: of the ensemble on held-out items, and of its members' own passes."""
        metrics = {task: (metric,) for task, metric in self.metrics.items()}
        found = {}
        for name, routes in (("members", False), ("ensemble", True)) * 2:  # first with cold caches
            self.scorer.forget_drafts()
            began = time.process_time()
            routing = Routing(self.live, self.prompts.tokens) if routes else self.routing
            answering = routing.answering(ensemble, "holdout")
            began = began if routes else time.process_time()
            parts = [MemberPart(self._module(one), own) for one, own in answering.items()]
            self.scorer.score_parts(parts, "holdout", metrics)
            found[name] = time.process_time() - began
        return found

    def _module(self, name: str) -> Any:
        def build() -> nn.Module:
            self.live.write(self.members[name])
            module: nn.Module = self.live.module
            return module

        return build

    def _values(self, split: Split) -> Values:
        metrics = {task: (metric,) for task, metric in self.metrics.items()}
        columns: dict[str, list[Any]] = {task: [] for task in metrics}
        for name in self.members:
            tasks = self.scorer.score(self._module(name)(), split, metrics).tasks
            for task, metric in self.metrics.items():
                columns[task].append(tasks[task].metrics[metric])
        return {task: np.array(rows, dtype=np.float64).T for task, rows in columns.items()}

    def _states(self, split: Split) -> Values:
        self.live.write(self.members["base"])
        prompts = self.prompts.tokens(split)
        flat = mean_states(self.live.module, [tokens for own in prompts.values() for tokens in own])
        rows = iter(flat.numpy())
        return {task: np.stack([next(rows) for _ in own]) for task, own in prompts.items()}


@torch.inference_mode()
def prompt_losses(
    module: nn.Module, prompts: Sequence[Sequence[int]], rows: int = 32
) -> list[float]:
    """Return the mean negative log-likelihood of each prompt's tokens but the first, in nats."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    found: dict[int, float] = {}
    for start in range(0, len(order), rows):
        places = order[start : start + rows]
        width = max(len(prompts[place]) for place in places)
        tokens = torch.tensor([[*prompts[n], *[-100] * (width - len(prompts[n]))] for n in places])
        logits = module(input_ids=tokens.clamp(min=0)).logits[:, :-1].float()
        losses = nn.functional.cross_entropy(
            logits.transpose(1, 2), tokens[:, 1:], ignore_index=-100, reduction="none"
        )
        sums = losses.sum(dim=1)
        found |= {n: float(s) / (len(prompts[n]) - 1) for n, s in zip(places, sums, strict=True)}
    return [found[place] for place in range(len(prompts))]


def run(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Search the merge, unless it is there, and return row → task → held-out score."""
    settings = campaign(options.experts, seed, options.items, options.holdout, options.trials)
    folder = options.folder / f"{len(options.experts)}-{options.items}-{seed}"
    result = (
        evomerge.open(folder)
        if (folder / "best").exists()
        else evomerge.search(settings, out=folder, force=True)
    )
    ready, best = preflight(settings), result.best.candidate
    baselines = {one.key: one.candidate for one in ready.space.baselines()}
    board = [row for row in result.leaderboard.rows if row.kind == "baseline"]
    naive = baselines[max(board, key=lambda row: row.objective("search") or 0.0).key]
    assert isinstance(best, Merge)
    assert isinstance(naive, Merge)
    bench = Bench(ready, naive, best)
    routed, about = bench.routed(NAIVE)
    only, about_only = bench.routed(None)
    searched, about_searched = bench.routed(BEST)
    rows: dict[str, Choices] = {
        "base": bench.always(0),
        "best expert": bench.best_expert(),
        NAIVE: bench.always(len(bench.members) - 2),
        BEST: bench.always(len(bench.members) - 1),
        "routed": routed,
        "routed, experts only": only,
        "routed, searched merge": searched,
        "nearest centroid": bench.nearest_centroid(),
        "lowest perplexity": bench.lowest_perplexity(),
        "task oracle": bench.task_oracle(),
        "item oracle": bench.item_oracle(),
    }
    shares = {
        name: sum(one == place for own in routed.values() for one in own)
        for place, name in enumerate(bench.members)
    }
    return {
        "seed": seed,
        "rows": {name: bench.mean(chosen) for name, chosen in rows.items()},
        "routers": {"routed": about, "experts only": about_only, "searched merge": about_searched},
        "answered": shares,
    }


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: a line a row; mean and spread over seeds, share of the task oracle, then each task."""
    names, tasks = list(records[0]["rows"]), list(records[0]["rows"]["base"])
    heads = [task.removeprefix("zoo_") for task in tasks]
    lines = [
        f"| | holdout | of the task oracle | {' | '.join(heads)} |",
        "| --- |" + " --- |" * (len(tasks) + 2),
    ]
    for name in names:
        means = [fmean(one["rows"][name].values()) for one in records]
        oracles = [fmean(one["rows"]["task oracle"].values()) for one in records]
        share = fmean(mean / oracle for mean, oracle in zip(means, oracles, strict=True))
        spread = f" ± {stdev(means):.3f}" if len(means) > 1 else ""
        cells = [f"{fmean(one['rows'][name][task] for one in records):.3f}" for task in tasks]
        lines.append(f"| {name} | {fmean(means):.3f}{spread} | {share:.3f} | {' | '.join(cells)} |")
    costs = [one["routers"]["routed"]["cost"] for one in records]
    ratio = fmean(one["ensemble"] / one["members"] for one in costs)
    lines += ["", f"Scoring the routed ensemble took {ratio:.3f} times its members' own passes."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run each seed that is not there yet; write all as JSON and as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", nargs="+", default=list(EXPERTS), choices=EXPERTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--items", type=int, default=64, help="search and select items of a task")
    parser.add_argument("--holdout", type=int, default=200, help="held-out items of a task")
    parser.add_argument("--trials", type=int, default=10, help="of the search for the merge")
    parser.add_argument("--folder", type=Path, default=Path("results/search/combiners"))
    parser.add_argument("--out", type=Path, default=Path("results/search/combiners.json"))
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    records = []
    for seed in options.seeds:
        records.append(run(options, seed))
        print(json.dumps(records[-1]), flush=True)
        options.out.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(table(records), encoding="utf-8")
    print(table(records))


if __name__ == "__main__":
    main()
